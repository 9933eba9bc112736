// How a training lies in memory, and between how many threads.
#pragma once

#include "plan.h"

namespace twolayer {

struct Layout {
  Index threads = 1;
  // Whether small batches are each thread's own, packed once for all steps on them: what another
  // processor wrote is slow to read.
  bool own_batches = false;
  bool samples_along = false;  // vectors of the hidden layer run along the samples
  bool outputs_first = false;  // outputs x samples, else samples x outputs
  Index output_stride = 1;     // between its rows
  // Whether each thread finds all losses itself, since a meeting of the threads costs more.
  bool own_losses = false;
  // Whether runs of many steps train w2's columns in copies, since its rows have lines in which two
  // threads' columns meet.
  bool w2_apart = false;
};

template <class T>
Layout layout_of(const TrainingPlan<T>& plan, const LossKernel<T>& loss);

// How far apart rows of this size are where they are whole vectors and do not share the sets of the
// cache.
template <class T>
Index row_stride(Index size);

}  // namespace twolayer
