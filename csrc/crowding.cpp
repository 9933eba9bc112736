#include "crowding.h"

#include <algorithm>

namespace twolayer {

namespace {
// What neither an uneven cut nor slower processors among faster ones explain; the slices in which
// a scheduler deals out a processor take 3 ms or more, the hiccups of an idle machine 1 ms.
constexpr double LATE = 2e-3, LATE_SHARE = 1.5;
constexpr double TWICE_WITHIN = 50e-3;
constexpr double FIRST_HOLD = 20e-3, LONGEST_HOLD = 0.5;
// A thread that comes late this soon after the end of a hold does so for the same reason.
constexpr double SAME_REASON = 20e-3;
}  // namespace

bool Crowding::crowded(double now) {
  const std::lock_guard<std::mutex> lock(mutex);
  return now < until;
}

void Crowding::finished(double worked, double waited, double now) {
  if (waited < LATE + LATE_SHARE * worked) return;
  const std::lock_guard<std::mutex> lock(mutex);
  if (hold > 0 && now < until + SAME_REASON) {
    hold = std::min(2 * hold, LONGEST_HOLD);
    until = now + hold;
  } else if (last_late >= 0 && now < last_late + TWICE_WITHIN) {
    hold = FIRST_HOLD;
    until = now + hold;
  }
  last_late = now;
}

}  // namespace twolayer
