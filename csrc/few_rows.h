// Products with few rows, as dot products along K: each element of B is used so few times that
// packing it would cost more than it saves, and no lane runs empty for want of rows.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// The sums in registers at a time: rows x columns.
constexpr int DOT_ROWS = 4;
#if defined(__AVX512F__)
constexpr int DOT_COLUMNS = 4;  // 16 of 32 registers
#else
constexpr int DOT_COLUMNS = 2;  // 8 of 16
#endif

// Terms from which on a second row is better computed so, packed elements, and as many more for
// each further one: for each row the lanes of all sums are added up again, while B is packed but
// once.
template <class T>
constexpr Index TERMS_PER_ROW = sizeof(T) == 8 ? 8 : (sizeof(T) == 4 ? 8 : 12) * (4 / DOT_COLUMNS);

// Whether a product of M rows is better computed so.
template <class T>
bool are_few_rows(Index M, Index K) {
  // What has to be widened is so for every few rows again.
  constexpr Index G = Packed<T>::group;
  constexpr bool widened = sizeof(T) * G != sizeof(typename Packed<T>::type);
  if (has_matrix_unit<T> && M > 6) return false;
  if (M <= 1 && widened && DOT_COLUMNS < 4) return K >= lanes<Sum<T>>;
  if (M <= DOT_ROWS) return K / G >= (M - 1) * TERMS_PER_ROW<T>;
  return M <= (widened ? 16 : 40) && M * (widened ? 16 : 8) <= K / G;
}

// Lane i: the sum of lanes i and i +- D of one of the two, by whether i has bit D.
template <class S, int D>
inline Vec<S> paired_sums(Vec<S> u, Vec<S> v) {
  exchange<S, D>(u, v, typename CountTo<lanes<S>>::type{});
  return u + v;
}

// One vector of N, lane i of which has a part of the sum of vector i / D % N. In each of them, lane
// i has a part of the sum of its own number i % D.
template <class S, int D, int N>
inline Vec<S> sums_together(const Vec<S> (&v)[N]) {
  if constexpr (N == 1) {
    return v[0];
  } else {
    Vec<S> half[N / 2];
#pragma GCC unroll 4
    for (int i = 0; i < N / 2; ++i) half[i] = paired_sums<S, D>(v[2 * i], v[2 * i + 1]);
    return sums_together<S, 2 * D>(half);
  }
}

// Adds to sums[i] what these terms bring of the dot products of row i of A with NC columns of B,
// both adjacent along K: lane j has a part of that with column j % NC.
template <class T, int MR>
inline void dot_products(Range terms, const T* a, Index a_row,
                         const T* const (&column)[DOT_COLUMNS], Vec<Sum<T>> (&sums)[MR]) {
  using S = Sum<T>;
  using P = typename Packed<T>::type;
  constexpr int NC = DOT_COLUMNS;
  constexpr Index STEP = lanes<P> * Packed<T>::group;
  Vec<S> acc[MR][NC] = {};
  const auto step = [&](Index k, int used) {
    Vec<P> row[MR];
    for (int i = 0; i < MR; ++i) row[i] = load_along(a + i * a_row + k, used);
    for (int j = 0; j < NC; ++j) {
      const Vec<P> part = load_along(column[j] + k, used);
      for (int i = 0; i < MR; ++i) acc[i][j] = Packed<T>::multiply_add(acc[i][j], row[i], part);
    }
  };
  Index k = terms.begin;
  for (; k + STEP <= terms.end; k += STEP) step(k, int(STEP));
  if (k < terms.end) step(k, int(terms.end - k));
  for (int i = 0; i < MR; ++i) sums[i] += sums_together<S, 1>(acc[i]);
}

// MR rows by up to a vector of columns, through the tile's epilogue.
template <class T, int MR>
void few_rows_tile(Index K, const T* a, Index a_row, const T* b, Index b_col,
                   const TileStore<T>& out) {
  using S = Sum<T>;
  constexpr int NC = DOT_COLUMNS, PASSES = lanes<S> / NC;
  constexpr Index CHAIN_TERMS = CHAIN * lanes<typename Packed<T>::type> * Packed<T>::group;
  Vec<S> sums[PASSES][MR] = {};
#pragma GCC unroll 4
  for (int pass = 0; pass < PASSES; ++pass) {
    const int left = out.last_lanes - pass * NC;
    if (left <= 0) break;
    // Columns that are not there repeat the last one; their sums are not used.
    const T* column[NC];
    for (int j = 0; j < NC; ++j) column[j] = b + (pass * NC + (j < left ? j : left - 1)) * b_col;
    Index k = 0;
    for (; K - k > CHAIN_TERMS; k += CHAIN_TERMS) {
      dot_products<T, MR>({k, k + CHAIN_TERMS}, a, a_row, column, sums[pass]);
    }
    dot_products<T, MR>({k, K}, a, a_row, column, sums[pass]);
  }
  Vec<S> acc[MR][1];
  for (int i = 0; i < MR; ++i) {
    Vec<S> passes[PASSES];
    for (int pass = 0; pass < PASSES; ++pass) passes[pass] = sums[pass][i];
    acc[i][0] = sums_together<S, NC>(passes);
  }
  store_tile<T, MR, 1>(acc, out);
}

template <class T>
using FewRowsFn = void (*)(Index K, const T* a, Index a_row, const T* b, Index b_col,
                           const TileStore<T>& out);

template <class T>
constexpr FewRowsFn<T> few_rows_tiles[DOT_ROWS] = {&few_rows_tile<T, 1>, &few_rows_tile<T, 2>,
                                                   &few_rows_tile<T, 3>, &few_rows_tile<T, 4>};
