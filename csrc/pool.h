// Threads of our own that claim parts wherever a caller lays them out.
#pragma once

#include "board.h"

namespace twolayer {

// One of the boards that the pool's workers watch, for as long as this lives. Workers there are as
// many as processors, less the callers at work; they are made when first needed, spin for a while
// after work and then sleep.
//
// Boards are few; where none is free, board() is null and the caller runs its parts alone. Where
// `steady`, this many `threads` neither sleep nor have to be woken until the end.
class Lease {
 public:
  Lease(Index threads, bool steady);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Board* board() const { return board_; }

  // To be called between lay_out and finish: wakes those who sleep, for `parts` parts.
  static void call(Index parts);

 private:
  Board* board_ = nullptr;
  Index steady_ = 0;
};

// Tells of threads of another kind that begin to compute, or end where negative: workers then leave
// them their processors.
void make_room_for(int threads);

// Nanoseconds that the workers have waited for processors, all together.
Index workers_waited();

// How many times a worker was woken from sleep, for the tests.
Index times_woken();

// Whether this process is the child of a fork of one that had loaded the library.
bool forked();

}  // namespace twolayer
