// The Python module twolayer_kernels._cpu: names, docstrings, and the sizes read off the arguments.
//
// Arguments are torch tensors on the CPU or NumPy arrays, of two dimensions (biases: one) and one
// dtype; None stands for what is not there or not wanted. The callers have checked their shapes;
// here a mismatch is a fault of ours and ends in an exception, never in a stray write.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arguments.h"
#include "exchange.h"
#include "kernels.h"
#include "matmul.h"
#include "peak.h"
#include "pool.h"
#include "processors.h"
#include "threads.h"
#include "training/bindings.h"
#include "two_layer.h"
#include "watching.h"

namespace py = pybind11;
using namespace py::literals;
using namespace twolayer;

namespace {

// The elements of a result without strides: adjacent, row after row.
template <class T>
T* adjacent(const View& view) {
  const Index cols = view.dims == 2 ? view.shape[1] : view.shape[0];
  const Index rows = view.dims == 2 ? view.shape[0] : 1;
  const bool fits =
      (cols <= 1 || view.strides[view.dims - 1] == 1) && (rows <= 1 || view.strides[0] == cols);
  require(rows * cols == 0 || fits, "a result must be contiguous");
  return static_cast<T*>(view.data);
}

void linear_relu_forward_(int threads, py::handle x_, py::handle w_, py::handle b_, py::handle a_) {
  const View x = view_of(x_), w = view_of(w_), b = view_of(b_), a = view_of(a_);
  const Index batch = x.shape[0], in = x.shape[1], out = w.shape[0];
  require_matrix(w, x.dtype, out, in, "w");
  require_vector(b, x.dtype, out, "b");
  require_matrix(a, x.dtype, batch, out, "a");
  require_adjacent(a, "a");
  for_dtype(x.dtype, x_, [&](auto type) {
    using T = decltype(type);
    linear_relu_forward<T>(
        {batch, in, out, matrix<const T>(x), matrix<const T>(w), vector<const T>(b), matrix<T>(a)},
        threads);
  });
}

void linear_relu_backward_(int threads, py::handle grad_a_, py::handle x_, py::handle w_,
                           py::handle a_, py::handle grad_x_, py::handle grad_w_,
                           py::handle grad_b_) {
  const View grad_a = view_of(grad_a_), x = view_of(x_), w = view_of(w_), a = view_of(a_);
  const View grad_x = view_of(grad_x_), grad_w = view_of(grad_w_), grad_b = view_of(grad_b_);
  const DType dtype = grad_a.dtype;
  const Index batch = grad_a.shape[0], in = w.shape[1], out = w.shape[0];
  require_matrix(grad_a, dtype, batch, out, "grad_a");
  require_matrix(x, dtype, batch, in, "x");
  require_matrix(w, dtype, out, in, "w");
  require_matrix(a, dtype, batch, out, "a");
  require_matrix(grad_x, dtype, batch, in, "grad_x");
  require_matrix(grad_w, dtype, out, in, "grad_w");
  require_vector(grad_b, dtype, out, "grad_b");
  for_dtype(dtype, grad_a_, [&](auto type) {
    using T = decltype(type);
    linear_relu_backward<T>(
        {batch, in, out, matrix<const T>(grad_a), matrix<const T>(x), matrix<const T>(w),
         matrix<const T>(a), adjacent<T>(grad_x), adjacent<T>(grad_w), adjacent<T>(grad_b)},
        threads);
  });
}

void two_layer_forward_(int threads, py::handle x_, py::handle w1_, py::handle w2_, py::handle b1_,
                        py::handle b2_, py::handle a_, py::handle y_) {
  const View x = view_of(x_), w1 = view_of(w1_), w2 = view_of(w2_), b1 = view_of(b1_);
  const View b2 = view_of(b2_), a = view_of(a_), y = view_of(y_);
  const Shape shape = {x.shape[0], x.shape[1], w1.shape[0], w2.shape[0]};
  require_matrix(w1, x.dtype, shape.hidden_features, shape.in_features, "w1");
  require_matrix(w2, x.dtype, shape.out_features, shape.hidden_features, "w2");
  require_vector(b1, x.dtype, shape.hidden_features, "b1");
  require_vector(b2, x.dtype, shape.out_features, "b2");
  require_matrix(a, x.dtype, shape.batch, shape.hidden_features, "a");
  require_matrix(y, x.dtype, shape.batch, shape.out_features, "y");
  require_adjacent(a, "a");
  for_dtype(x.dtype, x_, [&](auto type) {
    using T = decltype(type);
    two_layer_forward<T>({shape, matrix<const T>(x), matrix<const T>(w1), matrix<const T>(w2),
                          vector<const T>(b1), vector<const T>(b2), matrix<T>(a), adjacent<T>(y)},
                         threads);
  });
}

void two_layer_backward_(int threads, py::handle grad_y_, py::handle x_, py::handle w1_,
                         py::handle w2_, py::handle b1_, py::handle a_, py::handle grad_x_,
                         py::handle grad_w1_, py::handle grad_w2_, py::handle grad_b1_,
                         py::handle grad_b2_) {
  const View grad_y = view_of(grad_y_), x = view_of(x_), w1 = view_of(w1_), w2 = view_of(w2_);
  const View b1 = view_of(b1_), a = view_of(a_), grad_x = view_of(grad_x_);
  const View grad_w1 = view_of(grad_w1_), grad_w2 = view_of(grad_w2_);
  const View grad_b1 = view_of(grad_b1_), grad_b2 = view_of(grad_b2_);
  const DType dtype = grad_y.dtype;
  const Shape shape = {grad_y.shape[0], w1.shape[1], w1.shape[0], w2.shape[0]};
  require(x || !(grad_w1 || (!a && (grad_x || grad_w2 || grad_b1))), "x is needed");
  require_matrix(grad_y, dtype, shape.batch, shape.out_features, "grad_y");
  require_matrix(x, dtype, shape.batch, shape.in_features, "x");
  require_matrix(w1, dtype, shape.hidden_features, shape.in_features, "w1");
  require_matrix(w2, dtype, shape.out_features, shape.hidden_features, "w2");
  require_vector(b1, dtype, shape.hidden_features, "b1");
  require_matrix(a, dtype, shape.batch, shape.hidden_features, "a");
  require_matrix(grad_x, dtype, shape.batch, shape.in_features, "grad_x");
  require_matrix(grad_w1, dtype, shape.hidden_features, shape.in_features, "grad_w1");
  require_matrix(grad_w2, dtype, shape.out_features, shape.hidden_features, "grad_w2");
  require_vector(grad_b1, dtype, shape.hidden_features, "grad_b1");
  require_vector(grad_b2, dtype, shape.out_features, "grad_b2");
  require_adjacent(a, "a");
  for_dtype(dtype, grad_y_, [&](auto type) {
    using T = decltype(type);
    two_layer_backward<T>(
        {shape, matrix<const T>(grad_y), matrix<const T>(x), matrix<const T>(w1),
         matrix<const T>(w2), vector<const T>(b1), matrix<const T>(a), adjacent<T>(grad_x),
         adjacent<T>(grad_w1), adjacent<T>(grad_w2), adjacent<T>(grad_b1), adjacent<T>(grad_b2)},
        threads);
  });
}

double* sums(const View& view, Index size, const char* name) {
  require_vector(view, DType::float64, size, name);
  require(!view || size <= 1 || view.strides[0] == 1, name);
  return static_cast<double*>(view.data);
}

void matmul_(int threads, py::handle a_, py::handle b_, py::handle c_, py::handle row_bias_,
             py::handle col_bias_, bool relu, py::handle mask_, py::handle row_sum_,
             py::handle col_sum_) {
  const View a = view_of(a_), b = view_of(b_), c = view_of(c_), mask = view_of(mask_);
  const View row_bias = view_of(row_bias_), col_bias = view_of(col_bias_);
  const View row_sum = view_of(row_sum_), col_sum = view_of(col_sum_);
  const Index M = a.shape[0], N = b.shape[1], K = a.shape[1];
  require_matrix(b, a.dtype, K, N, "b");
  require_matrix(c, a.dtype, M, N, "c");
  require_matrix(mask, a.dtype, M, N, "mask");
  require_vector(row_bias, a.dtype, M, "row_bias");
  require_vector(col_bias, a.dtype, N, "col_bias");
  require_adjacent(c, "c");
  require_adjacent(mask, "mask");
  for_dtype(a.dtype, a_, [&](auto type) {
    using T = decltype(type);
    Matmul<T> p;
    p.M = M, p.N = N, p.K = K;
    p.a = matrix<const T>(a), p.b = matrix<const T>(b), p.c = matrix<T>(c);
    p.row_bias = vector<const T>(row_bias), p.col_bias = vector<const T>(col_bias);
    p.relu = relu;
    p.mask = matrix<const T>(mask);
    p.row_sum = sums(row_sum, M, "row_sum"), p.col_sum = sums(col_sum, N, "col_sum");
    matmul(p, threads);
  });
}

double fma_rate_(DType dtype, int threads, double seconds) {
  double rate = 0;
  for_dtype(dtype, py::none(),
            [&](auto type) { rate = fma_rate<decltype(type)>(threads, seconds); });
  return rate;
}

bool features_first_(DType dtype, Index batch, Index in_features, Index hidden_features,
                     Index out_features) {
  bool result = false;
  for_dtype(dtype, py::none(), [&](auto type) {
    using T = decltype(type);
    result = features_first<T>({batch, in_features, hidden_features, out_features}, true);
  });
  return result;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "Fused two-layer kernels on torch tensors of the CPU and on NumPy arrays.";
  kernels();  // an unknown TWOLAYER_ISA must fail here, not in the first call
  check_engine();

  py::enum_<DType>(m, "DType")
      .value("float32", DType::float32)
      .value("float64", DType::float64)
      .value("bfloat16", DType::bfloat16)
      .value("float16", DType::float16);

  m.def("use_exchange_api", &use_exchange_api, "capsule"_a,
        "Tells how to read torch tensors: torch.Tensor.__dlpack_c_exchange_api__.");
  m.def("linear_relu_forward", &linear_relu_forward_, "threads"_a, "x"_a, "w"_a, "b"_a, "a"_a,
        "Writes a = relu(x w^T + b).");
  m.def("linear_relu_backward", &linear_relu_backward_, "threads"_a, "grad_a"_a, "x"_a, "w"_a,
        "a"_a, "grad_x"_a, "grad_w"_a, "grad_b"_a,
        "Writes the gradients of linear_relu that are not None.");
  m.def("two_layer_forward", &two_layer_forward_, "threads"_a, "x"_a, "w1"_a, "w2"_a, "b1"_a,
        "b2"_a, "a"_a, "y"_a,
        "Writes y = relu(x w1^T + b1) w2^T + b2, and the activation where a is not None.");
  m.def("two_layer_backward", &two_layer_backward_, "threads"_a, "grad_y"_a, "x"_a, "w1"_a, "w2"_a,
        "b1"_a, "a"_a, "grad_x"_a, "grad_w1"_a, "grad_w2"_a, "grad_b1"_a, "grad_b2"_a,
        "Writes the gradients of two_layer that are not None; computes the activation again\n"
        "where a is None.");
  add_watching(m);
  m.def("features_first", &features_first_, "dtype"_a, "batch"_a, "in_features"_a,
        "hidden_features"_a, "out_features"_a,
        "Whether the activation is better kept with the samples adjacent in memory.");
  m.def("matmul", &matmul_, "threads"_a, "a"_a, "b"_a, "c"_a, py::kw_only(),
        "row_bias"_a = py::none(), "col_bias"_a = py::none(), "relu"_a = false,
        "mask"_a = py::none(), "row_sum"_a = py::none(), "col_sum"_a = py::none(),
        "Writes c = epilogue(a b), and adds its sums: for the benches and tests. The steps are "
        "those\n"
        "of csrc/matmul.h, in the order of the arguments.");
  m.def("fma_rate", &fma_rate_, "dtype"_a, "threads"_a, "seconds"_a,
        "Operations per second of multiply-adds that never leave the registers, for the benches.");
  m.def("default_threads", &default_threads,
        "Threads where none are asked for: what OpenMP was told by OMP_NUM_THREADS or since then,\n"
        "else one per processor of this process.");
  m.def("processors", &processors,
        "Processors that the affinity mask and the control groups leave to this process.");
  m.def("processor_quota", &processor_quota, "root"_a, "own"_a,
        "The control groups' limit in processors, their file systems being below `root`, for a\n"
        "process whose /proc/self/cgroup reads `own`.");
  m.def("times_woken", &times_woken, "How often a thread of the pool was woken from sleep.");
  m.def(
      "instruction_set", [] { return kernels().name; },
      "The instruction set in use; the environment variable TWOLAYER_ISA forces one.");
  m.def("instruction_sets", &instruction_sets,
        "The instruction sets that this machine can run, best first.");
  bind_training(m);
}
