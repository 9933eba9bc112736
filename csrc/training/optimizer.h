// What an optimizer is: the options that torch.optim names, and the update of one parameter.
//
// A new one is a file beside sgd.h, and its line in optimizers.h.
#pragma once

#include "../matmul.h"
#include "../types.h"

namespace twolayer {

// Of one parameter; each optimizer reads those that its formula has.
struct OptimizerOptions {
  double lr = 0, weight_decay = 0;
  double momentum = 0, dampening = 0;
  double beta1 = 0, beta2 = 0, eps = 0;
  double alpha = 0;
  bool nesterov = false, amsgrad = false, centered = false, maximize = false;
  bool wide = false;  // the quotient of float32 moments in double

  bool operator==(const OptimizerOptions& other) const;
};

constexpr int MAX_STATES = 3;

// The numbers of one step that are the same for all elements of a parameter, computed in double.
struct StepFactors {
  double decay = 0;    // the gradient gets this much of the parameter,
  double keep = 1;     // and the parameter keeps this share of itself
  double f[8] = {};    // the formula's own
  bool flags[2] = {};  // whether the gradient's sign is turned, and the formula's own
};

template <class T>
struct Update;

// Moves rows x cols elements of a parameter and its states: `at` is the first one's offset in each
// of them, `stride` the elements between their rows.
template <class T>
using UpdateFn = void (*)(const Update<T>& update, Index at, Index stride, Index rows, Index cols,
                          const Sum<T>* grad, Index grad_stride);

// One parameter in one step: what takes the sums of its gradient.
template <class T>
struct Update : SumsTaker<T> {
  UpdateFn<T> apply = nullptr;
  T* parameter = nullptr;
  T* states[MAX_STATES] = {};
  StepFactors factors;
  double penalty = 0;         // coefficient of parameter^2 / 2 in the loss
  double* squares = nullptr;  // += sum of the parameter's squares before the update, if wanted
};

// One optimizer in one instruction set.
template <class T>
struct OptimizerKernel {
  const char* name;
  int states;  // of which the options may leave some unused
  StepFactors (*factors)(const OptimizerOptions&, Index step);
  UpdateFn<T> update;
};

}  // namespace twolayer
