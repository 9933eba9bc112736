// What is done about threads that come late, because programs beside ours take their processors.
#pragma once

#include "types.h"

namespace twolayer {

// How a piece of work went: nanoseconds in which its caller worked, and in which it waited for
// parts that other threads held.
struct Spent {
  Index worked, waited;
};

// On OpenMP's team, and on the pool.
void tell_of_team(Spent spent);
void tell_of_pool(Spent spent);

// Whether the pool is to serve the team's calls now. A thread that OpenMP waits for and that has
// lost its processor costs tens of milliseconds; so after one came late the pool stands in, and the
// team is tried again only where this process has had its processors since.
bool pool_stands_in();

// Whether callers are to compute alone, also without the pool.
bool callers_alone();

}  // namespace twolayer
