#include "pool.h"

#include <algorithm>

#include <pthread.h>
#include <signal.h>

#include "processors.h"

namespace twolayer {

namespace {

constexpr int MAX_CALLERS = 32;
constexpr int MAX_WORKERS = 255;
constexpr Index SLEEP_AFTER = 50'000;  // nanoseconds without work
constexpr int LOOPS_PER_LOOK = 32;     // at the clock

struct alignas(64) Worker {
  std::atomic<int> sleeps{0};
  std::atomic<int> thread{0};
  KeptOff kept_off;
};

// Never destroyed: at exit, workers and daemon threads may still be in it.
struct Pool {
  Board boards[MAX_CALLERS];
  alignas(64) std::atomic<std::uint32_t> taken{0};  // a bit for each board in use
  std::atomic<int> strangers{0};                    // threads of other kinds that compute
  alignas(64) std::atomic<int> steady{0};           // workers that are not to sleep
  std::atomic<int> sleepers{0};
  std::atomic<Index> woken{0};
  std::atomic<bool> growing{false};
  std::atomic<int> count{0};  // workers, numbered from 1 on: a caller is thread 0
  std::atomic<bool> cannot_grow{false};
  Worker workers[MAX_WORKERS + 1];
};
Pool pool;
std::atomic<bool> in_child{false};

// Callers compute too: more workers than the processors left would take turns with them.
int room() {
  return processors() - __builtin_popcount(pool.taken.load(std::memory_order_relaxed)) -
         pool.strangers.load(std::memory_order_relaxed);
}

bool may_work(int index) { return index <= room(); }

// Runs one part of any board, of the one served last if it has some.
bool serve_any(int index, int& last) {
  const std::uint32_t taken = pool.taken.load(std::memory_order_acquire);
  if (taken >> last & 1 && pool.boards[last].serve(index)) return true;
  for (std::uint32_t others = taken; others != 0; others &= others - 1) {
    const int board = __builtin_ctz(others);
    if (pool.boards[board].serve(index)) {
      last = board;
      return true;
    }
  }
  return false;
}

bool anything_left() {
  for (std::uint32_t taken = pool.taken.load(); taken != 0; taken &= taken - 1) {
    if (pool.boards[__builtin_ctz(taken)].anything_left()) return true;
  }
  return false;
}

void fall_asleep(int index) {
  Worker& worker = pool.workers[index];
  std::atomic<int>& sleeps = worker.sleeps;
  pool.sleepers.fetch_add(1);
  sleeps.store(1);
  // Whoever lays out parts from here on sees that this worker sleeps.
  while (sleeps.load() == 1 && !(may_work(index) && anything_left())) sleep_while(sleeps, 1);
  sleeps.store(0);
  pool.sleepers.fetch_sub(1);
  worker.kept_off.undo();
}

void work(int index) {
  pool.workers[index].thread.store(calling_thread());
  Yielding yielding;
  int last = 0;
  Index idle_since = now();
  for (int loop = 1;; ++loop) {
    if (may_work(index) && serve_any(index, last)) {
      yielding.between_parts();
      idle_since = now();
      continue;
    }
    pause();
    if (loop % LOOPS_PER_LOOK != 0) continue;
    if (pool.taken.load(std::memory_order_relaxed) >> last & 1) pool.boards[last].make_way();
    yielding.between_parts();
    const bool steady = index <= pool.steady.load(std::memory_order_relaxed) && may_work(index);
    if (steady || now() - idle_since < SLEEP_AFTER) continue;
    fall_asleep(index);
    yielding.has_slept();
    idle_since = now();
  }
}

void* start_worker(void* index) {
  work(int(reinterpret_cast<std::intptr_t>(index)));
  return nullptr;
}

// Signals are for the program's own threads.
bool create_worker(int index) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  void* argument = reinterpret_cast<void*>(std::intptr_t(index));
  const bool created = pthread_create(&thread, nullptr, &start_worker, argument) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!created) return false;
  pthread_detach(thread);
#if defined(__linux__)
  pthread_setname_np(thread, "twolayer");
#endif
  return true;
}

// Sees to `wanted` workers, or as many as the system lets us have.
void grow(Index wanted) {
  wanted = std::min<Index>({wanted, processors() - 1, MAX_WORKERS});
  if (pool.count.load(std::memory_order_relaxed) >= wanted) return;
  if (pool.cannot_grow.load() || pool.growing.exchange(true)) return;
  while (pool.count.load() < wanted) {
    if (!create_worker(pool.count.load() + 1)) {
      pool.cannot_grow.store(true);
      break;
    }
    pool.count.fetch_add(1);
  }
  pool.growing.store(false);
}

// In the child of a fork there is the forking thread and nobody else.
void after_fork() {
  in_child.store(true);
  forget_processors();
  for (Board& board : pool.boards) board.clear();
  for (Worker& worker : pool.workers) {
    worker.sleeps.store(0);
    worker.thread.store(0);
    worker.kept_off.forget();
  }
  pool.taken.store(0);
  pool.strangers.store(0);
  pool.steady.store(0);
  pool.sleepers.store(0);
  pool.count.store(0);
  pool.growing.store(false);
  pool.cannot_grow.store(false);
}

const int registered = pthread_atfork(nullptr, nullptr, &after_fork);

}  // namespace

Lease::Lease(Index threads, bool steady) {
  std::uint32_t taken = pool.taken.load(std::memory_order_relaxed);
  int board;
  do {
    if (taken == ~std::uint32_t(0)) return;
    board = __builtin_ctz(~taken);
  } while (!pool.taken.compare_exchange_weak(taken, taken | std::uint32_t(1) << board));
  board_ = &pool.boards[board];
  grow(threads - 1);
  if (steady) {
    steady_ = threads - 1;
    pool.steady.fetch_add(int(steady_));
  }
}

Lease::~Lease() {
  if (board_ == nullptr) return;
  pool.steady.fetch_sub(int(steady_));
  pool.taken.fetch_and(~(std::uint32_t(1) << (board_ - pool.boards)));
}

void Lease::call(Index parts) {
  if (pool.sleepers.load(std::memory_order_seq_cst) == 0) return;
  const Index wanted = std::min<Index>({parts - 1, room(), pool.count.load()});
  const int here = current_processor();
  for (int index = 1; index <= wanted; ++index) {
    Worker& worker = pool.workers[index];
    std::atomic<int>& sleeps = worker.sleeps;
    if (sleeps.load() == 1 && sleeps.exchange(0) == 1) {
      pool.woken.fetch_add(1, std::memory_order_relaxed);
      if (here >= 0) worker.kept_off.keep_off(worker.thread.load(), here);
      wake(sleeps);
    }
  }
}

void make_room_for(int threads) { pool.strangers.fetch_add(threads); }

Index workers_waited() {
  Index waited = 0;
  for (int index = 1; index <= pool.count.load(); ++index) {
    const int thread = pool.workers[index].thread.load();
    if (thread != 0) waited += waited_for_processor(thread);
  }
  return waited;
}

Index times_woken() { return pool.woken.load(); }

bool forked() { return in_child.load(std::memory_order_relaxed); }

}  // namespace twolayer
