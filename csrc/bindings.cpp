// The Python module twolayer_kernels._cpu: names and docstrings, nothing else.
//
// Tensors come as an address and their strides in elements, so that no torch or NumPy header is
// needed and one build serves every version of both. The callers (backends/cpu.py and numpy.py)
// have checked shapes and dtypes.
#include <omp.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "kernels.h"
#include "two_layer.h"

namespace py = pybind11;
using namespace py::literals;
using twolayer::Index;
using twolayer::Matrix;
using twolayer::Vector;
using Address = std::uintptr_t;

namespace {

enum DType { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };

// Calls fn with a value of the storage type, the GIL released.
template <class Fn>
void for_dtype(int dtype, Fn fn) {
  py::gil_scoped_release release;
  switch (dtype) {
    case FLOAT32:
      return fn(float{});
    case FLOAT64:
      return fn(double{});
    case BFLOAT16:
      return fn(twolayer::bfloat16{});
    case FLOAT16:
      return fn(twolayer::float16{});
    default:
      throw std::invalid_argument("dtype must be a code of this module");
  }
}

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

template <class T>
Matrix<T> matrix(Address address, Index row_stride, Index col_stride) {
  return {pointer<T>(address), row_stride, col_stride};
}

template <class T>
Vector<T> vector(Address address, Index stride) {
  return {pointer<T>(address), stride};
}

void linear_relu_forward(int dtype, int threads, Index batch, Index in_features, Index out_features,
                         Address x, Index x_row, Index x_col, Address w, Index w_row, Index w_col,
                         Address b, Index b_stride, Address a, Index a_row, Index a_col) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    twolayer::linear_relu_forward<T>(
        {batch, in_features, out_features, matrix<const T>(x, x_row, x_col),
         matrix<const T>(w, w_row, w_col), vector<const T>(b, b_stride),
         matrix<T>(a, a_row, a_col)},
        threads);
  });
}

void linear_relu_backward(int dtype, int threads, Index batch, Index in_features,
                          Index out_features, Address grad_a, Index grad_a_row, Index grad_a_col,
                          Address x, Index x_row, Index x_col, Address w, Index w_row, Index w_col,
                          Address a, Index a_row, Index a_col, Address grad_x, Address grad_w,
                          Address grad_b) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    twolayer::linear_relu_backward<T>(
        {batch, in_features, out_features, matrix<const T>(grad_a, grad_a_row, grad_a_col),
         matrix<const T>(x, x_row, x_col), matrix<const T>(w, w_row, w_col),
         matrix<const T>(a, a_row, a_col), pointer<T>(grad_x), pointer<T>(grad_w),
         pointer<T>(grad_b)},
        threads);
  });
}

void two_layer_forward(int dtype, int threads, Index batch, Index in_features,
                       Index hidden_features, Index out_features, Address x, Index x_row,
                       Index x_col, Address w1, Index w1_row, Index w1_col, Address w2,
                       Index w2_row, Index w2_col, Address b1, Index b1_stride, Address b2,
                       Index b2_stride, Address a, Index a_row, Index a_col, Address y) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    twolayer::two_layer_forward<T>({{batch, in_features, hidden_features, out_features},
                                    matrix<const T>(x, x_row, x_col),
                                    matrix<const T>(w1, w1_row, w1_col),
                                    matrix<const T>(w2, w2_row, w2_col),
                                    vector<const T>(b1, b1_stride),
                                    vector<const T>(b2, b2_stride),
                                    matrix<T>(a, a_row, a_col),
                                    pointer<T>(y)},
                                   threads);
  });
}

void two_layer_backward(int dtype, int threads, Index batch, Index in_features,
                        Index hidden_features, Index out_features, Address grad_y, Index grad_y_row,
                        Index grad_y_col, Address x, Index x_row, Index x_col, Address w1,
                        Index w1_row, Index w1_col, Address w2, Index w2_row, Index w2_col,
                        Address b1, Index b1_stride, Address a, Index a_row, Index a_col,
                        Address grad_x, Address grad_w1, Address grad_w2, Address grad_b1,
                        Address grad_b2) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    twolayer::two_layer_backward<T>({{batch, in_features, hidden_features, out_features},
                                     matrix<const T>(grad_y, grad_y_row, grad_y_col),
                                     matrix<const T>(x, x_row, x_col),
                                     matrix<const T>(w1, w1_row, w1_col),
                                     matrix<const T>(w2, w2_row, w2_col),
                                     vector<const T>(b1, b1_stride),
                                     matrix<const T>(a, a_row, a_col),
                                     pointer<T>(grad_x),
                                     pointer<T>(grad_w1),
                                     pointer<T>(grad_w2),
                                     pointer<T>(grad_b1),
                                     pointer<T>(grad_b2)},
                                    threads);
  });
}

bool features_first(int dtype, Index batch, Index hidden_features) {
  bool result = false;
  for_dtype(dtype, [&](auto type) {
    result = twolayer::features_first<decltype(type)>(batch, hidden_features);
  });
  return result;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() =
      "Fused two-layer kernels on addresses. A tensor is an address (0: not there) and its\n"
      "strides in elements; results without strides are adjacent, row after row.";
  twolayer::kernels();  // an unknown TWOLAYER_ISA must fail here, not in the first call

  m.attr("FLOAT32") = int(FLOAT32);
  m.attr("FLOAT64") = int(FLOAT64);
  m.attr("BFLOAT16") = int(BFLOAT16);
  m.attr("FLOAT16") = int(FLOAT16);

  m.def("linear_relu_forward", &linear_relu_forward, "a = relu(x w^T + b)");
  m.def("linear_relu_backward", &linear_relu_backward,
        "Gradients of linear_relu; an address of 0 is a gradient that is not wanted.");
  m.def("two_layer_forward", &two_layer_forward,
        "y = relu(x w1^T + b1) w2^T + b2; keeps the activation where a is not 0.");
  m.def("two_layer_backward", &two_layer_backward,
        "Gradients of two_layer; computes the activation again where a is 0.");
  m.def("features_first", &features_first, "dtype"_a, "batch"_a, "hidden_features"_a,
        "Whether the activation is better kept with the samples adjacent in memory.");
  m.def("default_threads", &omp_get_max_threads,
        "The threads that OpenMP would use: OMP_NUM_THREADS, else one per processor.");
  m.def(
      "instruction_set", [] { return twolayer::kernels().name; },
      "The instruction set in use; the environment variable TWOLAYER_ISA forces one.");
  m.def("instruction_sets", &twolayer::instruction_sets,
        "The instruction sets that this machine can run, best first.");
}
