// What csrc/processors.h tells of a thread and of other processes, beside one that runs on the same
// processor. Exits with 0 where it is so, else says what is not.
#include "processors.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "board.h"
#include "require.h"

using namespace twolayer;

namespace {

constexpr Index MS = 1'000'000;

void run_for(Index time) {
  const Index end = now() + time;
  while (now() < end) {
  }
}

void two_processes_on_one_processor() {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(current_processor(), &one);
  require(sched_setaffinity(0, sizeof one, &one) == 0, "a processor can be chosen");
  const pid_t child = fork();
  require(child >= 0, "a process can be started");
  if (child == 0) {
    run_for(30'000 * MS);  // it ends by itself where nobody ends it
    std::_Exit(0);
  }
  const int own = calling_thread();
  const Index waited = waited_for_processor(own);
  const double others = time_of_others();
  run_for(1000 * MS);
  const Index for_us = waited_for_processor(own) - waited;
  const double for_others = time_of_others() - others;
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  require(for_us > 200 * MS, "a thread waits while another process has its processor");
  require(for_others > 200 * MS, "which has run meanwhile");
}

}  // namespace

int main() {
  alarm(60);
  require(waited_for_processor(0) == 0, "nothing is known of a thread that is not there");
  two_processes_on_one_processor();
  return 0;
}
