// Tensors of torch and arrays of NumPy, seen from C++ without the headers of either.
#pragma once

#include <pybind11/pybind11.h>

#include "types.h"

namespace twolayer {

enum class DType { float32, float64, bfloat16, float16 };

// What the kernels need to know of a tensor or array of at most two dimensions. It owns nothing:
// the object it was made from must outlive it.
struct View {
  void* data = nullptr;
  DType dtype = DType::float32;
  int dims = 0;
  Index shape[2] = {0, 0};
  Index strides[2] = {0, 0};  // in elements

  explicit operator bool() const { return dims != 0; }
};

// Tells how to read torch tensors: the capsule that torch.Tensor carries by the DLPack standard as
// `__dlpack_c_exchange_api__`. Throws ImportError where its version is not one we know.
void use_exchange_api(pybind11::capsule capsule);

// The view of a torch tensor on the CPU or of a NumPy array; no view for None. Throws ValueError or
// TypeError for what the kernels cannot read, which the public functions have refused before.
View view_of(pybind11::handle object);

}  // namespace twolayer
