// How many processors this process may use.
#pragma once

#include <string>

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

// To be called in the child of a fork, which may get other limits.
void forget_processors();

}  // namespace twolayer
