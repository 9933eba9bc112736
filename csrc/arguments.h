// Arguments of the Python names, checked and seen as the kernels' types.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <exception>
#include <stdexcept>
#include <string>

#include "exchange.h"
#include "threads.h"
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

// Calls fn with the GIL released. At the interpreter's exit, taking it again ends a daemon thread
// by unwinding its stack, which a destructor must not let through: so it is taken by a plain call.
template <class Fn>
void without_gil(Fn fn) {
  std::exception_ptr error;
  PyThreadState* const thread = PyEval_SaveThread();
  try {
    fn();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(thread);
  if (error) std::rethrow_exception(error);
}

// Calls fn with a value of the storage type, the GIL released, on threads that suit a caller whose
// arguments are such as `array`.
template <class Fn>
void for_dtype(DType dtype, pybind11::handle array, Fn fn) {
  const bool numpy = pybind11::isinstance<pybind11::array>(array);
  without_gil([&] {
    const CalledBeside neighbour(numpy ? Neighbour::none : Neighbour::torch);
    with_type(dtype, fn);
  });
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

// Adjacent along its rows or its columns, as the product writes and reads an activation.
inline void require_adjacent(const View& view, const char* name) {
  const bool fits = !view || view.shape[0] <= 1 || view.shape[1] <= 1 || view.strides[0] == 1 ||
                    view.strides[1] == 1;
  if (!fits) {
    throw std::invalid_argument(std::string(name) + " must be adjacent along its rows or columns");
  }
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
