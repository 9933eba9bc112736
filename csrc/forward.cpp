// Forward: which layout its activation has, and who computes which samples.
#include "kernels.h"
#include "parts.h"
#include "steps.h"
#include "threads.h"

namespace twolayer {

template <class T>
Index product_cost(Index M, Index N, Index K, Operands operands) {
  // In lanes of multiply-adds: packing an element of B, and adding up the lanes of a sum.
  constexpr Index PACK = VECTOR_PACK_COST, ADD_UP = 100;
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

namespace {

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

}  // namespace

template <class T>
void linear_relu_forward(const LinearReluForward<T>& f, int threads) {
  prefer_huge_pages(f.a.data, f.batch * f.out_features * Index(sizeof(T)));
  linear(f.batch, f.in_features, f.out_features, f.x, f.w, f.b, true, f.a, threads);
}

template <class T>
void two_layer_forward(const TwoLayerForward<T>& f, int threads) {
  const Index in = f.shape.in_features, hidden = f.shape.hidden_features;
  const Index out = f.shape.out_features;
  const Index piece = f.a ? f.shape.batch : piece_rows(f.shape.batch, hidden, sizeof(T));
  const bool streams = is_streamed(f.shape.batch * out * Index(sizeof(T)));
  const Matrix<T> y = result(f.y, f.shape.batch, out);
  prefer_huge_pages(f.a.data, f.shape.batch * hidden * Index(sizeof(T)));
  const TrimScratch trim;
  const auto compute = [&](Index first, Index rows, Index in_all, bool samples_along, Index count) {
    const Matrix<T> a = f.a ? f.a.from_row(first)
                            : hidden_scratch<T>(Hidden::activation, rows, hidden, samples_along);
    linear(rows, in, hidden, f.x.from_row(first), f.w1, f.b1, true, a, int(count), in_all);
    linear<T>(rows, hidden, out, a, f.w2, f.b2, false, y.from_row(first), int(count), in_all,
              streams);
  };
  in_one_region(threads_worth(f.shape, threads), [&] {
    for (Index row = 0; row < f.shape.batch; row += piece) {
      const Index rows = std::min(piece, f.shape.batch - row);
      const bool samples_along =
          f.a ? f.a.col_stride != 1 : features_first<T>({rows, in, hidden, out}, false);
      const Deal deal = deal_samples<T>(f.shape, rows, samples_along, threads);
      // Threads that write into one line of a kept activation would take it from each other.
      const bool apart = !f.a || !samples_along || f.a.col_stride * Index(sizeof(T)) % 64 == 0;
      if (deal.threads <= 1 || !apart) {
        compute(row, rows, rows, samples_along, threads);
        continue;
      }
      on_threads(deal.threads, [&](Index i) {
        const TrimHidden of_this_thread;
        const Range own = vector_part(rows, deal.unit, deal.threads, i);
        compute(row + own.begin, own.size(), rows, samples_along, 1);
      });
    }
  });
}

#define INSTANTIATE(T)                                                 \
  template Index product_cost<T>(Index, Index, Index, Operands);       \
  template bool features_first<T>(const Shape&, bool);                 \
  template void linear_relu_forward(const LinearReluForward<T>&, int); \
  template void two_layer_forward(const TwoLayerForward<T>&, int);

INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(bfloat16)
INSTANTIATE(float16)

}  // namespace twolayer
