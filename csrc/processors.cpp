#include "processors.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace twolayer {

namespace {

constexpr double NO_LIMIT = std::numeric_limits<double>::infinity();

std::atomic<int> known{0};

// cpu.max of version 2: "max 100000" or "150000 100000", microseconds of each period.
double quota_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  double quota, period;
  return file >> quota >> period && period > 0 ? quota / period : NO_LIMIT;
}

double quota_v1(const std::string& directory) {
  double quota, period;
  std::ifstream quota_file(directory + "/cpu.cfs_quota_us");
  std::ifstream period_file(directory + "/cpu.cfs_period_us");
  const bool limited = quota_file >> quota && period_file >> period && quota > 0 && period > 0;
  return limited ? quota / period : NO_LIMIT;
}

// The smallest quota of a group and of those around it.
template <class Quota>
double smallest(const std::string& root, std::string group, Quota quota) {
  double least = quota(root);
  while (!group.empty()) {
    least = std::min(least, quota(root + group));
    group.resize(group.rfind('/') == std::string::npos ? 0 : group.rfind('/'));
  }
  return least;
}

int affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return int(std::thread::hardware_concurrency());
}

int count_processors() {
  double quota = NO_LIMIT;
  std::ifstream file("/proc/self/cgroup");
  if (file) {
    std::ostringstream own;
    own << file.rdbuf();
    quota = processor_quota("/sys/fs/cgroup", own.str());
  }
  return std::max(1, int(std::min<double>(affinity(), std::ceil(quota))));
}

}  // namespace

double processor_quota(const std::string& root, const std::string& own) {
  double least = NO_LIMIT;
  std::istringstream lines(own);
  for (std::string line; std::getline(lines, line);) {  // "0::/group" or "4:cpu,cpuacct:/group"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      least = std::min(least, smallest(root, group, quota_v2));
    } else if (controllers.find(",cpu,") != std::string::npos) {
      least = std::min(least, smallest(root + "/cpu", group, quota_v1));
    }
  }
  return least;
}

int processors() {
  int count = known.load(std::memory_order_relaxed);
  if (count == 0) {
    count = count_processors();
    known.store(count, std::memory_order_relaxed);
  }
  return count;
}

int default_threads() {
  const char* asked = std::getenv("OMP_NUM_THREADS");
#if defined(_OPENMP)
  const int told = omp_get_max_threads();
  return asked != nullptr ? told : std::min(told, processors());
#else
  const int told = asked == nullptr ? 0 : std::atoi(asked);
  return told > 0 ? told : processors();
#endif
}

#if defined(__linux__)

namespace {

// The numbers at the beginning of one of /proc's files, -1 in the place of those that are not
// there.
template <int COUNT>
std::array<double, COUNT> numbers_of(const char* path) {
  std::array<double, COUNT> numbers;
  std::ifstream file(path);
  for (double& number : numbers) {
    if (!(file >> number)) number = -1;
  }
  return numbers;
}

}  // namespace

Index waited_for_processor(int thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/schedstat";
  const auto [ran, waited] = numbers_of<2>(path.c_str());
  return std::max<Index>(Index(waited), 0);
}

int processors_online() { return int(sysconf(_SC_NPROCESSORS_ONLN)); }

double time_of_others() {
  const auto [up, idle] = numbers_of<2>("/proc/uptime");  // seconds; of all processors together
  timespec own;
  if (idle < 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own) != 0) return 0;
  const double ran = processors_online() * up - idle;
  return (ran - double(own.tv_sec)) * 1e9 - double(own.tv_nsec);
}

namespace {

// Takes a processor from a thread's; returns whether it had others, and what it had.
bool narrow(int thread, int processor, cpu_set_t& before) {
  if (sched_getaffinity(thread, sizeof before, &before) != 0) return false;
  cpu_set_t others = before;
  CPU_CLR(processor, &others);
  return CPU_COUNT(&others) > 0 && sched_setaffinity(thread, sizeof others, &others) == 0;
}

}  // namespace

int current_processor() { return sched_getcpu(); }

void leave_processor(int processor) {
  cpu_set_t before;
  if (narrow(0, processor, before)) sched_setaffinity(0, sizeof before, &before);
}

int calling_thread() { return int(syscall(SYS_gettid)); }

void KeptOff::keep_off(int thread, int processor) {
  int is = FREE;  // not while another caller saves what it had
  if (!state.compare_exchange_strong(is, TAKING, std::memory_order_acquire)) return;
  state.store(narrow(thread, processor, before) ? KEPT : FREE, std::memory_order_release);
}

void KeptOff::undo() {
  if (state.load(std::memory_order_acquire) != KEPT) return;
  sched_setaffinity(0, sizeof before, &before);
  state.store(FREE, std::memory_order_release);
}

#else

Index waited_for_processor(int) { return 0; }
double time_of_others() { return 0; }
int processors_online() { return processors(); }
int current_processor() { return -1; }
void leave_processor(int) {}
int calling_thread() { return 0; }
void KeptOff::keep_off(int, int) {}
void KeptOff::undo() {}

#endif

void forget_processors() { known.store(0, std::memory_order_relaxed); }

}  // namespace twolayer
