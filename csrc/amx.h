// The tile of bfloat16 on Intel's matrix unit (AMX): 32 x 32 sums in four tile registers of 16 x
// 16, fed by two of A and two of B, each of 16 x 32 elements.
//
// Included only by kernels_amx.cpp, inside its namespace.

constexpr int AMX_ROWS = 16;   // of a tile register
constexpr int AMX_PAIRS = 16;  // of bfloat16 in one of its rows, as many as it has floats
constexpr Index AMX_TERMS = DEPTH_STEP<bfloat16>;
constexpr Index AMX_ELEMENTS = AMX_ROWS * AMX_PAIRS;  // packed ones, or sums, in one register
constexpr Index AMX_TILE_ROWS = 2 * AMX_ROWS;

// All eight registers in full. A constant: GCC 12 knows of no more than the first eight bytes that
// the instruction reads them, and would not write the rest of a variable.
struct alignas(64) AmxConfig {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};
constexpr AmxConfig amx_config = {
    1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Makes the registers of the calling thread usable.
struct AmxRegisters {
  AmxRegisters() { _tile_loadconfig(&amx_config); }
  AmxRegisters(const AmxRegisters&) = delete;
  AmxRegisters& operator=(const AmxRegisters&) = delete;
  ~AmxRegisters() { _tile_release(); }
};

// Rows of A as registers read them: copies of registers, those with the same rows together. (Read
// where they are, the products take a quarter longer: 102 us for 80 of 256 x 512 x 512.)
struct AmxRows {
  const std::uint32_t* first;
  Index below;  // from one register to the one with the next rows

  AmxRows from(Index m, Index k) const {  // both where a register begins
    return {first + m / AMX_ROWS * below + k / AMX_PAIRS * AMX_ELEMENTS, below};
  }
};

// ---- one register: `rows` x `terms` elements, the rest is zero ----

// Rows that are adjacent along K.
inline void copy_rows(Index rows, Index terms, const bfloat16* a, Index stride, std::uint32_t* to) {
  if (rows == AMX_ROWS && terms == AMX_TERMS) {
#pragma GCC unroll 16
    for (int m = 0; m < AMX_ROWS; ++m) {
      store(to + m * AMX_PAIRS, load_along(a + m * stride, AMX_TERMS));
    }
    return;
  }
  for (Index m = 0; m < rows; ++m) {
    store(to + m * AMX_PAIRS, load_along(a + m * stride, int(terms)));
  }
  for (Index m = rows; m < AMX_ROWS; ++m) store(to + m * AMX_PAIRS, Bits32{});
}

// Columns that are adjacent along M.
inline void copy_columns(Index rows, Index terms, const bfloat16* a, Index stride,
                         std::uint32_t* to) {
  Bits32 square[AMX_PAIRS];
#pragma GCC unroll 16
  for (int k = 0; k < AMX_PAIRS; ++k) {
    const Index first = k * Packed<bfloat16>::group;
    square[k] = first < terms ? load_across(a + first * stride, stride, terms - first, int(rows))
                              : Bits32{};
  }
  transpose<std::uint32_t>(square);
#pragma GCC unroll 16
  for (int m = 0; m < AMX_ROWS; ++m) store(to + m * AMX_PAIRS, square[m]);
}

inline void copy_elements(Index rows, Index terms, const bfloat16* a, Index row_stride,
                          Index col_stride, std::uint32_t* to) {
  for (Index m = 0; m < AMX_ROWS; ++m) {
    for (Index k = 0; k < AMX_TERMS; k += 2, ++to) {
      const bfloat16* const p = a + m * row_stride + k * col_stride;
      *to = m < rows && k < terms ? load_single(p, col_stride, terms - k) : 0;
    }
  }
}

// A whole panel of B out of rows `stride` apart, an even number of them.
inline void pack_whole_panel(Index K, const bfloat16* b, Index stride, std::uint32_t* to) {
  for (Index k = 0; k < K; k += 2, b += 2 * stride, to += 2 * AMX_PAIRS) {
    Bits32 first, second;
    load_two_across(b, stride, 2, first, second);
    store(to, first);
    store(to + AMX_PAIRS, second);
  }
}

// Packed elements of a copy of M x K.
inline Index amx_copy_size(Index M, Index K) {
  return ceil_div(M, AMX_ROWS) * ceil_div(K, AMX_TERMS) * AMX_ELEMENTS;
}

inline AmxRows view_of_amx_copy(Index K, const std::uint32_t* copy) {
  return {copy, ceil_div(K, AMX_TERMS) * AMX_ELEMENTS};
}

inline void copy_for_amx(Index M, Index K, Matrix<const bfloat16> a, std::uint32_t* copy) {
  for (Index m = 0; m < M; m += AMX_ROWS) {
    const Index rows = M - m < AMX_ROWS ? M - m : AMX_ROWS;
    for (Index k = 0; k < K; k += AMX_TERMS, copy += AMX_ELEMENTS) {
      const Index terms = K - k < AMX_TERMS ? K - k : AMX_TERMS;
      const bfloat16* const first = a.data + m * a.row_stride + k * a.col_stride;
      if (a.col_stride == 1) {
        copy_rows(rows, terms, first, a.row_stride, copy);
      } else if (a.row_stride == 1) {
        copy_columns(rows, terms, first, a.col_stride, copy);
      } else {
        copy_elements(rows, terms, first, a.row_stride, a.col_stride, copy);
      }
    }
  }
}

// Sums of RT x CT registers over K packed elements: on from `from` where given, then to `to`, one
// register after the other. b: a packed panel as wide as the sums.
template <int RT, int CT>
void amx_sums(Index K, const AmxRows& rows, const std::uint32_t* b, const float* from, float* to) {
  constexpr Index WIDTH = CT * AMX_PAIRS, BYTES = 4, REGISTER = AMX_PAIRS * BYTES;
  const std::uint32_t* a = rows.first;
  asm volatile("" ::: "memory");  // GCC 12 does not know that the loads read memory
  if (from != nullptr) {
    _tile_loadd(0, from, REGISTER);
    if (CT > 1) _tile_loadd(1, from + AMX_ELEMENTS, REGISTER);
    if (RT > 1) _tile_loadd(2, from + CT * AMX_ELEMENTS, REGISTER);
    if (RT > 1 && CT > 1) _tile_loadd(3, from + 3 * AMX_ELEMENTS, REGISTER);
  } else {
    _tile_zero(0);
    if (CT > 1) _tile_zero(1);
    if (RT > 1) _tile_zero(2);
    if (RT > 1 && CT > 1) _tile_zero(3);
  }
  for (Index k = 0; k < K; k += AMX_PAIRS, a += AMX_ELEMENTS, b += AMX_PAIRS * WIDTH) {
    _tile_loadd(6, b, WIDTH * BYTES);
    _tile_loadd(4, a, REGISTER);
    _tile_dpbf16ps(0, 4, 6);
    if (CT > 1) {
      _tile_loadd(7, b + AMX_PAIRS, WIDTH * BYTES);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (RT > 1) {
      _tile_loadd(5, a + rows.below, REGISTER);
      _tile_dpbf16ps(2, 5, 6);
      if (CT > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, to, REGISTER);
  if (CT > 1) _tile_stored(1, to + AMX_ELEMENTS, REGISTER);
  if (RT > 1) _tile_stored(2, to + CT * AMX_ELEMENTS, REGISTER);
  if (RT > 1 && CT > 1) _tile_stored(3, to + 3 * AMX_ELEMENTS, REGISTER);
}

// MR rows of finished sums through the tile's epilogue; then `out` is at the rows behind them.
template <int MR, int NV>
inline void store_rows(const float* sums, TileStore<bfloat16>& out) {
  Vec<float> acc[MR][NV];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < NV; ++j) acc[i][j] = load(sums + j * AMX_ELEMENTS + i * AMX_PAIRS);
  }
  store_tile<bfloat16, MR, NV>(acc, out);
  if (out.partial) out.partial += MR * out.partial_stride;
  out.c += MR * out.c_stride;
  if (out.row_bias) out.row_bias.data += MR * out.row_bias.stride;
  if (out.mask) out.mask += MR * out.mask_stride;
  if (out.row_sum) out.row_sum += MR;
}

template <int CT>
void store_amx_tile(Index rows, const float* sums, TileStore<bfloat16> out) {
  constexpr Index AT_ONCE = 8;
  for (Index first = 0; first < rows; first += AMX_ROWS, sums += CT * AMX_ELEMENTS) {
    const Index count = rows - first < AMX_ROWS ? rows - first : AMX_ROWS;
    Index m = 0;
    for (; m + AT_ONCE <= count; m += AT_ONCE) store_rows<AT_ONCE, CT>(sums + m * AMX_PAIRS, out);
    for (; m < count; ++m) store_rows<1, CT>(sums + m * AMX_PAIRS, out);
  }
}

// Of any height and width of a tile.
inline void amx_sums(Index height, Index width, Index K, const AmxRows& rows,
                     const std::uint32_t* b, const float* from, float* to) {
  if (height > AMX_ROWS) {
    width > 1 ? amx_sums<2, 2>(K, rows, b, from, to) : amx_sums<2, 1>(K, rows, b, from, to);
  } else {
    width > 1 ? amx_sums<1, 2>(K, rows, b, from, to) : amx_sums<1, 1>(K, rows, b, from, to);
  }
}

inline void store_amx_tile(Index height, Index width, const float* sums,
                           const TileStore<bfloat16>& out) {
  width > 1 ? store_amx_tile<2>(height, sums, out) : store_amx_tile<1>(height, sums, out);
}
