// The optimizers that there are.
//
// Included only by the kernels_*.cpp files, inside their namespace.

#include "update.h"

#include "sgd.h"

#include "adam.h"

#include "rmsprop.h"

template <class Rule, class T>
constexpr OptimizerKernel<T> optimizer_kernel() {
  return {Rule::name, Rule::STATES, &Rule::factors, &update_elements<Rule, T>};
}

template <class T>
constexpr OptimizerKernel<T> optimizers[] = {
    optimizer_kernel<Sgd, T>(),        optimizer_kernel<Adam, T>(),
    optimizer_kernel<AdamW, T>(),      optimizer_kernel<RmsProp, T>(),
    optimizer_kernel<SklearnSgd, T>(), optimizer_kernel<SklearnAdam, T>(),
};
