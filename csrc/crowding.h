// Whether other programs want the processors that our threads run on.
#pragma once

#include <mutex>

namespace twolayer {

// Threads that wait for each other are as slow as the slowest, and one that lost its processor to
// another program gets it back only after milliseconds; short pieces of work are done sooner on
// fewer threads then. The machine counts as crowded for a while after threads came late twice in a
// short time (once is a hiccup): for a short while at first, and for a longer one each time that
// it is still so afterwards.
//
// Times are in seconds on a steady clock. Safe to use from several threads.
class Crowding {
 public:
  bool crowded(double now);

  // After a piece of work of which one thread did its share and then waited for the others.
  void finished(double worked, double waited, double now);

 private:
  std::mutex mutex;
  double last_late = -1;
  double until = 0;  // crowded before this time,
  double hold = 0;   // which was that far away
};

}  // namespace twolayer
