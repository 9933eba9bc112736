// What a training is told: the network and what moves it, the samples, and the steps to take.
#pragma once

#include <string>

#include "../types.h"
#include "loss.h"
#include "optimizer.h"

namespace twolayer {

// Which parameters there are, and their order everywhere.
enum ParameterIndex { W1, W2, B1, B2, PARAMETERS };

// A parameter and what moves it. One stride of a weight is 1; biases and states are adjacent, and a
// state has its parameter's strides.
template <class T>
struct Parameter {
  Matrix<T> values;  // a bias is one row; null: a bias that is not there
  bool moves = false;
  T* states[MAX_STATES] = {};
  OptimizerOptions options;
  Index steps = 0;  // taken before
};

template <class T>
struct TrainingPlan {
  Index in_features = 0, hidden_features = 0, out_features = 0;
  Index batch = 0;  // the most samples of a step
  Parameter<T> parameters[PARAMETERS];
  std::string optimizer, loss;
  LossOptions<T> loss_options;
  Index ignored_class = -100;
  double penalty = 0;              // coefficient of (w1^2 + w2^2) / 2 in the loss,
  bool penalty_is_shared = false;  // divided by the weights of the batch's samples
  int threads = 1;
};

// The samples that batches are taken from.
template <class T>
struct TrainingData {
  Matrix<const T> x;                   // samples x in_features
  Matrix<const T> target;              // samples x out_features, or
  Vector<const std::int64_t> classes;  // samples
  Vector<const T> weight;              // samples; null: 1 each
};

// The steps of one call: step i takes the samples order[first[i] .. first[i] + size[i]), or those
// numbers themselves where there is no order.
struct Steps {
  Index count = 0;
  const std::int64_t* order = nullptr;
  const std::int64_t* first = nullptr;
  const std::int64_t* size = nullptr;
  const double* rates = nullptr;  // count x PARAMETERS x 2: learning rate, momentum or beta1
  double seconds = 0;             // no further step begins after this time
  bool stop_at_nonfinite = true;
};

struct Outcome {
  Index done = 0;          // whole steps
  bool nonfinite = false;  // the loss after these was no finite number; its step was not taken
  // The sample after these steps whose class is none of the outputs; its step was not taken.
  Index bad_sample = -1;
};

}  // namespace twolayer
