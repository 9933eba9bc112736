// Whether anything wants to see a call. It is asked before each one, hence in C and past pybind11.
// The rule, and what is asked, are in twolayer_kernels/transparency.py.
#pragma once

#include <pybind11/pybind11.h>

namespace twolayer {

// Adds `watch`, `unseen` and `plain_parameters` to the module.
void add_watching(pybind11::module_& m);

}  // namespace twolayer
