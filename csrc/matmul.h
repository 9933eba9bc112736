// The contract of the blocked matrix product: C = epilogue(A B), and how it is shared by threads.
#pragma once

#include "types.h"

namespace twolayer {

// Takes finished sums in the place of the epilogue and the store, while they are in the cache:
// `take` gets a block of rows x cols of them, `stride` apart, and where in C they belong.
template <class T>
struct SumsTaker {
  void (*take)(const SumsTaker& self, T* c, Index c_stride, Index rows, Index cols,
               const Sum<T>* sums, Index stride);
};

// A side of a product.
enum class Side { none, rows, columns };
inline Side across(Side side) {
  if (side == Side::none) return side;
  return side == Side::rows ? Side::columns : Side::rows;
}

// M, N, K: rows of C, columns of C, length of the sums.
// One of C's strides must be 1; `mask` must have its unit stride on the same side.
template <class T>
struct Matmul {
  Index M = 0, N = 0, K = 0;
  Matrix<const T> a;  // M x K
  Matrix<const T> b;  // K x N
  Matrix<T> c;        // M x N

  // Epilogue, in this order, on the finished sums.
  Vector<const T> row_bias;   // added to every element of row m
  Vector<const T> col_bias;   // added to every element of column n
  bool relu = false;          // NaN stays NaN
  Matrix<const T> mask;       // M x N: zero where mask <= 0, so a NaN in the mask lets pass
  double* row_sum = nullptr;  // M: += sum over the row of what is stored
  double* col_sum = nullptr;  // N: += sum over the column of what is stored

  // A sum over K may be spread over several calls: `resume` starts from what the last call left
  // behind, `suspend` leaves sums behind and runs no epilogue. They are kept in C where C's type
  // can hold them, else in `partial` (M x N, oriented as C).
  bool resume = false;
  bool suspend = false;
  Matrix<Sum<T>> partial;

  // Where given, the sums go there and no epilogue runs; C is only what it makes of them.
  const SumsTaker<T>* taker = nullptr;

  // Rows of the product that this one is some rows of, if it is: how sums are ordered goes by
  // these.
  Index rows_in_all = 0;

  // Whether no product reads C next. Where sums have few terms, that one would wait longer for what
  // other threads have written than they have saved.
  bool is_last = false;

  // Where threads have written an operand, a moment ago or not long ago, what each should read as
  // little of as it can: the rows of A, or the columns of B.
  Side fresh = Side::none;

  // Whether C may go past the caches: it is large, and nothing reads it soon.
  bool streams = false;

  // B as a kernel's pack_operand() left it, in the place of `b`. C must have a unit column stride.
  const void* packed_b = nullptr;
};

// An operand to be packed once for several products: B, K x N, its rows or columns picked out by
// these numbers where they are given.
template <class T>
struct Operand {
  Matrix<const T> values;
  const std::int64_t* rows = nullptr;
  const std::int64_t* cols = nullptr;

  const T* at(Index k, Index n) const {
    return values.data + (rows ? rows[k] : k) * values.row_stride +
           (cols ? cols[n] : n) * values.col_stride;
  }
  Operand from(Index k, Index n) const {
    Operand rest = *this;
    if (rows) {
      rest.rows += k;
    } else {
      rest.values.data += k * values.row_stride;
    }
    if (cols) {
      rest.cols += n;
    } else {
      rest.values.data += n * values.col_stride;
    }
    return rest;
  }
};

// The same product seen from the other side: C^T = B^T A^T.
template <class T>
Matmul<T> transposed(const Matmul<T>& p) {
  Matmul<T> t = p;
  t.M = p.N, t.N = p.M;
  t.a = p.b.transposed(), t.b = p.a.transposed(), t.c = p.c.transposed();
  t.row_bias = p.col_bias, t.col_bias = p.row_bias;
  t.mask = p.mask.transposed();
  t.row_sum = p.col_sum, t.col_sum = p.row_sum;
  t.partial = p.partial.transposed();
  t.fresh = across(p.fresh);
  t.rows_in_all = 0;  // of columns nothing depends
  return t;
}

// Threads, of at most `threads`, that a product of this size is worth.
Index useful_threads(Index M, Index N, Index K, Index threads, bool is_last = false);

// Whether a result of so many bytes is better written past the caches: it would push out everything
// else, and be read from memory before it is written.
inline bool is_streamed(Index bytes) { return bytes >= Index(1) << 24; }

// Runs the product on at most `threads` threads. The result does not depend on the run, and in
// C not on the number of threads either; row_sum and col_sum depend on it in the last bits.
template <class T>
void matmul(const Matmul<T>& problem, int threads);

}  // namespace twolayer
