// Backward: sample by sample the same work, as a whole whose products the threads share, or in
// shares of the samples that are computed apart and added up in the end.
#include <vector>

#include "kernels.h"
#include "parts.h"
#include "shares.h"
#include "steps.h"
#include "threads.h"

namespace twolayer {

namespace {

// Calls fn(range, part) for parts of [0, rows) on several threads.
template <class Fn>
void parallel_rows(Index rows, Index count, Fn fn) {
  on_threads(count, [&](Index i) { fn(part(rows, count, i), i); });
}

// Adds the sums of each part, in the order of the parts.
void add_parts(const double* parts, Index count, Index cols, double* sums) {
  for (Index i = 0; i < count * cols; ++i) sums[i % cols] += parts[i];
}

// out = sum over the rows of x.
template <class T>
void bias_gradient(Index rows, Index cols, Matrix<const T> x, T* out, int threads) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index count = threads_for_pass(rows, cols, threads);
  double* const parts = zeroed_sums(SumsOf::parts, count * cols);
  double* const sums = zeroed_sums(SumsOf::other, cols);
  parallel_rows(rows, count, [&](Range r, Index part) {
    kernel.column_sums(r.size(), cols, x.from_row(r.begin), parts + part * cols);
  });
  add_parts(parts, count, cols, sums);
  kernel.round_sums(cols, sums, out);
}

// dh = grad where a > 0, with its column sums added to `sums` where wanted.
template <class T>
void mask_gradient(Index rows, Index cols, Matrix<const T> grad, Matrix<const T> a, Matrix<T> dh,
                   double* sums, int threads) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index count = threads_for_pass(rows, cols, threads);
  double* const parts = zeroed_sums(SumsOf::parts, sums ? count * cols : 0);
  parallel_rows(rows, count, [&](Range r, Index part) {
    kernel.masked_copy(r.size(), cols, grad.from_row(r.begin), a.from_row(r.begin),
                       dh.from_row(r.begin), sums ? parts + part * cols : nullptr);
  });
  if (sums) add_parts(parts, count, cols, sums);
}

// A weight gradient grad^T x that is added up over pieces of the batch.
template <class T>
class WeightGradient {
 public:
  // Of a weight of rows x cols; `in_pieces`: more than one call to add() will come.
  WeightGradient(T* grad, Index rows, Index cols, bool in_pieces) {
    p.M = rows, p.N = cols;
    p.c = result(grad, rows, cols);
    p.streams = !in_pieces && is_streamed(rows * cols * Index(sizeof(T)));
    if (grad != nullptr && in_pieces && sizeof(T) != sizeof(Sum<T>)) {
      sums.resize(rows * cols);
      p.partial = row_major(sums.data(), cols);
    }
  }

  WeightGradient(WeightGradient&&) = default;  // the product points into the sums

  // A share of it: the sums themselves are what is wanted.
  static WeightGradient share(T* grad, Index rows, Index cols, Sum<T>* sums) {
    WeightGradient of_share(nullptr, rows, cols, false);
    if (grad == nullptr) return of_share;
    of_share.is_share = true;
    if constexpr (sizeof(T) == sizeof(Sum<T>)) {
      of_share.p.c = row_major(sums, cols);
    } else {
      // Says that it is wanted: suspended sums leave it alone.
      of_share.p.c = row_major(grad, cols);
      of_share.p.partial = row_major(sums, cols);
    }
    return of_share;
  }

  explicit operator bool() const { return bool(p.c); }

  // `fresh`: as in Matmul, of grad^T x.
  void add(Index batch, Matrix<const T> grad, Matrix<const T> x, Side fresh, bool last,
           int threads) {
    p.fresh = fresh;
    p.K = batch;
    p.a = grad.transposed(), p.b = x;
    p.suspend = !last || (is_share && p.partial);
    matmul(p, threads);
    p.resume = true;
  }

 private:
  Matmul<T> p;
  std::vector<Sum<T>> sums;
  bool is_share = false;
};

// dx = dh w, some rows of the `batch`.
template <class T>
void input_gradient(Index rows, Index in_features, Index features, Matrix<const T> dh,
                    Matrix<const T> w, Index batch, Matrix<T> dx, int threads) {
  Matmul<T> p;
  p.M = rows, p.N = in_features, p.K = features;
  p.fresh = Side::rows;
  p.a = dh, p.b = w, p.c = dx;
  p.streams = is_streamed(batch * in_features * Index(sizeof(T)));
  matmul(p, threads);
}

// What the samples' gradients are written to and added up in; null where one is not wanted.
template <class T>
struct Gradients {
  Matrix<T> x;
  WeightGradient<T> w1, w2;
  double* b1;
};

// Some of the samples, `most` of them at a time. Once for none: gradients of an empty batch are
// zeros.
template <class T>
void pass_back(const LinearReluBackward<T>& f, Range samples, Index most, Gradients<T>& to,
               int threads) {
  const Index in = f.in_features, out = f.out_features;
  Index row = samples.begin;
  do {
    const Index rows = std::min(most, samples.end - row);
    const bool last = row + rows >= samples.end;
    const Matrix<T> dh = hidden_scratch<T>(Hidden::gradient, rows, out, false);
    mask_gradient<T>(rows, out, f.grad_a.from_row(row), f.a.from_row(row), dh, to.b1, threads);
    if (to.w1) to.w1.add(rows, dh, f.x.from_row(row), Side::rows, last, threads);
    if (to.x) input_gradient<T>(rows, in, out, dh, f.w, f.batch, to.x.from_row(row), threads);
    row += rows;
  } while (row < samples.end);
}

template <class T>
void pass_back(const TwoLayerBackward<T>& f, Range samples, Index most, Gradients<T>& to,
               int threads) {
  const Index in = f.shape.in_features, hidden = f.shape.hidden_features;
  const Index out = f.shape.out_features;
  Index row = samples.begin;
  do {
    const Index rows = std::min(most, samples.end - row);
    const bool last = row + rows >= samples.end;
    const Matrix<const T> grad_y = f.grad_y.from_row(row);
    Matrix<const T> a = f.a.from_row(row);
    if (!f.a) {
      const bool samples_along = features_first<T>({rows, in, hidden, out}, true);
      const Matrix<T> again = hidden_scratch<T>(Hidden::activation, rows, hidden, samples_along);
      linear(rows, in, hidden, f.x.from_row(row), f.w1, f.b1, true, again, threads);
      a = again;
    }
    if (to.w2) to.w2.add(rows, grad_y, a, Side::columns, last, threads);
    if (to.x || to.w1 || to.b1) {
      const Matrix<T> dh = hidden_scratch<T>(Hidden::gradient, rows, hidden, a.col_stride != 1);
      Matmul<T> p;
      p.M = rows, p.N = hidden, p.K = out;
      p.a = grad_y, p.b = f.w2, p.c = dh;
      p.mask = a;
      p.col_sum = to.b1;
      matmul(p, threads);
      if (to.w1) to.w1.add(rows, dh, f.x.from_row(row), Side::rows, last, threads);
      if (to.x) {
        input_gradient<T>(rows, in, hidden, dh, f.w1, f.shape.batch, to.x.from_row(row), threads);
      }
    }
    row += rows;
  } while (row < samples.end);
}

template <class T>
Results<T> results_of(const TwoLayerBackward<T>& f) {
  const Index in = f.shape.in_features, hidden = f.shape.hidden_features;
  const Index out = f.shape.out_features;
  return {f.grad_x, wanted(f.grad_w1, hidden * in), wanted(f.grad_w2, out * hidden),
          wanted(f.grad_b1, hidden), wanted(f.grad_b2, out)};
}

template <class T>
Results<T> results_of(const LinearReluBackward<T>& f) {
  return {f.grad_x,
          wanted(f.grad_w, f.out_features * f.in_features),
          {},
          wanted(f.grad_b, f.out_features),
          {}};
}

template <class T>
Shape shape_of(const TwoLayerBackward<T>& f) {
  return f.shape;
}

template <class T>
Shape shape_of(const LinearReluBackward<T>& f) {
  return {f.batch, f.in_features, f.out_features, 0};
}

template <class T>
void add_second_bias(const TwoLayerBackward<T>& f, Range samples, double* sums) {
  const Index out = f.shape.out_features;
  kernels().of<T>().column_sums(samples.size(), out, f.grad_y.from_row(samples.begin), sums);
}

template <class T>
void add_second_bias(const LinearReluBackward<T>&, Range, double*) {}

// All samples in shares. Threads take whole shares, or, where they are many more than these, share
// the products of one share after the other: no sum of a weight changes its order.
template <class T, template <class> class Backward>
void deal_back(const Backward<T>& f, Index count, int threads) {
  // A piece of the hidden layer that stays in a core's cache with what it is multiplied by.
  constexpr Index CACHED_BYTES = 256 << 10, LEAST_ROWS = 64;
  const Shape shape = shape_of(f);
  const Index in = shape.in_features, hidden = shape.hidden_features, out = shape.out_features;
  const Results<T> to = results_of(f);
  const Shares<T> shares(count, to);
  const Matrix<T> grad_x = result(to.x, shape.batch, in);
  const KernelsOf<T>& kernel = kernels().of<T>();
  const Index lanes = kernel.lanes;
  // The sums of a weight are read and written again for each piece: the less it costs to multiply
  // beside moving data, the more that is.
  const Index least_rows = LEAST_ROWS * kernel.pack_cost / VECTOR_PACK_COST;
  const auto compute = [&](Index share, int threads_of_share) {
    const Range own = vector_part(shape.batch, lanes, count, share);
    shares.clear_biases(share);
    if (to.b2.data) add_second_bias(f, own, shares.of_b2(share));
    const Index fitting = std::max(least_rows, CACHED_BYTES / (hidden * Index(sizeof(T))));
    const Index rows = ceil_div(own.size(), ceil_div(own.size(), fitting));
    Gradients<T> sums{grad_x, WeightGradient<T>::share(to.w1.data, hidden, in, shares.of_w1(share)),
                      WeightGradient<T>::share(to.w2.data, out, hidden, shares.of_w2(share)),
                      to.b1.data ? shares.of_b1(share) : nullptr};
    pass_back(f, own, rows, sums, threads_of_share);
  };
  const Index worth = threads_worth(shape, threads), useful = std::min(count, worth);
  in_one_region(worth, [&] {
    if (worth >= 2 * count) {
      for (Index share = 0; share < count; ++share) compute(share, int(worth));
    } else {
      on_threads(useful, [&](Index i) {
        const TrimHidden of_this_thread;
        const Range own = part(count, useful, i);
        for (Index share = own.begin; share < own.end; ++share) compute(share, 1);
      });
    }
    shares.add_up(int(worth));
  });
}

// All samples together, products shared by threads.
template <class T, template <class> class Backward>
void share_products(const Backward<T>& f, Index most, int threads) {
  const Shape shape = shape_of(f);
  const Index in = shape.in_features, hidden = shape.hidden_features, out = shape.out_features;
  const Results<T> to = results_of(f);
  const bool in_pieces = most < shape.batch;
  Gradients<T> gradients{result(to.x, shape.batch, in),
                         {to.w1.data, hidden, in, in_pieces},
                         {to.w2.data, out, hidden, in_pieces},
                         to.b1.data ? zeroed_sums(SumsOf::hidden, hidden) : nullptr};
  pass_back(f, {0, shape.batch}, most, gradients, threads);
  if (to.b1.data) kernels().of<T>().round_sums(hidden, gradients.b1, to.b1.data);
}

}  // namespace

template <class T>
void linear_relu_backward(const LinearReluBackward<T>& f, int threads) {
  const TrimScratch trim;
  const Index count = shares_of<T>(shape_of(f));
  if (count > 1) return deal_back(f, count, threads);
  share_products(f, piece_rows(f.batch, f.out_features, sizeof(T)), threads);
}

template <class T>
void two_layer_backward(const TwoLayerBackward<T>& f, int threads) {
  const TrimScratch trim;
  const Index batch = f.shape.batch, hidden = f.shape.hidden_features;
  const bool first_layer = f.grad_x || f.grad_w1 || f.grad_b1;
  const bool hidden_layer = first_layer || f.grad_w2;
  const Index count = hidden_layer ? shares_of<T>(f.shape) : 1;
  if (count > 1) return deal_back(f, count, threads);
  in_one_region(threads_worth(f.shape, threads), [&] {
    if (f.grad_b2) bias_gradient(batch, f.shape.out_features, f.grad_y, f.grad_b2, threads);
    if (!hidden_layer) return;
    const bool holds_hidden = first_layer || !f.a;
    const Index most =
        holds_hidden ? piece_rows(batch, hidden, sizeof(T)) : std::max<Index>(batch, 1);
    share_products(f, most, threads);
  });
}

#define INSTANTIATE(T)                                                   \
  template void linear_relu_backward(const LinearReluBackward<T>&, int); \
  template void two_layer_backward(const TwoLayerBackward<T>&, int);

INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(bfloat16)
INSTANTIATE(float16)

}  // namespace twolayer
