#include "late.h"

#include <algorithm>
#include <atomic>

#include "board.h"
#include "pool.h"
#include "processors.h"

namespace twolayer {

namespace {

// A thread that loses its processor to another program returns after a scheduler's slice, some 3 ms
// or many of them. A wait counts as such where neither an uneven cut nor slower processors among
// faster ones explain it.
constexpr Index LATE = 2'000'000;
bool late(Spent spent) { return spent.waited >= LATE + spent.worked + spent.worked / 2; }

// ---- the pool in the place of OpenMP's team ----

// For how long: at first, at most, of what was lost, and until the next look at what others take.
constexpr Index FIRST_HOLD = 20'000'000, LONGEST_HOLD = 2'000'000'000;
constexpr Index HOLD_PER_WAIT = 10, LOOK_AGAIN_AFTER = 100'000'000;
// A team that is late so soon after a hold goes on being late.
constexpr Index SOON_AFTER_HOLD = 20'000'000;
// Others take our processors where our threads wait for one for over a 64th of the time, while
// others run for a quarter of it beyond what fits on the processors that the team leaves free. Both
// count: torch's threads, which spin after work, make ours wait too, and others may run elsewhere.
constexpr Index WAITED = 64, OTHERS = 4;

struct Account {
  int caller = 0;
  Index at = 0, waited = 0;
  double others = 0;
};

Account account_of(int caller) {
  return {caller, now(), waited_for_processor(caller) + workers_waited(), time_of_others()};
}

bool crowded_since(const Account& before, int threads) {
  const Account after = account_of(before.caller);
  const Index time = after.at - before.at;
  const double elsewhere = double(time) * std::max(0, processors_online() - threads);
  return (after.waited - before.waited) * WAITED > time &&
         (after.others - before.others - elsewhere) * OTHERS > double(time);
}

std::atomic<Index> hold_until{0};  // 0 where there is none
Account account;
Index hold_length = 0, hold_ended = 0;

// Whoever is there reads and writes these; the others need not wait.
std::atomic<bool> somebody_is_there{false};
class AtTheAccount {
 public:
  ~AtTheAccount() {
    if (alone) somebody_is_there.store(false);
  }
  const bool alone = !somebody_is_there.exchange(true);
};

void hold_for(Index time) {
  account = account_of(calling_thread());
  hold_until.store(account.at + time);
}

// ---- the caller alone ----

// For as long as was lost at first (an idle machine has hiccups), for up to 16 times as long where
// workers come late again soon: so in any crowd callers lose little over one thread.
constexpr Index SOON = 50'000'000, LONGEST_FACTOR = 16;
std::atomic<Index> alone_until{0}, last_alone{0}, factor{1};

}  // namespace

void tell_of_team(Spent spent) {
  if (!late(spent)) return;
  const AtTheAccount here;
  if (!here.alone) return;
  const bool again = hold_ended != 0 && now() < hold_ended + SOON_AFTER_HOLD;
  const Index least = std::max(again ? 2 * hold_length : FIRST_HOLD, HOLD_PER_WAIT * spent.waited);
  hold_length = std::min(least, LONGEST_HOLD);
  hold_for(hold_length);
}

bool pool_stands_in(int threads) {
  const Index end = hold_until.load(std::memory_order_relaxed);
  if (end == 0) return false;
  if (now() < end) return true;
  const AtTheAccount here;
  if (!here.alone) return true;
  const Index since = hold_until.load(std::memory_order_relaxed);
  if (since != end) return since != 0;  // somebody has looked meanwhile
  if (crowded_since(account, threads)) {
    hold_for(LOOK_AGAIN_AFTER);
    return true;
  }
  hold_ended = now();
  hold_until.store(0);
  return false;
}

void tell_of_pool(Spent spent) {
  if (!late(spent)) return;
  const Index end = now(), lost = spent.waited;
  const Index before = factor.load(std::memory_order_relaxed);
  const bool again = end < last_alone.load(std::memory_order_relaxed) + SOON + before * lost;
  const Index next = again ? std::min(2 * before, LONGEST_FACTOR) : 1;
  factor.store(next, std::memory_order_relaxed);
  last_alone.store(end + next * lost, std::memory_order_relaxed);
  alone_until.store(end + next * lost, std::memory_order_relaxed);
}

bool callers_alone() {
  const Index until = alone_until.load(std::memory_order_relaxed);
  if (until == 0) return false;
  if (now() < until) return true;
  alone_until.store(0, std::memory_order_relaxed);
  return false;
}

}  // namespace twolayer
