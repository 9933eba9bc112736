// Parts of a piece of work on several threads: one contract, two engines.
//
// OpenMP's team, which is torch's too, serves calls that torch's own work alternates with: two
// libraries' waiting threads would take each other's processors. A pool of our own serves NumPy's
// callers, long runs, the children of a fork, and calls beside programs that keep OpenMP's threads
// from coming in time. In both, threads claim parts, and the cut into parts is the caller's:
// results do not depend on the engine, nor on how busy the machine is.
#pragma once

#include "board.h"

namespace twolayer {

void run_parts(Index parts, Work work);
// How long a region is: in a long one waiting threads do not sleep between its pieces of work.
enum class Region { brief, many_pieces };
void run_in_one_region(Index threads, Work body, Region region);

template <class Fn>
Work work_of(Fn& fn) {
  return {[](void* f, Index part) { (*static_cast<Fn*>(f))(part); }, &fn};
}

// Calls fn(part) for 0 <= part < parts, part i preferably on thread i, and waits for all of them.
// An exception of one of them comes out when all have ended. Inside a part there are no further
// threads: the parts run one after the other.
template <class Fn>
void on_threads(Index parts, Fn fn) {
  if (parts > 1) return run_parts(parts, work_of(fn));
  if (parts == 1) fn(Index(0));
}

// Calls body(), whose calls of on_threads then share one gathering of up to `threads` threads.
template <class Fn>
void in_one_region(Index threads, Fn body, Region region = Region::brief) {
  auto call = [&](Index) { body(); };
  run_in_one_region(threads, work_of(call), region);
}

// Whose arrays the calling thread works on, while this lives.
enum class Neighbour { torch, none };
class CalledBeside {
 public:
  explicit CalledBeside(Neighbour neighbour);
  ~CalledBeside();

 private:
  Neighbour before;
};

// Throws std::runtime_error where the environment variable TWOLAYER_THREADS names an engine that is
// not there. It is for tests and measurements: "openmp" or "pool" in the place of the rule.
void check_engine();

}  // namespace twolayer
