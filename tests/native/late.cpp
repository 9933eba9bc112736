// The rules of csrc/late.h, linked with answers of our own to what they ask about this process.
// Exits with 0 where they hold, else says what does not.
#include "late.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "board.h"
#include "pool.h"
#include "processors.h"

namespace twolayer {

namespace {

constexpr Index MS = 1'000'000;
// Of the time that passes, what our threads wait for and what others run.
double waiting = 0, running = 0;
Index part_of_time(double part) { return Index(part * double(now())); }

}  // namespace

Index waited_for_processor(int) { return part_of_time(waiting); }
Index workers_waited() { return 0; }
Index time_of_others() { return part_of_time(running); }
int KeptOff::calling_thread() { return 0; }

}  // namespace twolayer

using namespace twolayer;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::_Exit(1);
}

void sleep_for(Index time) { std::this_thread::sleep_for(std::chrono::nanoseconds(time)); }

// Milliseconds until the team is tried again, up to a second.
Index stands_in_for() {
  const Index start = now();
  while (pool_stands_in() && now() - start < 1000 * MS) sleep_for(MS);
  return (now() - start) / MS;
}

void the_team_in_time_serves() {
  tell_of_team({10 * MS, 1 * MS});
  tell_of_team({10 * MS, 10 * MS});  // a cut that uneven cores explain
  require(!pool_stands_in(), "a team that was in time serves on");
}

void the_pool_stands_in_for_what_was_lost() {
  tell_of_team({1 * MS, 5 * MS});
  require(pool_stands_in(), "the pool stands in after a late thread");
  const Index time = stands_in_for();
  require(time >= 40 && time < 500, "for ten times what was lost");
}

void longer_where_it_goes_on() {
  tell_of_team({1 * MS, 5 * MS});
  stands_in_for();
  tell_of_team({1 * MS, 5 * MS});
  const Index time = stands_in_for();
  require(time >= 90 && time < 500, "twice as long at the second time");
  sleep_for(100 * MS);
  tell_of_team({1 * MS, 5 * MS});
  require(stands_in_for() < 190, "as at first after a good while");
  sleep_for(100 * MS);
}

void as_long_as_others_run() {
  waiting = 0.1, running = 0.5;
  tell_of_team({1 * MS, 5 * MS});
  require(stands_in_for() >= 1000, "the team is not tried while others run");
  waiting = running = 0;  // since the last account: time runs backwards for it
  require(stands_in_for() < 500, "and is once they are gone");
  sleep_for(100 * MS);
}

void not_where_our_own_wait_for_each_other() {
  waiting = 0.5, running = 0.01;
  tell_of_team({1 * MS, 5 * MS});
  require(stands_in_for() < 500, "torch's spinning threads are no others");
  sleep_for(100 * MS);
  waiting = 0, running = 3;
  tell_of_team({1 * MS, 5 * MS});
  require(stands_in_for() < 500, "others that run elsewhere are in nobody's way");
}

void callers_compute_alone() {
  require(!callers_alone(), "nobody is late in the beginning");
  tell_of_pool({10 * MS, 10 * MS});
  require(!callers_alone(), "a wait that uneven cores explain");
  tell_of_pool({1 * MS, 30 * MS});
  require(callers_alone(), "callers compute alone after a late worker");
  sleep_for(35 * MS);
  require(!callers_alone(), "for as long as it cost");
  tell_of_pool({1 * MS, 30 * MS});
  sleep_for(35 * MS);
  require(callers_alone(), "and longer where it soon happens again");
}

}  // namespace

int main() {
  alarm(60);
  the_team_in_time_serves();
  the_pool_stands_in_for_what_was_lost();
  longer_where_it_goes_on();
  as_long_as_others_run();
  not_where_our_own_wait_for_each_other();
  callers_compute_alone();
  return 0;
}
