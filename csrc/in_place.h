// Products with few rows whose B is adjacent along its rows: read where it lies, since packing an
// element of it costs as much as a dozen multiply-adds.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Packed elements of A that are copied at a time.
constexpr Index IN_PLACE_ELEMENTS = 1 << 17;

// Whether a product of M rows is better computed so.
template <class T>
bool is_b_used_in_place(Index M, Index K) {
  constexpr int L = lanes<Sum<T>>;
  constexpr Index G = Packed<T>::group;
  constexpr Index most = has_matrix_unit<T> ? 4 : G > 1 ? 24 : 16;
  const bool fits = ceil_div(M, L) * L * ceil_div(K, G) <= IN_PLACE_ELEMENTS;
  return (fits || sizeof(T) == sizeof(Sum<T>)) && M <= most;
}

// As tile(), with B where it is: rows `b_row` apart, `terms` of them, in elements; K and the
// strides of A count packed ones.
template <class T, int MR, int NV>
void in_place_tile(Index terms, const typename Packed<T>::type* a, Index a_row, Index a_col,
                   const T* b, Index b_row, const TileStore<T>& out) {
  using S = Sum<T>;
  using P = typename Packed<T>::type;
  constexpr int L = lanes<S>;
  constexpr Index G = Packed<T>::group;
  constexpr Index AHEAD = 8;  // packed rows
  const Index K = ceil_div(terms, G);
  const Index chains = K <= CHAIN ? 1 : ceil_div(K, CHAIN);
  Index left = K - AHEAD;  // rows to be fetched
  const int last_lanes = out.last_lanes;
  Vec<S> acc[MR][NV] = {}, set_aside[MR][NV];
  for (Index chain = 0;;) {
    const Index length = chains == 1 ? K : part(K, chains, chain).size();
    for (Index k = 0; k < length; ++k) {
      const T* const ahead = left-- > 0 ? b + AHEAD * G * b_row : b;
      Vec<P> columns[NV];
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) {
        for (Index row = 0; row < G; ++row) __builtin_prefetch(ahead + row * b_row + j * L);
      }
#pragma GCC unroll 8
      for (int j = 0; j + 1 < NV; j += 2) {
        const T* const two = b + j * L;
        if (j + 1 < NV - 1 || last_lanes == L) {
          load_two_across(two, b_row, terms, columns[j], columns[j + 1]);
        } else {
          columns[j] = load_across(two, b_row, terms, L);
          columns[j + 1] = load_across(two + L, b_row, terms, last_lanes);
        }
      }
      if (NV % 2) columns[NV - 1] = load_across(b + (NV - 1) * L, b_row, terms, last_lanes);
#pragma GCC unroll 8
      for (int i = 0; i < MR; ++i) {
        const Vec<P> element = broadcast(a + i * a_row);
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) {
          acc[i][j] = Packed<T>::multiply_add(acc[i][j], element, columns[j]);
        }
      }
      a += a_col;
      b += G * b_row;
      terms -= G;
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
using InPlaceFn = void (*)(Index terms, const typename Packed<T>::type* a, Index a_row, Index a_col,
                           const T* b, Index b_row, const TileStore<T>& out);

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
