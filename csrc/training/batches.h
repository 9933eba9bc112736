// The samples of each step, brought from wherever they are into the order in which it reads them.
#pragma once

#include <vector>

#include "../matmul.h"
#include "../scratch.h"
#include "layout.h"
#include "plan.h"

namespace twolayer {

// What the losses of a batch's samples are found from.
struct alignas(64) Targets {
  ScratchBuffer values, classes, weights;
};

template <class T>
struct Batch {
  Index rows = 0;
  Matrix<const T> x;  // where the threads share it
  ScratchBuffer x_rows;
  std::vector<Targets> targets;  // each thread's own, or one that each writes for its samples
};

// A thread's view of the samples' features.
template <class T>
struct OwnSamples {
  Matrix<const T> x;
  const void* packed = nullptr;             // batch x in_features, and
  const void* transposed_packed = nullptr;  // the other way, where samples are along
};

// Two batches: the one in use, and the next.
template <class T>
class Batches {
 public:
  Batches(const TrainingPlan<T>& plan, const Layout& layout);

  const Batch<T>& current() const { return batches[in_use]; }
  const Batch<T>& next() const { return batches[1 - in_use]; }
  // Where batches are each thread's own: of the last one that it brought in.
  OwnSamples<T> samples_of(Index thread, const Batch<T>& batch) const;
  bool are_weighted() const { return bool(data.weight); }
  // Of the current batch's samples, in sum, their classes' weights included; 0 for those ignored.
  double weight() const;
  // A sample of the current batch whose class is none of the outputs, -1 where there is none.
  Index bad_sample() const;
  // The samples that a thread finds the losses of, and what it finds them from.
  Range samples_of_loss(Index rows, Index thread) const;
  const Targets& targets_of(Index thread) const;

  // From here on, batches are of these samples and steps.
  void begin(const TrainingData<T>& data, const Steps& steps);
  // The samples of a step become the next batch, which each thread then brings in for its part.
  void take(Index step);
  void bring_in(Index thread);
  // Ends the current batch.
  void turn() { in_use = 1 - in_use; }

 private:
  using S = Sum<T>;

  struct alignas(64) Own {  // nothing that one thread writes shares a line with another one's
    Matrix<const T> x;
    ScratchBuffer x_rows, x_packed, x_transposed_packed;
    double weight[2] = {};
    Index bad_sample[2] = {-1, -1};
  };

  Range part_of(Index rows, Index thread) const;
  void pack_x(const Batch<T>& batch, Own& own);
  void bring_in_targets(Batch<T>& batch, Index thread);
  void weigh(Targets& targets, Range rows, Own& own);

  const TrainingPlan<T>& plan;
  const Layout layout;
  Batch<T> batches[2];
  int in_use = 0;
  std::vector<Own> owns;
  // What the next batch is taken from.
  TrainingData<T> data;
  Steps steps;
  const std::int64_t* numbers = nullptr;  // null: the samples from `first` on
  Index first = 0;
};

}  // namespace twolayer
