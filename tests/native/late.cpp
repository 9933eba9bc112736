// The rules of csrc/late.h, linked with a clock of our own and answers of our own to what they ask
// about this process. Exits with 0 where they hold, else says what does not.
#include "late.h"

#include "board.h"
#include "pool.h"
#include "processors.h"
#include "require.h"

namespace {

using twolayer::Index;

constexpr Index MS = 1'000'000;

// What has passed, what our threads have waited for of it, and what others have run.
Index passed = 1000 * MS, waited = 0;
double others = 0;
// The parts of the time that these take from now on.
double waiting = 0, running = 0;
int online = 2;

void pass(Index time) {
  passed += time;
  waited += Index(waiting * double(time));
  others += running * double(time);
}

}  // namespace

namespace twolayer {

Index now() { return passed; }
Index waited_for_processor(int) { return waited; }
Index workers_waited() { return 0; }
double time_of_others() { return others; }
int processors_online() { return online; }
int calling_thread() { return 1; }

}  // namespace twolayer

using namespace twolayer;

namespace {

// Milliseconds until a team of two is tried again, up to ten seconds.
Index held() {
  const Index start = now();
  while (pool_stands_in(2) && now() - start < 10'000 * MS) pass(MS);
  return (now() - start) / MS;
}

void a_good_while() { pass(5000 * MS); }

void the_team_in_time_serves() {
  tell_of_team({10 * MS, 1 * MS});
  tell_of_team({10 * MS, 10 * MS});  // a cut that uneven cores explain
  require(!pool_stands_in(2), "a team that was in time serves on");
}

void the_pool_stands_in_for_what_was_lost() {
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 50, "the pool stands in for ten times what was lost");
  a_good_while();
  tell_of_team({0, 2 * MS});
  require(held() == 20, "not for less than 20 ms");
  a_good_while();
}

void longer_where_it_goes_on() {
  for (Index wanted : {50, 100, 200, 400, 800, 1600, 2000, 2000}) {
    tell_of_team({1 * MS, 5 * MS});
    require(held() == wanted, "twice as long each time that it goes on, up to two seconds");
  }
  a_good_while();
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 50, "as at first after a good while");
  a_good_while();
}

void as_long_as_others_run() {
  waiting = 0.1, running = 0.5;
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 10'000, "the team is not tried while others take its processors");
  waiting = running = 0;
  require(held() <= 200, "and is once they are gone");
  a_good_while();
}

void not_where_others_are_in_nobodys_way() {
  waiting = 0.5, running = 0.01;
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 50, "torch's spinning threads are no others");
  a_good_while();
  waiting = 0.01, running = 1.5;
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 50, "our threads must have waited");
  a_good_while();
  waiting = 0.03, online = 64;
  tell_of_team({1 * MS, 5 * MS});
  require(held() == 50, "others have room on processors that the team leaves free");
  waiting = running = 0, online = 2;
  a_good_while();
}

void callers_compute_alone() {
  require(!callers_alone(), "nobody is late in the beginning");
  tell_of_pool({10 * MS, 10 * MS});
  require(!callers_alone(), "a wait that uneven cores explain");
  tell_of_pool({1 * MS, 30 * MS});
  pass(29 * MS);
  require(callers_alone(), "callers compute alone after a late worker");
  pass(1 * MS);
  require(!callers_alone(), "for as long as it cost");
  tell_of_pool({1 * MS, 30 * MS});
  pass(59 * MS);
  require(callers_alone(), "twice as long where it soon happens again");
  pass(1 * MS);
  require(!callers_alone(), "and no longer");
}

}  // namespace

int main() {
  the_team_in_time_serves();
  the_pool_stands_in_for_what_was_lost();
  longer_where_it_goes_on();
  as_long_as_others_run();
  not_where_others_are_in_nobodys_way();
  callers_compute_alone();
  return 0;
}
