// Arguments of the Python names, checked and seen as the kernels' types.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "exchange.h"
#include "types.h"

namespace twolayer {

// Calls fn with a value of the storage type.
template <class Fn>
void with_type(DType dtype, Fn fn) {
  switch (dtype) {
    case DType::float32:
      return fn(float{});
    case DType::float64:
      return fn(double{});
    case DType::bfloat16:
      return fn(bfloat16{});
    case DType::float16:
      return fn(float16{});
  }
}

// The same with the GIL released.
template <class Fn>
void for_dtype(DType dtype, Fn fn) {
  pybind11::gil_scoped_release release;
  with_type(dtype, fn);
}

inline void require(bool fits, const char* what) {
  if (!fits) throw std::invalid_argument(std::string("arguments do not fit together: ") + what);
}

// `view` is rows x cols of this dtype, or not there.
inline void require_matrix(const View& view, DType dtype, Index rows, Index cols,
                           const char* name) {
  require(!view || (view.dims == 2 && view.dtype == dtype && view.shape[0] == rows &&
                    view.shape[1] == cols),
          name);
}

inline void require_vector(const View& view, DType dtype, Index size, const char* name) {
  require(!view || (view.dims == 1 && view.dtype == dtype && view.shape[0] == size), name);
}

template <class T>
Matrix<T> matrix(const View& view) {
  return {static_cast<T*>(view.data), view.strides[0], view.strides[1]};
}

template <class T>
Vector<T> vector(const View& view) {
  return {static_cast<T*>(view.data), view.strides[0]};
}

}  // namespace twolayer
