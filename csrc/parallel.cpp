#include "parallel.h"

#include <chrono>

#include "crowding.h"

namespace twolayer {

namespace {
Crowding crowding;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int threads_for(Index parts) { return int(crowding.crowded(now()) ? (parts + 1) / 2 : parts); }

void tell_crowding(double start, double done, double end) {
  crowding.finished(done - start, end - done, end);
}

}  // namespace twolayer
