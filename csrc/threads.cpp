#include "threads.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <pthread.h>

#include "late.h"
#include "pool.h"
#include "processors.h"

namespace twolayer {

namespace {

// What the calling thread is in the middle of.
struct State {
  Board* board = nullptr;  // of the region or run that it is in
  bool pooled = false;     // whether the pool's workers watch that board
  Neighbour neighbour = Neighbour::torch;
};
thread_local State state;

void one_after_the_other(Index parts, Work work) {
  for (Index part = 0; part < parts; ++part) work.call(work.fn, part);
}

// Lays the parts out on the board of the region that this thread is in.
void run_on_board(Index parts, Work work) {
  if (state.pooled && callers_alone()) return one_after_the_other(parts, work);
  std::exception_ptr error;
  Board& board = *state.board;
  const Index start = now(), waited_before = board.waited();
  board.lay_out(parts, work, error);
  if (state.pooled) Lease::call(parts);
  board.finish();
  const Index waited = board.waited() - waited_before;
  if (state.pooled && waited > 0) tell_of_pool({now() - start - waited, waited});
  if (error) std::rethrow_exception(error);
}

// Runs fn() with `board` as this thread's.
template <class Fn>
void with_board(Board* board, bool pooled, Fn fn) {
  struct Restore {
    State before = state;
    ~Restore() { state = before; }
  } restore;
  state.board = board;
  state.pooled = pooled;
  fn();
}

template <class Fn>
void with_pool(Index threads, Region region, Fn fn) {
  const Lease lease(threads, region == Region::many_pieces);
  with_board(lease.board(), true, fn);
}

// What TWOLAYER_THREADS names; empty for the choice by the rule.
const std::string& named_engine() {
  static const std::string name = [] {
    const char* text = std::getenv("TWOLAYER_THREADS");
    return std::string(text == nullptr ? "" : text);
  }();
  return name;
}

#if defined(_OPENMP)

// One team at a time: those of several callers would take each other's processors.
std::atomic<bool> team_taken{false};

bool take_team(Index parts) {
  if (forked() || omp_in_parallel()) return false;  // in a child OpenMP would wait for ever
  const int threads = omp_get_max_threads();
  if (threads < 2 || threads < parts) return false;
  if (named_engine().empty()) {
    // OpenMP ends the process where it cannot make its threads.
    if (state.neighbour != Neighbour::torch || threads > processors()) return false;
    if (pool_stands_in(threads)) return false;
  } else if (named_engine() != "openmp") {
    return false;
  }
  return !team_taken.exchange(true);
}

// Always the whole team, as torch has it: OpenMP ends and makes threads when the number changes.
template <class Fn>
void with_team(Fn fn) {
  const int threads = omp_get_max_threads();
  Board board;
  std::atomic<bool> ended{false};
  std::exception_ptr error;
  make_room_for(threads);
  const Index start = now();
  Index end = start;
#pragma omp parallel
  {
    if (omp_get_thread_num() == 0) {
      try {
        with_board(&board, false, fn);
      } catch (...) {
        error = std::current_exception();
      }
      end = now();
      ended.store(true, std::memory_order_release);
    } else {
      const FloatMode own_mode = FloatMode::current();
      const int thread = omp_get_thread_num();
      while (!ended.load(std::memory_order_acquire)) {
        if (!board.serve(thread)) pause();
      }
      own_mode.enter();
    }
  }
  const Index gathered = now();
  team_taken.store(false);
  make_room_for(-threads);
  tell_of_team({end - start - board.waited(), board.waited() + gathered - end});
  if (error) std::rethrow_exception(error);
}

#endif

template <class Fn>
void with_engine(Index parts, Region region, Fn fn) {
#if defined(_OPENMP)
  if (take_team(parts)) return with_team(fn);
#endif
  with_pool(parts, region, fn);
}

}  // namespace

void run_parts(Index parts, Work work) {
  if (inside_part()) return one_after_the_other(parts, work);
  const auto run = [&] {
    if (state.board == nullptr) return one_after_the_other(parts, work);
    run_on_board(parts, work);
  };
  if (state.board != nullptr) return run();
  with_engine(parts, Region::brief, run);
}

void run_in_one_region(Index threads, Work body, Region region) {
  const auto run = [&] { body.call(body.fn, 0); };
  if (inside_part() || state.board != nullptr || threads < 2) return run();
  with_engine(threads, region, run);
}

void check_engine() {
#if defined(_OPENMP)
  const char* const names = "openmp or pool";
  const bool known = named_engine() == "openmp" || named_engine() == "pool";
#else
  const char* const names = "pool";
  const bool known = named_engine() == "pool";
#endif
  if (known || named_engine().empty()) return;
  throw std::runtime_error(std::string("TWOLAYER_THREADS must be ") + names +
                           " in this build, got '" + named_engine() + "'");
}

// The child of a fork inside a run goes on alone.
const int registered = pthread_atfork(nullptr, nullptr, [] { state = {}; });

CalledBeside::CalledBeside(Neighbour neighbour) : before(state.neighbour) {
  state.neighbour = neighbour;
}

CalledBeside::~CalledBeside() { state.neighbour = before; }

}  // namespace twolayer
