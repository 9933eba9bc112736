// How many processors this process may use, and what others take of them.
#pragma once

#include <atomic>
#include <string>

#if defined(__linux__)
#include <sched.h>
#endif

#include "types.h"

namespace twolayer {

// Those of the affinity mask of the calling thread, or fewer where a control group limits the time
// on them. At least 1. Read once in a process.
int processors();

// The time on processors that control groups leave to a process, in processors; infinity where
// they set no limit. `root`: where their file systems are; `own`: the text of /proc/self/cgroup.
double processor_quota(const std::string& root, const std::string& own);

// Threads for a caller that names no number: OMP_NUM_THREADS (or what was told to OpenMP since
// then), else one per processor.
int default_threads();

// The processor that the calling thread runs on; -1 where that cannot be told.
int current_processor();

// Those of the machine that are online.
int processors_online();

// The system's number of the calling thread; 0 where threads have none.
int calling_thread();

// Nanoseconds that the thread of this process with this number has waited for a processor while it
// could run; 0 where that cannot be told.
Index waited_for_processor(int thread);

// Nanoseconds that other processes have run on all processors online, to about a hundredth of a
// second: of worth are differences. Stands still where that cannot be told.
double time_of_others();

// Moves the calling thread to another of its processors, if it has one. The scheduler likes to put
// a thread beside the one that woke it, on one processor while others are idle, and leaves them
// there taking turns of milliseconds.
void leave_processor(int processor);

// The same for another thread, one that sleeps: it wakes up elsewhere.
class KeptOff {
 public:
  // Where an earlier call has not been undone yet, nothing happens.
  void keep_off(int thread, int processor);
  // To be called by that thread, awake: all of its processors are its own again.
  void undo();
  // In the child of a fork: there is no such thread any more.
  void forget() { state.store(FREE, std::memory_order_relaxed); }

 private:
#if defined(__linux__)
  cpu_set_t before;
#endif
  enum State { FREE, TAKING, KEPT };
  std::atomic<int> state{FREE};
};

// To be called in the child of a fork, which may get other limits.
void forget_processors();

}  // namespace twolayer
