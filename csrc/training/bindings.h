// The Python name of the training loop.
#pragma once

#include <pybind11/pybind11.h>

namespace twolayer {

void bind_training(pybind11::module_& m);

}  // namespace twolayer
