// Whether anything wants to see a call: asked before each one, so on bare C calls of Python, a tenth
// of what the same questions cost in Python. The rule in words is twolayer_kernels/transparency.py.
#pragma once

#include <pybind11/pybind11.h>

namespace twolayer {

// Adds `watch`, `unseen` and `plain_parameters` to the module.
void add_watching(pybind11::module_& m);

}  // namespace twolayer
