// What is compiled once per instruction set, and the choice of one at run time.
#pragma once

#include <string>
#include <vector>

#include "matmul.h"
#include "training/loss.h"
#include "training/optimizer.h"
#include "types.h"

namespace twolayer {

// What packing an element of B costs the tile of vectors, in lanes of multiply-adds.
constexpr Index VECTOR_PACK_COST = 12;

template <class T>
struct KernelsOf {
  Index lanes;  // elements of one vector register of the type that T is summed in

  // What packing an element of B costs, and what copying one of A, in lanes of multiply-adds.
  Index pack_cost, copy_cost;

  // The block rows x cols of a product whose C has a unit column stride, on the calling thread.
  // row_sum and col_sum point to this thread's own sums, indexed as in the whole product.
  void (*matmul_block)(const Matmul<T>&, Range rows, Range cols, double* row_sum, double* col_sum);

  // Whether a product with so many rows, and such sums, is computed as dot products along K, with
  // nothing packed, where A and B are adjacent along it.
  bool (*are_few_rows)(Index M, Index K);

  // Whether it reads B where it is, with nothing packed, where that is adjacent along its rows.
  bool (*is_b_used_in_place)(Index M, Index K);

  // Bytes of an operand K x N packed whole, and the packing of it.
  Index (*packed_bytes)(Index K, Index N);
  void (*pack_operand)(Index K, Index N, const Operand<T>& b, void* to);

  // out = grad where !(a <= 0), else 0, and col_sum += its column sums (where not null).
  void (*masked_copy)(Index rows, Index cols, Matrix<const T> grad, Matrix<const T> a,
                      Matrix<T> out, double* col_sum);

  // col_sum += sums over the rows.
  void (*column_sums)(Index rows, Index cols, Matrix<const T> x, double* col_sum);

  // Runs `rounds` rounds of independent multiply-adds in registers; returns the operations done.
  double (*fma_rounds)(Index rounds);

  // out[i] = sums[i], rounded once.
  void (*round_sums)(Index size, const double* sums, T* out);

  // to = the rows of `from` with these numbers (null: the first ones), in the type of the sums.
  void (*gather)(const std::int64_t* numbers, Index rows, Index cols, Matrix<const T> from,
                 Matrix<Sum<T>> to);

  // What training is made of, by name.
  const OptimizerKernel<T>* optimizers;
  int optimizer_count;
  const LossKernel<T>* losses;
  int loss_count;
};

// An instruction set: each adds to those behind it in the list.
struct Kernels {
  const char* name;
  bool (*supported)();
  const KernelsOf<float>& f32;
  const KernelsOf<double>& f64;
  const KernelsOf<bfloat16>& bf16;
  const KernelsOf<float16>& f16;

  template <class T>
  const KernelsOf<T>& of() const;
};

template <>
inline const KernelsOf<float>& Kernels::of() const {
  return f32;
}
template <>
inline const KernelsOf<double>& Kernels::of() const {
  return f64;
}
template <>
inline const KernelsOf<bfloat16>& Kernels::of() const {
  return bf16;
}
template <>
inline const KernelsOf<float16>& Kernels::of() const {
  return f16;
}

// The set in use: the best that this machine runs, or the one that the environment variable
// TWOLAYER_ISA names. Throws std::runtime_error where that one is unknown or cannot run here.
const Kernels& kernels();

// Those this machine can run, best first.
std::vector<std::string> instruction_sets();

}  // namespace twolayer
