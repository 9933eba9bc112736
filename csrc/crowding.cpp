#include "crowding.h"

#include <algorithm>

namespace twolayer {

namespace {
// What neither an uneven cut nor slower processors among faster ones explain; the slices in which
// a scheduler deals out a processor take 3 ms or more.
constexpr double LATE = 300e-6, LATE_SHARE = 1.5;
constexpr double FIRST_HOLD = 20e-3, LONGEST_HOLD = 1.0;
// A thread that comes late this soon after the end of a hold does so for the same reason.
constexpr double SAME_REASON = 0.1;
}  // namespace

bool Crowding::crowded(double now) {
  const std::lock_guard<std::mutex> lock(mutex);
  return now < until;
}

void Crowding::finished(double worked, double waited, double now) {
  if (waited < LATE + LATE_SHARE * worked) return;
  const std::lock_guard<std::mutex> lock(mutex);
  const bool again = hold > 0 && now < until + SAME_REASON;
  hold = again ? std::min(2 * hold, LONGEST_HOLD) : FIRST_HOLD;
  until = now + hold;
}

}  // namespace twolayer
