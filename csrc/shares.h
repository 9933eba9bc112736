// A backward in shares of its samples: how many there are, and what each leaves to be added up.
//
// A thread finds in its own cache what it wrote of the hidden layer, and waits for nobody in
// between.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "parts.h"
#include "steps.h"
#include "threads.h"

namespace twolayer {

// Bytes of one share's sums, in whole lines.
template <class T>
Index share_bytes(Index weights, Index biases) {
  constexpr Index LINE = 64;
  return ceil_div(biases * Index(sizeof(double)) + weights * Index(sizeof(Sum<T>)), LINE) * LINE;
}

// Into how many shares the samples are dealt; 1: into none. The sizes alone decide, and so do the
// bits of the results. A share costs writing and adding up a weight gradient of its own; it saves
// that threads read each other's part of the hidden layer, and wait for each other after each
// product.
template <class T>
Index shares_of(const Shape& s) {
  constexpr Index ROWS = 256, ROWS_PER_FEATURE = 2, MOST = 64;
  constexpr Index HALF_THE_ROWS = 64, HALF_THE_BYTES = 256 << 10;
  const Index around = s.in_features + s.out_features;
  if (threads_worth(s, 2) < 2) return 1;
  const Index rows = std::max(ROWS, ROWS_PER_FEATURE * around);
  const Index bytes =
      share_bytes<T>(s.hidden_features * around, s.hidden_features + s.out_features);
  const Index fitting = MOST_SHARED_BYTES / std::max<Index>(1, bytes);
  const Index count = std::min({s.batch / rows, MOST, fitting});
  if (count < 2) {  // two halves may do with less
    const bool enough = s.batch >= 2 * std::max(HALF_THE_ROWS, around);
    return enough && bytes <= HALF_THE_BYTES ? 2 : 1;
  }
  return count < 8 ? count / 2 * 2 : count / 8 * 8;  // even on several threads
}

// Where results are to be written, null where they are not wanted, and their sizes.
template <class T>
struct Results {
  struct Result {
    T* data;
    Index size;
  };
  T* x;
  Result w1, w2, b1, b2;
};

template <class T>
typename Results<T>::Result wanted(T* data, Index size) {
  return {data, data != nullptr ? size : 0};
}

// The sums of each share, in memory of the calling thread.
template <class T>
class Shares {
 public:
  Shares(Index count, const Results<T>& to)
      : count(count), w1(to.w1), w2(to.w2), b1(to.b1), b2(to.b2) {
    stride = share_bytes<T>(w1.size + w2.size, b1.size + b2.size);
    memory = static_cast<char*>(sums_memory(SumsOf::shares, count * stride));
  }

  double* of_b1(Index share) const { return reinterpret_cast<double*>(memory + share * stride); }
  double* of_b2(Index share) const { return of_b1(share) + b1.size; }
  Sum<T>* of_w1(Index share) const { return reinterpret_cast<Sum<T>*>(of_b2(share) + b2.size); }
  Sum<T>* of_w2(Index share) const { return of_w1(share) + w1.size; }

  void clear_biases(Index share) const { std::fill_n(of_b1(share), b1.size + b2.size, 0.0); }

  // Writes what is wanted, in the order of the shares.
  void add_up(int threads) const {
    const Index parts = threads_for_pass(count * (w1.size + w2.size), 1, threads);
    on_threads(parts, [&](Index i) {
      add_up(of_w1(0), part(w1.size, parts, i), w1.data);
      add_up(of_w2(0), part(w2.size, parts, i), w2.data);
    });
    add_up(of_b1(0), {0, b1.size}, b1.data);
    add_up(of_b2(0), {0, b2.size}, b2.data);
  }

 private:
  static constexpr Index AT_ONCE = 512;

  template <class S>
  void add_up(const S* first, Range elements, T* out) const {
    S sums[AT_ONCE];
    for (Index begin = elements.begin; begin < elements.end; begin += AT_ONCE) {
      const Index size = std::min(AT_ONCE, elements.end - begin);
      const S* share = first + begin;
      std::copy_n(share, size, sums);
      for (Index s = 1; s < count; ++s) {
        share = reinterpret_cast<const S*>(reinterpret_cast<const char*>(share) + stride);
        for (Index i = 0; i < size; ++i) sums[i] += share[i];
      }
      store(sums, size, out + begin);
    }
  }

  template <class S>
  static void store(const S* sums, Index size, T* out) {
    if constexpr (std::is_same_v<S, T>) {
      std::copy_n(sums, size, out);
    } else {
      double wide[AT_ONCE];
      std::copy_n(sums, size, wide);
      kernels().of<T>().round_sums(size, wide, out);
    }
  }

  const Index count;
  const typename Results<T>::Result w1, w2, b1, b2;
  Index stride;  // in bytes, from one share's sums to the next one's
  char* memory;
};

}  // namespace twolayer
