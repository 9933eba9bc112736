// What is done about threads that come late, because programs beside ours take their processors.
#pragma once

#include "types.h"

namespace twolayer {

// How a piece of work went: nanoseconds in which its caller worked, and in which it waited for
// parts that other threads held.
struct Spent {
  Index worked, waited;
};

// To be called after each piece of work with how it went: on OpenMP's team; on the pool.
void tell_of_team(Spent spent);
void tell_of_pool(Spent spent);

// Whether the pool is to serve the calls of a team of so many threads now. One that OpenMP waits
// for and that has lost its processor costs tens of milliseconds; so after one came late the pool
// stands in, and the team is tried again only where this process has had its processors since.
bool pool_stands_in(int threads);

// Whether callers are to compute alone, without the pool's workers.
bool callers_alone();

}  // namespace twolayer
