// Products with a handful of rows, as dot products along K: each element of B is used so few times
// that packing it would cost more than the sums.
//
// Included only by the kernels_*.cpp files, inside their namespace.

template <class S>
constexpr Index FEW_ROWS_TERMS = 2 * lanes<S>;
template <class S>
constexpr int DOT_COLUMNS = lanes<S> < 4 ? lanes<S> : 4;  // with 4 rows, 16 sums in registers

// sums[i][first + j] = dot product of row i of A and column first + j of B, both adjacent along K.
template <class T, int MR>
inline void dot_products(Index K, const T* a, Index a_row, const T* b, Index b_col, Index first,
                         Index columns, Sum<T> (&sums)[MR][lanes<Sum<T>>]) {
  using S = Sum<T>;
  using P = typename Packed<T>::type;
  constexpr int NC = DOT_COLUMNS<S>;
  constexpr Index STEP = lanes<P> * Packed<T>::group;
  // Columns that are not there repeat the last one; their sums are not used.
  const T* column[NC];
  for (int j = 0; j < NC; ++j) {
    column[j] = b + (first + j < columns ? first + j : columns - 1) * b_col;
  }
  Vec<S> acc[MR][NC] = {};
  const auto step = [&](Index k, int used) {
    Vec<P> row[MR];
    for (int i = 0; i < MR; ++i) row[i] = load_along(a + i * a_row + k, used);
    for (int j = 0; j < NC; ++j) {
      const Vec<P> part = load_along(column[j] + k, used);
      for (int i = 0; i < MR; ++i) acc[i][j] = Packed<T>::multiply_add(acc[i][j], row[i], part);
    }
  };
  Index k = 0;
  for (; k + STEP <= K; k += STEP) step(k, int(STEP));
  if (k < K) step(k, int(K - k));
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NC; ++j) sums[i][first + j] = horizontal_sum<S>(acc[i][j]);
  }
}

// MR rows by up to a vector of columns, through the tile's epilogue.
template <class T, int MR>
void few_rows_tile(Index K, const T* a, Index a_row, const T* b, Index b_col,
                   const TileStore<T>& out) {
  using S = Sum<T>;
  alignas(VECTOR_BYTES) S sums[MR][lanes<S>] = {};
  for (Index first = 0; first < out.last_lanes; first += DOT_COLUMNS<S>) {
    dot_products<T, MR>(K, a, a_row, b, b_col, first, out.last_lanes, sums);
  }
  Vec<S> acc[MR][1];
  for (int i = 0; i < MR; ++i) acc[i][0] = load(sums[i]);
  store_tile<T, MR, 1>(acc, out);
}

template <class T>
using FewRowsFn = void (*)(Index K, const T* a, Index a_row, const T* b, Index b_col,
                           const TileStore<T>& out);

template <class T>
constexpr FewRowsFn<T> few_rows_tiles[MAX_FEW_ROWS] = {&few_rows_tile<T, 1>, &few_rows_tile<T, 2>,
                                                       &few_rows_tile<T, 3>, &few_rows_tile<T, 4>};
