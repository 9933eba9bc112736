// Copies of operands in the order in which the tile reads them, in packed elements.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// ---- a vector of packed elements from memory ----

// Of `lanes` neighbours across K (rows k .. k + group - 1 of `row_stride` apart, `rows` of them
// there), the first n.
template <class T>
inline Vec<typename Packed<T>::type> load_across(const T* p, Index, Index, int n) {
  return widen(p, n);
}

// Of `lanes` packed neighbours along K, the first n elements.
template <class T>
inline Vec<typename Packed<T>::type> load_along(const T* p, int n) {
  return widen(p, n);
}

// One packed element, `count` of its group there.
template <class T>
inline typename Packed<T>::type load_single(const T* p, Index, Index) {
  return widen_one(p);
}

// Two vectors of such neighbours, all of them there.
template <class T>
inline void load_two_across(const T* p, Index row_stride, Index rows,
                            Vec<typename Packed<T>::type>& first,
                            Vec<typename Packed<T>::type>& second) {
  constexpr int L = lanes<typename Packed<T>::type>;
  first = load_across(p, row_stride, rows, L);
  second = load_across(p + L, row_stride, rows, L);
}

#if defined(__AVX512BF16__)
inline Bits32 load_across(const bfloat16* p, Index row_stride, Index rows, int n) {
  const Bits32 first = __builtin_convertvector(load_bits(&p->bits, n), Bits32);
  if (rows < 2) return first;
  const Bits16 second = load_bits(&p[row_stride].bits, n);
  return first | (__builtin_convertvector(second, Bits32) << 16);
}

inline void load_two_across(const bfloat16* p, Index row_stride, Index rows, Bits32& first,
                            Bits32& second) {
  typedef short Words __attribute__((vector_size(64)));
  const Words low = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i above = _mm512_loadu_si512(p);
  const __m512i below = rows < 2 ? _mm512_setzero_si512() : _mm512_loadu_si512(p + row_stride);
  first = (Bits32)_mm512_permutex2var_epi16(above, (__m512i)low, below);
  second = (Bits32)_mm512_permutex2var_epi16(above, (__m512i)(low + 16), below);
}

inline Bits32 load_along(const bfloat16* p, int n) {
  return (Bits32)_mm512_maskz_loadu_epi16(__mmask32((std::uint64_t(1) << n) - 1), p);
}

inline std::uint32_t load_single(const bfloat16* p, Index stride, Index count) {
  return p->bits | (count < 2 ? 0u : std::uint32_t(p[stride].bits) << 16);
}
#endif

// ---- whole operands ----

// A panel of B (K x columns): packed rows of `width` elements, a multiple of the lanes, of which
// those from `columns` on are zero.
template <class T>
void pack_panel(Index K, Index columns, Index width, const Operand<T>& b,
                typename Packed<T>::type* panel) {
  using P = typename Packed<T>::type;
  constexpr int L = lanes<P>;
  constexpr Index G = Packed<T>::group;
  constexpr Index AHEAD = 8;
  if (b.values.col_stride == 1 && !b.cols) {
    for (Index k = 0; k < K; k += G, panel += width) {
      const T* row = b.at(k, 0);
      const Index next_row = k + 1 < K ? b.at(k + 1, 0) - row : 0;
      const T* ahead = b.at(k + AHEAD < K ? k + AHEAD : K - 1, 0);
      Index n = 0;
      for (; n + 2 * L <= columns; n += 2 * L) {
        Vec<P> first, second;
        __builtin_prefetch(ahead + n);
        __builtin_prefetch(ahead + n + L);
        load_two_across(row + n, next_row, K - k, first, second);
        store(panel + n, first);
        store(panel + n + L, second);
      }
      for (; n < width; n += L) {
        const Index left = columns - n;
        __builtin_prefetch(ahead + n);
        store(panel + n, load_across(row + n, next_row, K - k, int(left < L ? left : L)));
      }
    }
    return;
  }
  if (b.values.row_stride == 1 && !b.rows) {  // its columns are adjacent: transpose squares
    for (Index n = 0; n < width; n += L) {
      const T* column[L];
      for (int j = 0; j < L; ++j) column[j] = n + j < columns ? b.at(0, n + j) : nullptr;
      for (Index k = 0; k < K; k += L * G) {
        const int used = int(K - k < L * G ? K - k : L * G);
        Vec<P> square[L];
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) {
          square[j] = n + j < columns ? load_along(column[j] + k, used) : Vec<P>{};
        }
        transpose<P>(square);
        P* target = panel + k / G * width + n;
        if (used == L * G) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) store(target + i * width, square[i]);
        } else {
          for (int i = 0; i * G < used; ++i) store(target + i * width, square[i]);
        }
      }
    }
    return;
  }
  for (Index k = 0; k < K; k += G, panel += width) {
    for (Index n = 0; n < width; ++n) {
      const T* first = n < columns ? b.at(k, n) : nullptr;
      const Index next_row = n < columns && k + 1 < K ? b.at(k + 1, n) - first : 0;
      panel[n] = n < columns ? load_single(first, next_row, K - k) : P(0);
    }
  }
}

// What pack_rows() returns for the same block and room.
template <class T>
Matrix<const typename Packed<T>::type> view_of_packed_rows(Index M, Index K, Matrix<const T> a,
                                                           const typename Packed<T>::type* copy) {
  constexpr int L = lanes<typename Packed<T>::type>;
  if (a.col_stride != 1) return {copy, 1, ceil_div(M, L) * L};
  return {copy, ceil_div(K, Packed<T>::group), 1};
}

// A block of A (M x K), kept along its unit stride; `copy` has room for M rounded up to the lanes.
// Returns the view of the copy, in packed elements.
template <class T>
Matrix<const typename Packed<T>::type> pack_rows(Index M, Index K, Matrix<const T> a,
                                                 typename Packed<T>::type* copy) {
  using P = typename Packed<T>::type;
  constexpr int L = lanes<P>;
  constexpr Index G = Packed<T>::group;
  const auto view = view_of_packed_rows<T>(M, K, a, copy);
  if (a.col_stride != 1) {
    pack_panel<T>(K, M, view.col_stride, Operand<T>{a.transposed()}, copy);
    return view;
  }
  const Index depth = ceil_div(K, G);
  for (Index m = 0; m < M; ++m) {
    const T* row = a.data + m * a.row_stride;
    P* target = copy + m * depth;
    Index k = 0;
    for (; k + L * G <= K; k += L * G) store(target + k / G, load_along(row + k, L * G));
    if (k < K) {
      store_first(target + k / G, load_along(row + k, int(K - k)), int(ceil_div(K - k, G)));
    }
  }
  return view;
}
