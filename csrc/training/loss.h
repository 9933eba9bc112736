// What a loss is: the contract between the training loop and the pieces beside this file.
//
// A new one is a file beside squared_error.h, and its line in losses.h.
#pragma once

#include "../types.h"

namespace twolayer {

// An integer as wide as the sums, so that vectors of both have the same lanes.
template <class S>
struct ClassOf {
  using type = std::int32_t;
};
template <>
struct ClassOf<double> {
  using type = std::int64_t;
};
template <class T>
using Class = typename ClassOf<Sum<T>>::type;

template <class T>
struct LossOptions {
  bool mean = false;
  double label_smoothing = 0;
  const Sum<T>* class_weight = nullptr;  // outputs
  const Sum<T>* pos_weight = nullptr;    // outputs
};

// Some samples of a batch. The outputs, their targets and gradients lie in one order: outputs x
// batch where `outputs_first`, else batch x outputs, with rows `stride` elements apart.
template <class T>
struct LossTask {
  using S = Sum<T>;
  Range samples;
  Index outputs = 0;
  bool outputs_first = false;
  Index stride = 0;
  S* const* parts = nullptr;  // what the outputs are the sum of
  Index part_count = 0;
  S* scratch = nullptr;           // as the outputs; of a softmax alone
  const S* bias = nullptr;        // outputs: added to them
  const S* target = nullptr;      // as the outputs, or
  const Class<T>* cls = nullptr;  // batch: the class of each sample, below 0 where it is ignored
  const S* weight = nullptr;      // batch: of each sample; null: 1
  double loss_scale = 1, grad_scale = 1;
  T* grad = nullptr;            // by the outputs
  double* bias_grad = nullptr;  // outputs: += its sums over the samples; null: not wanted
  LossOptions<T> options;
};

// By what the sums over samples and outputs are multiplied.
struct LossScales {
  double loss = 1, grad = 1;
};

enum class Target { values, classes };

// One loss in one instruction set. `run` returns its sum over the samples, scaled.
template <class T>
struct LossKernel {
  const char* name;
  Target target;
  LossScales (*scales)(bool mean, double weights, Index outputs);
  double (*run)(const LossTask<T>&);
};

}  // namespace twolayer
