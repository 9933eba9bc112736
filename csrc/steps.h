// What forward and backward are composed of: the memory that they keep, and one layer.
#pragma once

#include <algorithm>

#include "huge_pages.h"
#include "matmul.h"
#include "two_layer.h"

namespace twolayer {

template <class T>
Matrix<T> row_major(T* data, Index cols) {
  return {data, cols, 1};
}

// Where a result is to be written, if it is wanted.
template <class T>
Matrix<T> result(T* data, Index rows, Index cols) {
  prefer_huge_pages(data, rows * cols * Index(sizeof(T)));
  return row_major(data, cols);
}

// How many samples are computed at a time, so that their hidden layer takes some megabytes; not
// fewer than make each product worth its packing.
Index piece_rows(Index batch, Index features, Index element_size);

// Memory of the calling thread until it asks again for the same: of an activation, and of its
// gradient.
enum class Hidden { activation, gradient };
void* hidden_memory(Hidden which, Index bytes);

// The same as a matrix.
template <class T>
Matrix<T> hidden_scratch(Hidden which, Index rows, Index cols, bool columns_first) {
  T* data = static_cast<T*>(hidden_memory(which, rows * cols * Index(sizeof(T))));
  return columns_first ? Matrix<T>{data, 1, rows} : Matrix<T>{data, cols, 1};
}

// How many bytes shares of sums may have, to be kept between calls.
constexpr Index MOST_SHARED_BYTES = 8 << 20;

// Sums, each with a buffer of its own: of the hidden layer's bias, of another one, of the parts of
// a pass, and of shares of the samples. Small networks are called often: nothing is allocated then.
enum class SumsOf { hidden, other, parts, shares };
void* sums_memory(SumsOf which, Index bytes);
// In double, all zero.
double* zeroed_sums(SumsOf which, Index count);

// At the end of a call, keeps what the next one is likely to need and gives back the rest: of what
// a thread that computes some of the samples uses, and of all for the caller's.
struct TrimHidden {
  ~TrimHidden();
};
struct TrimScratch : TrimHidden {
  ~TrimScratch();
};

// relu(x w^T + b) or x w^T + b; of `batch_in_all` samples, where these are some of them.
template <class T>
void linear(Index batch, Index in_features, Index out_features, Matrix<const T> x,
            Matrix<const T> w, Vector<const T> b, bool relu, Matrix<T> out, int threads,
            Index batch_in_all = 0, bool streams = false) {
  Matmul<T> p;
  p.M = batch, p.N = out_features, p.K = in_features;
  p.rows_in_all = batch_in_all;
  p.a = x, p.b = w.transposed(), p.c = out;
  p.col_bias = b;
  p.relu = relu;
  p.is_last = !relu;  // the second product reads the hidden layer
  p.streams = streams;
  matmul(p, threads);
}

// Threads, of at most `threads`, that a pass over these samples is worth.
inline Index threads_worth(const Shape& shape, Index threads) {
  const Index around = shape.in_features + shape.out_features;
  return useful_threads(shape.batch, shape.hidden_features, around, threads);
}

// Elements that one thread passes over in about the time that waking a second one takes.
constexpr Index PASS_PER_THREAD = 20000;

inline Index threads_for_pass(Index rows, Index cols, int threads) {
  const Index useful = std::min(rows, rows * cols / PASS_PER_THREAD);
  return std::max<Index>(1, std::min<Index>(threads, useful));
}

}  // namespace twolayer
