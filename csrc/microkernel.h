// The register tile: MR rows x NV vectors of C, and the epilogue on the way out of the registers.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Tile limits: accumulators, the vectors of B and one broadcast of A fill the register file.
#if defined(__AVX512F__)
constexpr int MAX_MR = 6, MAX_NV = 4;  // 24 of 32 registers
#else
constexpr int MAX_MR = 6, MAX_NV = 2;  // 12 of 16 registers
#endif

// Whether the matrix unit computes the products.
#if defined(__AMX_BF16__)
template <class T>
constexpr bool has_matrix_unit = std::is_same_v<T, bfloat16>;
#else
template <class T>
constexpr bool has_matrix_unit = false;
#endif

// The widest panel that an operand is packed in, in vectors, and the elements along K of which a
// packed operand has whole steps, zero where there are none.
template <class T>
constexpr Index PANEL_VECTORS = MAX_NV;
template <class T>
constexpr Index DEPTH_STEP = Packed<T>::group;
#if defined(__AMX_BF16__)
template <>
constexpr Index PANEL_VECTORS<bfloat16> = 2;
template <>
constexpr Index DEPTH_STEP<bfloat16> = 32;
#endif

// Where a tile's sums go. Pointers are at the tile's first element; columns are adjacent.
template <class T>
struct TileStore {
  using S = Sum<T>;
  int last_lanes;  // columns in use of the last vector, 1 .. lanes
  bool add_partial;
  bool streams;  // the result goes past the caches
  bool finish;   // run the epilogue and write c; else leave the sums in `partial`
  S* partial;
  Index partial_stride;
  T* c;
  Index c_stride;
  Vector<const T> row_bias;
  const S* col_bias;  // adjacent, padded with zeros to whole vectors
  bool relu;
  const T* mask;
  Index mask_stride;
  double* row_sum;
  S* col_sum;  // adjacent, padded to whole vectors
};

// Always inlined: the address of sums that are passed to a call makes the compiler write them to
// memory in each step of the loop before it.
template <class T, int MR, int NV>
__attribute__((always_inline)) inline void store_tile(Vec<Sum<T>> (&acc)[MR][NV],
                                                      const TileStore<T>& out) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  const auto used = [&](int j) { return j < NV - 1 ? L : out.last_lanes; };

  if (out.add_partial) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const S* p = out.partial + i * out.partial_stride;
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] += load_first(p + j * L, used(j));
    }
  }
  if (!out.finish) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      S* p = out.partial + i * out.partial_stride;
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) store_first(p + j * L, acc[i][j], used(j));
    }
    return;
  }
  if (out.col_bias) {
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      const Vec<S> bias = load(out.col_bias + j * L);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) acc[i][j] += bias;
    }
  }
  if (out.row_bias) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const S bias = widen_one(out.row_bias.data + i * out.row_bias.stride);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] += bias - Vec<S>{};
    }
  }
  if (out.relu) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = acc[i][j] < 0 ? Vec<S>{} : acc[i][j];
    }
  }
  if (out.mask) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const T* p = out.mask + i * out.mask_stride;
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        acc[i][j] = widen(p + j * L, used(j)) <= 0 ? Vec<S>{} : acc[i][j];
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
    T* p = out.c + i * out.c_stride;
    if (out.streams) {
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        if (j < NV - 1 || out.last_lanes == L) {
          stream(p + j * L, acc[i][j]);
        } else {
          narrow(p + j * L, acc[i][j], out.last_lanes);
        }
      }
      continue;
    }
    if (NV == 2 && out.last_lanes == L) {
      narrow_two_sums(p, acc[i][0], acc[i][NV - 1]);
      continue;
    }
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) narrow_sums(p + j * L, acc[i][j], used(j));
  }
  if (out.col_sum) {
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      Vec<S> sum = acc[0][j];
#pragma GCC unroll 8
      for (int i = 1; i < MR; ++i) sum += acc[i][j];
      store(out.col_sum + j * L, load(out.col_sum + j * L) + sum);
    }
  }
  if (out.row_sum) {
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      Vec<S> sum = first_lanes<S>(acc[i][NV - 1], out.last_lanes);
#pragma GCC unroll 8
      for (int j = 0; j < NV - 1; ++j) sum += acc[i][j];
      out.row_sum[i] += horizontal_sum<S>(sum);
    }
  }
}

// Packed elements along K that one accumulator sums before it is set aside: the rounding error
// grows with the root of this length. With 192 it is that of torch's float32 product; with 512 it
// was 1.7 times as large (RMS, K of 512).
constexpr Index CHAIN = 192;

// a: MR x K with strides; b: a packed panel, K x (NV * lanes); both in packed elements.
template <class T, int MR, int NV>
void tile(Index K, const typename Packed<T>::type* a, Index a_row, Index a_col,
          const typename Packed<T>::type* b, const TileStore<T>& out) {
  using S = Sum<T>;
  using P = typename Packed<T>::type;
  constexpr int L = lanes<S>;
  const Index chains = K <= CHAIN ? 1 : ceil_div(K, CHAIN);
  Vec<S> acc[MR][NV] = {}, set_aside[MR][NV];
  for (Index chain = 0;;) {  // the loop over K stands here once: a second copy of it spills
    const Index length = chains == 1 ? K : part(K, chains, chain).size();
    for (Index k = 0; k < length; ++k) {
      Vec<P> columns[NV];
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) columns[j] = load(b + j * L);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const Vec<P> element = broadcast(a + i * a_row);
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
          acc[i][j] = Packed<T>::multiply_add(acc[i][j], element, columns[j]);
        }
      }
      a += a_col;
      b += NV * L;
    }
    if (chain > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) acc[i][j] += set_aside[i][j];
      }
    }
    if (++chain == chains) break;
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        set_aside[i][j] = acc[i][j];
        acc[i][j] = Vec<S>{};
      }
    }
  }
  store_tile<T, MR, NV>(acc, out);
}

template <class T>
using TileFn = void (*)(Index K, const typename Packed<T>::type* a, Index a_row, Index a_col,
                        const typename Packed<T>::type* b, const TileStore<T>& out);

// The tile of every height and width, tiles[MR - 1][NV - 1]: a block is cut into tiles of nearly
// equal size, so no remainder runs in a thin one.
template <class T>
struct Tiles {
  TileFn<T> at[MAX_MR][MAX_NV];
};

template <class T, int... I>
constexpr Tiles<T> all_tiles(Indices<I...>) {
  Tiles<T> table = {};
  ((table.at[I / MAX_NV][I % MAX_NV] = &tile<T, I / MAX_NV + 1, I % MAX_NV + 1>), ...);
  return table;
}

template <class T>
constexpr Tiles<T> tiles = all_tiles<T>(typename CountTo<MAX_MR * MAX_NV>::type{});
