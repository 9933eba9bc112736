// The losses that there are.
//
// Included only by the kernels_*.cpp files, inside their namespace.

#include "elementwise_loss.h"

#include "squared_error.h"

#include "binary_cross_entropy.h"

#include "cross_entropy.h"

template <class Rule, class T>
constexpr LossKernel<T> loss_kernel() {
  return {Rule::name, Rule::target, &Rule::scales, &Rule::template run<T>};
}

template <class T>
constexpr LossKernel<T> losses[] = {
    loss_kernel<SquaredError, T>(),         loss_kernel<BinaryCrossEntropy, T>(),
    loss_kernel<CrossEntropy, T>(),         loss_kernel<SklearnSquaredError, T>(),
    loss_kernel<SklearnBinaryLogLoss, T>(), loss_kernel<SklearnLogLoss, T>(),
};
