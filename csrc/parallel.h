// Parts of a piece of work on several threads: OpenMP's, which are torch's too.
#pragma once

#include <omp.h>

#include <exception>

#include "types.h"

namespace twolayer {

// Threads for work cut into `parts`: one each, fewer while other programs want the processors.
int threads_for(Index parts);

// What on_threads tells after a piece of work: when it began, when the calling thread had done its
// parts, and when all had. Seconds as of now().
void tell_crowding(double start, double done, double end);

double now();

// Calls fn(part) for 0 <= part < parts on several threads, and waits for all of them. An exception
// of one of them comes out when all have ended. The cut into parts is the caller's: results must
// not depend on how busy the machine is.
template <class Fn>
void on_threads(Index parts, Fn fn) {
  if (parts <= 1) {
    if (parts == 1) fn(Index(0));
    return;
  }
  std::exception_ptr error;
  const double start = now();
  double done = start;
#pragma omp parallel for num_threads(threads_for(parts)) schedule(static)
  for (Index part = 0; part < parts; ++part) {
    try {
      fn(part);
    } catch (...) {
#pragma omp critical
      error = std::current_exception();
    }
    if (omp_get_thread_num() == 0) done = now();
  }
  tell_crowding(start, done, now());
  if (error) std::rethrow_exception(error);
}

}  // namespace twolayer
