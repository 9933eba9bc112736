// Products with few rows whose B is adjacent along its rows: read where it lies, since packing an
// element of it costs as much as a dozen multiply-adds.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Elements of A that are widened at a time.
constexpr Index IN_PLACE_ELEMENTS = 1 << 15;

// Whether a product of M rows is better computed so: pairs of bfloat16 would have to be widened.
template <class T>
bool is_b_used_in_place(Index M, Index K) {
  const bool fits = sizeof(T) == sizeof(Sum<T>) || M * K <= IN_PLACE_ELEMENTS;
  return fits && M <= (Packed<T>::group > 1 ? 4 : 16);
}

// As tile(), with B where it is: K x (NV * lanes), rows `b_row` apart.
template <class T, int MR, int NV>
void in_place_tile(Index K, const Sum<T>* a, Index a_row, Index a_col, const T* b, Index b_row,
                   const TileStore<T>& out) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  constexpr Index AHEAD = 8;  // rows
  const Index chains = K <= CHAIN ? 1 : ceil_div(K, CHAIN);
  Index left = K - AHEAD;  // rows to be fetched
  const int last_lanes = out.last_lanes;
  Vec<S> acc[MR][NV] = {}, set_aside[MR][NV];
  for (Index chain = 0;;) {
    const Index length = chains == 1 ? K : part(K, chains, chain).size();
    for (Index k = 0; k < length; ++k) {
      const T* const ahead = left-- > 0 ? b + AHEAD * b_row : b;
      Vec<S> columns[NV];
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        __builtin_prefetch(ahead + j * L);
        columns[j] = widen(b + j * L, j < NV - 1 ? L : last_lanes);
      }
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const Vec<S> element = broadcast(a + i * a_row);
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) acc[i][j] += element * columns[j];
      }
      a += a_col;
      b += b_row;
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
using InPlaceFn = void (*)(Index K, const Sum<T>* a, Index a_row, Index a_col, const T* b,
                           Index b_row, const TileStore<T>& out);

template <class T>
struct InPlaceTiles {
  InPlaceFn<T> at[MAX_MR][MAX_NV];
};

template <class T, int... I>
constexpr InPlaceTiles<T> all_in_place_tiles(Indices<I...>) {
  InPlaceTiles<T> table = {};
  ((table.at[I / MAX_NV][I % MAX_NV] = &in_place_tile<T, I / MAX_NV + 1, I % MAX_NV + 1>), ...);
  return table;
}

template <class T>
constexpr InPlaceTiles<T> in_place_tiles =
    all_in_place_tiles<T>(typename CountTo<MAX_MR * MAX_NV>::type{});
