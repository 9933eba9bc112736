// The network's forward and backward, composed from the blocked matrix product.
#include "two_layer.h"

#include <algorithm>
#include <vector>

#include "huge_pages.h"
#include "kernels.h"
#include "matmul.h"
#include "parts.h"
#include "scratch.h"
#include "threads.h"

namespace twolayer {

namespace {

// The hidden layer of this many bytes is held at a time where it is not kept; the batch is cut
// into chunks accordingly, but not below the rows that make each product worth its packing.
constexpr Index HIDDEN_BYTES = 8 << 20;
constexpr Index MIN_CHUNK = 512;
// Elements that one thread passes over in about the time that waking a second one takes.
constexpr Index PASS_PER_THREAD = 20000;

Index chunk_rows(Index batch, Index features, Index element_size) {
  const Index fitting = HIDDEN_BYTES / std::max<Index>(1, features * element_size);
  const Index rows = std::max(MIN_CHUNK, fitting);
  const Index chunks = std::max<Index>(1, ceil_div(batch, rows));
  return std::max<Index>(1, ceil_div(batch, chunks));
}

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

ScratchBuffer& hidden_buffer(int which) {
  static thread_local ScratchBuffer buffers[2];
  return buffers[which];
}

// Sums in double, each with a buffer of its own: of the hidden layer's bias, of another one, and of
// the parts of a pass. Small networks are called often: nothing is allocated then.
enum class SumsOf { hidden, other, parts };
constexpr Index SUMS_BYTES = 1 << 20;

ScratchBuffer& sums_buffer(SumsOf which) {
  static thread_local ScratchBuffer buffers[3];
  return buffers[int(which)];
}

double* zeroed_sums(SumsOf which, Index count) {
  auto* sums = static_cast<double*>(sums_buffer(which).at_least(count * Index(sizeof(double))));
  std::fill_n(sums, count, 0.0);
  return sums;
}

// Memory for `rows` x `cols` until the calling thread asks again.
template <class T>
Matrix<T> hidden_scratch(int which, Index rows, Index cols, bool columns_first) {
  T* data = static_cast<T*>(hidden_buffer(which).at_least(rows * cols * Index(sizeof(T))));
  return columns_first ? Matrix<T>{data, 1, rows} : Matrix<T>{data, cols, 1};
}

// At the end of a call, keeps what the next one is likely to need and gives back the rest.
struct TrimScratch {
  ~TrimScratch() {
    for (int which : {0, 1}) hidden_buffer(which).keep_at_most(2 * HIDDEN_BYTES);
    for (SumsOf which : {SumsOf::hidden, SumsOf::other, SumsOf::parts}) {
      sums_buffer(which).keep_at_most(SUMS_BYTES);
    }
  }
};

// Calls fn(range, part) for parts of [0, rows) on several threads.
template <class Fn>
void parallel_rows(Index rows, Index count, Fn fn) {
  on_threads(count, [&](Index i) { fn(part(rows, count, i), i); });
}

Index threads_for_pass(Index rows, Index cols, int threads) {
  const Index useful = std::min(rows, rows * cols / PASS_PER_THREAD);
  return std::max<Index>(1, std::min<Index>(threads, useful));
}

// Runs body() with the threads gathered once, where its products are worth several.
template <class Fn>
void gathered(const Shape& shape, Index threads, Fn body) {
  const Index around = shape.in_features + shape.out_features;
  in_one_region(useful_threads(shape.batch, shape.hidden_features, around, threads), body);
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

// relu(x w^T + b) or x w^T + b.
template <class T>
void linear(Index batch, Index in_features, Index out_features, Matrix<const T> x,
            Matrix<const T> w, Vector<const T> b, bool relu, Matrix<T> out, int threads,
            bool streams = false) {
  Matmul<T> p;
  p.M = batch, p.N = out_features, p.K = in_features;
  p.a = x, p.b = w.transposed(), p.c = out;
  p.col_bias = b;
  p.relu = relu;
  p.is_last = !relu;  // the second product reads the hidden layer
  p.streams = streams;
  matmul(p, threads);
}

// A weight gradient grad^T x that is added up over chunks of the batch.
template <class T>
class WeightGradient {
 public:
  // rows x cols: the weight's shape. `chunked`: more than one call to add() will come.
  WeightGradient(T* grad, Index rows, Index cols, bool chunked) {
    p.M = rows, p.N = cols;
    p.c = result(grad, rows, cols);
    p.streams = !chunked && is_streamed(rows * cols * Index(sizeof(T)));
    if (grad != nullptr && chunked && sizeof(T) != sizeof(Sum<T>)) {
      sums.resize(rows * cols);
      p.partial = row_major(sums.data(), cols);
    }
  }

  explicit operator bool() const { return bool(p.c); }

  // `fresh`: as in Matmul, of grad^T x.
  void add(Index batch, Matrix<const T> grad, Matrix<const T> x, Side fresh, bool last,
           int threads) {
    p.fresh = fresh;
    p.K = batch;
    p.a = grad.transposed(), p.b = x;
    p.suspend = !last;
    matmul(p, threads);
    p.resume = true;
  }

 private:
  Matmul<T> p;
  std::vector<Sum<T>> sums;
};

}  // namespace

template <class T>
Index product_cost(Index M, Index N, Index K, Operands operands) {
  // In lanes of multiply-adds: packing an element of B, and adding up the lanes of a sum.
  constexpr Index PACK = 12, ADD_UP = 100;
  const KernelsOf<T>& kernel = kernels().of<T>();
  const bool few = kernel.are_few_rows(M, K) || (N == 1 && kernel.are_few_rows(1, K));
  const bool in_place = operands == Operands::b_in_rows && kernel.is_b_used_in_place(M, K);
  const Index tiles = ceil_div(N, kernel.lanes) * kernel.lanes * (M + (in_place ? 0 : PACK)) * K;
  return operands == Operands::along_k && few ? std::min(tiles, M * N * (K + ADD_UP)) : tiles;
}

template <class T>
bool features_first(const Shape& s, bool backward) {
  const Index batch = s.batch, in = s.in_features, hidden = s.hidden_features;
  const Index out = s.out_features;
  Index samples = product_cost<T>(batch, hidden, in, Operands::along_k) +
                  product_cost<T>(batch, out, hidden, Operands::along_k);
  Index features = product_cost<T>(hidden, batch, in, Operands::along_k) +
                   product_cost<T>(batch, out, hidden, Operands::others);
  if (backward) {
    samples += product_cost<T>(batch, hidden, out, Operands::b_in_rows);
    features += product_cost<T>(hidden, batch, out, Operands::others);
  }
  // Where both are close, rows of samples are better: the later products find their operands in the
  // order in which they read them (4% over the whole of 512 x 1024 x 4096 x 1024).
  return features * 11 < samples * 10;
}

template <class T>
void linear_relu_forward(const LinearReluForward<T>& f, int threads) {
  prefer_huge_pages(f.a.data, f.batch * f.out_features * Index(sizeof(T)));
  linear(f.batch, f.in_features, f.out_features, f.x, f.w, f.b, true, f.a, threads);
}

// How a forward's samples are dealt to threads that each compute all of it for their own.
struct Deal {
  Index threads = 1;  // 1: each product is better shared by itself
  Index unit = 1;     // samples that stay together
};

// What a thread wrote of the hidden layer it then reads itself: lines that another processor wrote
// cost 100 to 300 ns where the two have no cache in common. For that each thread packs all of the
// weights, which pays where they are few beside the samples, and where none waits for another.
template <class T>
Deal deal_samples(const Shape& shape, Index rows, bool samples_along, Index threads) {
  constexpr Index MOST_WEIGHTS_PER_SAMPLE = 16;  // of either layer, for each hidden feature
  const Index around = shape.in_features + shape.out_features;
  if (around > MOST_WEIGHTS_PER_SAMPLE * rows) return {};
  const Index lanes = kernels().of<T>().lanes;
  Deal deal;
  deal.threads = useful_threads(rows, shape.hidden_features, around, threads);
  deal.threads = std::min(deal.threads, rows / std::max<Index>(8, 2 * lanes));
  if (samples_along) deal.unit = lanes;
  const Index units = ceil_div(rows, deal.unit);
  const Index largest = ceil_div(units, std::max<Index>(1, deal.threads));
  return largest * deal.threads * 5 <= units * 6 ? deal : Deal{};
}

template <class T>
void two_layer_forward(const TwoLayerForward<T>& f, int threads) {
  const Index in = f.shape.in_features, hidden = f.shape.hidden_features;
  const Index out = f.shape.out_features;
  const Index chunk = f.a ? f.shape.batch : chunk_rows(f.shape.batch, hidden, sizeof(T));
  const bool streams = is_streamed(f.shape.batch * out * Index(sizeof(T)));
  const Matrix<T> y = result(f.y, f.shape.batch, out);
  prefer_huge_pages(f.a.data, f.shape.batch * hidden * Index(sizeof(T)));
  const TrimScratch trim;
  const auto compute = [&](Index first, Index rows, bool samples_along, Index count) {
    const Matrix<T> a =
        f.a ? f.a.from_row(first) : hidden_scratch<T>(0, rows, hidden, samples_along);
    linear(rows, in, hidden, f.x.from_row(first), f.w1, f.b1, true, a, int(count));
    linear<T>(rows, hidden, out, a, f.w2, f.b2, false, y.from_row(first), int(count), streams);
  };
  gathered(f.shape, threads, [&] {
    for (Index row = 0; row < f.shape.batch; row += chunk) {
      const Index rows = std::min(chunk, f.shape.batch - row);
      const bool samples_along =
          f.a ? f.a.col_stride != 1 : features_first<T>({rows, in, hidden, out}, false);
      const Deal deal = deal_samples<T>(f.shape, rows, samples_along, threads);
      // Threads that write into one line of a kept activation would take it from each other.
      const bool apart = !f.a || !samples_along || f.a.col_stride * Index(sizeof(T)) % 64 == 0;
      if (deal.threads <= 1 || !apart) {
        compute(row, rows, samples_along, threads);
        continue;
      }
      on_threads(deal.threads, [&](Index i) {
        const TrimScratch of_this_thread;
        const Range own = vector_part(rows, deal.unit, deal.threads, i);
        compute(row + own.begin, own.size(), samples_along, 1);
      });
    }
  });
}

template <class T>
void linear_relu_backward(const LinearReluBackward<T>& f, int threads) {
  const TrimScratch trim;
  const Index in = f.in_features, out = f.out_features;
  const Index chunk = chunk_rows(f.batch, out, sizeof(T));
  WeightGradient<T> grad_w(f.grad_w, out, in, chunk < f.batch);
  const Matrix<T> grad_x = result(f.grad_x, f.batch, in);
  double* const grad_b = f.grad_b ? zeroed_sums(SumsOf::hidden, out) : nullptr;
  Index row = 0;
  do {  // once for an empty batch too: its gradients are zeros
    const Index rows = std::min(chunk, f.batch - row);
    const Matrix<T> dh = hidden_scratch<T>(1, rows, out, false);
    mask_gradient<T>(rows, out, f.grad_a.from_row(row), f.a.from_row(row), dh, grad_b, threads);
    if (grad_w) grad_w.add(rows, dh, f.x.from_row(row), Side::rows, row + rows >= f.batch, threads);
    if (grad_x) {
      Matmul<T> p;
      p.M = rows, p.N = in, p.K = out;
      p.fresh = Side::rows;
      p.a = dh, p.b = f.w, p.c = grad_x.from_row(row);
      p.streams = is_streamed(f.batch * in * Index(sizeof(T)));
      matmul(p, threads);
    }
    row += rows;
  } while (row < f.batch);
  if (f.grad_b) kernels().of<T>().round_sums(out, grad_b, f.grad_b);
}

template <class T>
void two_layer_backward(const TwoLayerBackward<T>& f, int threads) {
  const TrimScratch trim;
  gathered(f.shape, threads, [&] {
    const Index batch = f.shape.batch, in = f.shape.in_features;
    const Index hidden = f.shape.hidden_features, out = f.shape.out_features;
    const bool first_layer = f.grad_x || f.grad_w1 || f.grad_b1;
    if (f.grad_b2) bias_gradient(batch, out, f.grad_y, f.grad_b2, threads);
    if (!first_layer && !f.grad_w2) return;

    const bool recompute = !f.a;
    const Index chunk =
        first_layer || recompute ? chunk_rows(batch, hidden, sizeof(T)) : std::max<Index>(batch, 1);
    WeightGradient<T> grad_w1(f.grad_w1, hidden, in, chunk < batch);
    WeightGradient<T> grad_w2(f.grad_w2, out, hidden, chunk < batch);
    const Matrix<T> grad_x = result(f.grad_x, batch, in);
    double* const grad_b1 = f.grad_b1 ? zeroed_sums(SumsOf::hidden, hidden) : nullptr;
    Index row = 0;
    do {  // once for an empty batch too: its gradients are zeros
      const Index rows = std::min(chunk, batch - row);
      const bool last = row + rows >= batch;
      const Matrix<const T> grad_y = f.grad_y.from_row(row);
      Matrix<const T> a = f.a.from_row(row);
      if (recompute) {
        const Matrix<T> again =
            hidden_scratch<T>(0, rows, hidden, features_first<T>({rows, in, hidden, out}, true));
        linear(rows, in, hidden, f.x.from_row(row), f.w1, f.b1, true, again, threads);
        a = again;
      }
      if (grad_w2) grad_w2.add(rows, grad_y, a, Side::columns, last, threads);
      if (first_layer) {
        const Matrix<T> dh = hidden_scratch<T>(1, rows, hidden, a.col_stride != 1);
        Matmul<T> p;
        p.M = rows, p.N = hidden, p.K = out;
        p.a = grad_y, p.b = f.w2, p.c = dh;
        p.mask = a;
        p.col_sum = grad_b1;
        matmul(p, threads);
        if (grad_w1) grad_w1.add(rows, dh, f.x.from_row(row), Side::rows, last, threads);
        if (grad_x) {
          Matmul<T> q;
          q.M = rows, q.N = in, q.K = hidden;
          q.fresh = Side::rows;
          q.a = dh, q.b = f.w1, q.c = grad_x.from_row(row);
          q.streams = is_streamed(batch * in * Index(sizeof(T)));
          matmul(q, threads);
        }
      }
      row += rows;
    } while (row < batch);
    if (f.grad_b1) kernels().of<T>().round_sums(hidden, grad_b1, f.grad_b1);
  });
}

#define INSTANTIATE(T)                                                   \
  template Index product_cost<T>(Index, Index, Index, Operands);         \
  template bool features_first<T>(const Shape&, bool);                   \
  template void linear_relu_forward(const LinearReluForward<T>&, int);   \
  template void linear_relu_backward(const LinearReluBackward<T>&, int); \
  template void two_layer_forward(const TwoLayerForward<T>&, int);       \
  template void two_layer_backward(const TwoLayerBackward<T>&, int);

INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(bfloat16)
INSTANTIATE(float16)

}  // namespace twolayer
