// The loops around the tile: what stays in which cache, for the block of C that one thread owns.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Rows whose copy of A is made at a time, and rows whose 16-bit results wait in float or come by a
// panel of the matrix unit.
constexpr Index BLOCK_COPY_M = 96;
constexpr Index BLOCK_PARTIAL_M = 512;
// Where the columns are several blocks, a copy of A of up to so many bytes serves them all.
constexpr Index KEPT_COPY_BYTES = 1 << 22;
// Tiles added into a column sum in float before they are added to the double behind it.
constexpr int COL_SUM_TILES = 16;

// Memory that a thread keeps between calls. Its size has a bound, see the sums of the blocks.
inline ScratchBuffer& scratch_buffer(int which) {
  static thread_local ScratchBuffer buffers[6];
  return buffers[which];
}

template <class S>
S* scratch(int which, Index count) {
  return static_cast<S*>(scratch_buffer(which).at_least(count * Index(sizeof(S))));
}

// What packing an element of B costs, and what copying one of A, in lanes of multiply-adds. (The
// tile of vectors copies few operands; the matrix unit multiplies sixteen times as fast.)
template <class T>
constexpr Index PACK_COST = has_matrix_unit<T> ? 60 : VECTOR_PACK_COST;
template <class T>
constexpr Index COPY_COST = has_matrix_unit<T> ? 100 : 0;

// Whether the tile cannot, or should not, read a block of A with K elements along where it is.
template <class T>
bool needs_copy(const Matrix<const T>& a, Index K) {
  using P = typename Packed<T>::type;
  constexpr Index G = Packed<T>::group;
  if (has_matrix_unit<T>) return true;
  if (sizeof(T) * G != sizeof(P)) return true;  // must be widened
  if (G > 1) return a.col_stride != 1 || a.row_stride % G != 0 || K % G != 0;
  // Columns at a large power of two apart fall into the same sets of the cache.
  return a.row_stride == 1 && (a.col_stride * Index(sizeof(T))) % 4096 == 0 && a.col_stride != 0;
}

// One term to each sum, stored as it is: a gradient of weights for one sample.
template <class T>
bool is_outer_product(const Matmul<T>& p) {
  const bool plain = !p.row_bias && !p.col_bias && !p.relu && !p.mask && !p.row_sum && !p.col_sum;
  return p.K == 1 && plain && !p.resume && !p.suspend && !p.taker && !p.packed_b &&
         p.b.col_stride == 1;
}

template <class T>
void outer_product(const Matmul<T>& p, Range rows, Range cols) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  for (Index m = rows.begin; m < rows.end; ++m) {
    const S a = widen_one(p.a.data + m * p.a.row_stride);
    T* const c = p.c.data + m * p.c.row_stride;
    for (Index n = cols.begin; n < cols.end; n += L) {
      const int used = int(cols.end - n < L ? cols.end - n : L);
      narrow(c + n, Vec<S>{} + a * widen(p.b.data + n, used), used);  // 0 + -0 is 0
    }
  }
}

struct AmxRows;
struct PanelPart;
struct PanelSource;
class Ahead;

template <class T>
class BlockedMatmul {
  using S = Sum<T>;
  using P = typename Packed<T>::type;
  static constexpr int L = lanes<S>;
  static constexpr Index G = Packed<T>::group;
  static constexpr bool sums_fit_c = sizeof(T) == sizeof(S);

 public:
  BlockedMatmul(const Matmul<T>& problem, double* row_sum, double* col_sum)
      : p(problem), row_sum(row_sum), col_sum(col_sum) {}

  void run(Range rows, Range cols) {
    const Index room =
        (rows.size() + L * ceil_div(rows.size(), BLOCK_COPY_M)) * packed_depth<T>(p.K);
    keeps_copies = column_blocks<S>(cols.size()) > 1 && needs_copy(p.a, p.K) &&
                   room * Index(sizeof(P)) <= KEPT_COPY_BYTES;
    if (keeps_copies) copies = scratch<P>(4, room);
    streams = p.streams && are_streamed();
    for (Index block = 0; block < column_blocks<S>(cols.size()); ++block) {
      const Range c = column_block<S>(cols.size(), block);
      run_columns(rows, {cols.begin + c.begin, cols.begin + c.end});
      are_copied = keeps_copies;
    }
    if (streams) drain_streams();
  }

 private:
  void run_columns(Range rows, Range cols) {
    next_copy = 0;
    const Index width = ceil_div(cols.size(), L) * L;
    col_bias = nullptr;
    if (p.col_bias) {
      S* bias = scratch<S>(0, BLOCK_N<S>);
      for (Index n = 0; n < width; ++n) {
        const Index column = cols.begin + n;
        bias[n] = column < cols.end ? widen_one(p.col_bias.data + column * p.col_bias.stride) : 0;
      }
      col_bias = bias;
    }
    tile_col_sum = nullptr;
    if (col_sum) {
      tile_col_sum = scratch<S>(1, BLOCK_N<S>);
      for (Index n = 0; n < width; ++n) tile_col_sum[n] = 0;
    }
    const Index rows_in_all = p.rows_in_all != 0 ? p.rows_in_all : p.M;
    // By the product's rows and not by this thread's: the two ways sum in other orders, and C is to
    // have the same bits for any number of threads.
    if (are_few_rows<T>(rows_in_all, p.K) && p.a.col_stride == 1 && p.b.row_stride == 1 &&
        !p.packed_b) {
      run_few_rows(rows, cols);
      if (col_sum) flush_col_sum(cols, cols.begin);
      return;
    }
    if (is_b_used_in_place<T>(rows_in_all, p.K) && p.b.col_stride == 1 && !p.packed_b) {
      run_in_place(rows, cols);
      if (col_sum) flush_col_sum(cols, cols.begin);
      return;
    }
    if constexpr (has_matrix_unit<T>) {
      run_panels(rows, cols);
      return;
    }
    // Sums that do not fit C's type wait in float, if more than one block of K or call adds to
    // them; those that somebody takes in any case, since C holds something else.
    const bool several_blocks = p.K > BLOCK_K * G;
    const bool waits = p.taker || (!sums_fit_c && !p.partial && several_blocks);
    const Index step = waits && several_blocks ? BLOCK_PARTIAL_M : rows.size();
    for (Index m = rows.begin; m < rows.end; m += step) {
      run_rows({m, m + step < rows.end ? m + step : rows.end}, cols, waits);
    }
    if (col_sum) flush_col_sum(cols, cols.begin);
  }

  // Whether the vectors of C can be written past the caches: whole ones of full precision, each
  // once.
  bool are_streamed() const {
    const Index row = p.c.row_stride * Index(sizeof(T));
    const bool aligned = reinterpret_cast<std::uintptr_t>(p.c.data) % VECTOR_BYTES == 0;
    return sums_fit_c && depth_blocks<T>(p.K) == 1 && aligned && row % VECTOR_BYTES == 0;
  }

  // All of K and of the columns for a few rows, without a copy of anything.
  void run_few_rows(Range rows, Range cols) {
    use_partial(rows, cols, p.taker != nullptr);
    first_k_block = last_k_block = true;
    const Index heights = ceil_div(rows.size(), DOT_ROWS);
    for (Index n = cols.begin; n < cols.end; n += L) {
      for (Index height = 0; height < heights; ++height) {
        const Range r = part(rows.size(), heights, height);
        const Index m = rows.begin + r.begin, left = cols.end - n;
        TileStore<T> out = store_of_row(m);
        out.last_lanes = int(left < L ? left : L);
        point_at(out, m, n, cols.begin);
        few_rows_tiles<T>[r.size() - 1](p.K, p.a.data + m* p.a.row_stride, p.a.row_stride,
                                        p.b.data + n* p.b.col_stride, p.b.col_stride, out);
      }
    }
    hand_over(rows, cols);
  }

  // Likewise, a panel of B at a time.
  void run_in_place(Range rows, Range cols) {
    use_partial(rows, cols, p.taker != nullptr);
    first_k_block = last_k_block = true;
    const Index vectors = ceil_div(cols.size(), L), panels = ceil_div(vectors, MAX_NV);
    const Index heights = ceil_div(rows.size(), MAX_MR);
    const Matrix<const P> a = packed_rows(rows);
    for (Index panel = 0; panel < panels; ++panel) {
      const Range v = part(vectors, panels, panel);
      const Index n = cols.begin + v.begin * L, last = cols.end - (n + (v.size() - 1) * L);
      for (Index height = 0; height < heights; ++height) {
        const Range r = part(rows.size(), heights, height);
        const Index m = rows.begin + r.begin;
        TileStore<T> out = store_of_row(m);
        out.last_lanes = int(last < L ? last : L);
        point_at(out, m, n, cols.begin);
        in_place_tiles<T>.at[r.size() - 1][v.size() - 1](p.K, a.from_row(r.begin).data,
                                                         a.row_stride, a.col_stride, p.b.data + n,
                                                         p.b.row_stride, out);
      }
    }
    hand_over(rows, cols);
  }

  // A few rows of A in packed elements.
  Matrix<const P> packed_rows(Range rows) {
    const Matrix<const T> a = p.a.from_row(rows.begin);
    if constexpr (std::is_same_v<T, P>) {
      return a;
    } else {
      const Index room = ceil_div(rows.size(), L) * L * ceil_div(p.K, G);
      return pack_rows<T>(rows.size(), p.K, a, scratch<P>(3, room));
    }
  }

  // All of K for a block of C.
  void run_rows(Range rows, Range cols, bool waits) {
    const Index blocks = depth_blocks<T>(p.K);
    use_partial(rows, cols, waits);
    for (Index block = 0; block < blocks; ++block) {
      first_k_block = block == 0;
      last_k_block = block == blocks - 1;
      run_depth(rows, cols, depth_block<T>(p.K, block));
    }
  }

  // Where sums stay between blocks of K and between calls.
  void use_partial(Range rows, Range cols, bool waits) {
    partial_row = partial_col = 0;
    if (waits) {
      partial = {scratch<S>(2, BLOCK_PARTIAL_M * BLOCK_N<S>), BLOCK_N<S>, 1};
      partial_row = rows.begin;
      partial_col = cols.begin;
    } else if constexpr (sums_fit_c) {
      partial = {reinterpret_cast<S*>(p.c.data), p.c.row_stride, 1};
    } else {
      partial = p.partial;
    }
  }

  // One block of K: pack B, then walk the tiles.
  void run_depth(Range rows, Range cols, Range depth) {
    const Index K = depth.size();
    const Index groups = ceil_div(K, G);
    // The copy of A stands behind the block of B.
    const Index packed_size = BLOCK_K * BLOCK_N<S>;
    P* const own = scratch<P>(3, packed_size + BLOCK_K * BLOCK_COPY_M);
    const P* packed = own;
    if (p.packed_b) {
      packed = static_cast<const P*>(p.packed_b) + packed_offset<T>(p.K, cols, depth.begin);
    } else {
      pack_block<T>(K, cols.size(), Operand<T>{p.b}.from(depth.begin, cols.begin), own);
    }
    const Matrix<const T> a = {p.a.data + depth.begin * p.a.col_stride, p.a.row_stride,
                               p.a.col_stride};
    if (needs_copy(p.a, K)) {
      const Index blocks = ceil_div(ceil_div(rows.size(), L), BLOCK_COPY_M / L);
      for (Index block = 0; block < blocks; ++block) {
        const Range part = vector_part(rows.size(), L, blocks, block);
        const Range m = {rows.begin + part.begin, rows.begin + part.end};
        run_tiles(m, cols, groups, copy_of(m, a.from_row(m.begin), K, own + packed_size), packed);
      }
    } else if constexpr (sizeof(T) * G == sizeof(P)) {
      const T* first = a.from_row(rows.begin).data;
      const Matrix<const P> in_place = {reinterpret_cast<const P*>(first), a.row_stride / G,
                                        a.col_stride};
      run_tiles(rows, cols, groups, in_place, packed);
    }
  }

  // Of a block of A: the one that an earlier block of columns had, or a new one.
  Matrix<const P> copy_of(Range rows, Matrix<const T> a, Index K, P* room) {
    if (keeps_copies) {  // each block of columns comes by the same blocks of A in the same order
      room = copies + next_copy;
      next_copy += ceil_div(rows.size(), L) * L * ceil_div(K, G);
    }
    if (are_copied) return view_of_packed_rows<T>(rows.size(), K, a, room);
    return pack_rows<T>(rows.size(), K, a, room);
  }

  // K counts packed elements; a: the rows of A from rows.begin on.
  void run_tiles(Range rows, Range cols, Index K, Matrix<const P> a, const P* packed) {
    const Index vectors = ceil_div(cols.size(), L);
    const Index panels = ceil_div(vectors, MAX_NV);
    const Index heights = ceil_div(rows.size(), MAX_MR);
    for (Index height = 0; height < heights; ++height) {
      const Range r = part(rows.size(), heights, height);
      const Index m = rows.begin + r.begin;
      // With one block of K, what is taken at once waits in the same few rows each time.
      if (p.taker && first_k_block && last_k_block) use_partial({m, rows.end}, cols, true);
      TileStore<T> out = store_of_row(m);
      for (Index panel = 0; panel < panels; ++panel) {
        const Range v = part(vectors, panels, panel);
        const Index n = cols.begin + v.begin * L;
        const Index last = cols.end - (n + (v.size() - 1) * L);
        out.last_lanes = int(last < L ? last : L);
        point_at(out, m, n, cols.begin);
        prefetch_tile(out, r.size(), v.size());
        tiles<T>.at[r.size() - 1][v.size() - 1](K, a.data + r.begin * a.row_stride, a.row_stride,
                                                a.col_stride, packed + v.begin * L * K, out);
      }
      hand_over({m, m + r.size()}, cols);
      if (tile_col_sum && out.finish && height % COL_SUM_TILES == COL_SUM_TILES - 1) {
        flush_col_sum(cols, cols.begin);
      }
    }
  }

  // The sums of (m, n) where they wait.
  S* partial_at(Index m, Index n) const {
    return partial.from_row(m - partial_row).data + n - partial_col;
  }

  // Gives finished sums to the one who takes them, if somebody does.
  void hand_over(Range rows, Range cols) const {
    if (p.taker == nullptr || !last_k_block) return;
    p.taker->take(*p.taker, p.c.data + rows.begin * p.c.row_stride + cols.begin, p.c.row_stride,
                  rows.size(), cols.size(), partial_at(rows.begin, cols.begin), partial.row_stride);
  }

  // The part of a tile's store that is the same for all tiles from row m on.
  TileStore<T> store_of_row(Index m) const {
    TileStore<T> out = {};
    out.add_partial = !first_k_block || p.resume;
    out.finish = last_k_block && !p.suspend && !p.taker;
    out.streams = streams;
    out.partial_stride = partial.row_stride;
    out.c_stride = p.c.row_stride;
    out.row_bias = {p.row_bias ? p.row_bias.data + m * p.row_bias.stride : nullptr,
                    p.row_bias.stride};
    out.relu = p.relu;
    out.mask_stride = p.mask.row_stride;
    out.row_sum = row_sum ? row_sum + m : nullptr;
    return out;
  }

  // Sets the pointers of a tile at (m, n); what is kept per column begins at `begin`.
  void point_at(TileStore<T>& out, Index m, Index n, Index begin) const {
    out.partial = partial ? partial_at(m, n) : nullptr;
    out.c = p.c.data + m * p.c.row_stride + n;
    out.col_bias = col_bias ? col_bias + (n - begin) : nullptr;
    out.mask = p.mask ? p.mask.data + m * p.mask.row_stride + n : nullptr;
    out.col_sum = tile_col_sum ? tile_col_sum + (n - begin) : nullptr;
  }

  // What the store will write and read arrives while the tile multiplies. (Not in the tile itself,
  // where GCC 12 then spills in the loop over K.)
  static void prefetch_tile(const TileStore<T>& out, Index height, Index vectors) {
    for (Index i = 0; i < height; ++i) {
      for (Index j = 0; j < vectors; ++j) {
        __builtin_prefetch(out.c + i * out.c_stride + j * L, 1);
        if (out.mask) __builtin_prefetch(out.mask + i * out.mask_stride + j * L);
      }
    }
  }

  // Those of some columns; what is kept per column begins at `begin`.
  void flush_col_sum(Range cols, Index begin) {
    for (Index n = cols.begin; n < cols.end; ++n) {
      col_sum[n] += tile_col_sum[n - begin];
      tile_col_sum[n - begin] = 0;
    }
  }

  // With the matrix unit, see amx_panels.h.
  void run_panels(Range rows, Range cols);
  AmxRows amx_rows(Range rows, Range depth);
  PanelSource source_of(Range depth, const PanelPart& part, Range cols) const;
  void pack_part(const PanelSource& source, const PanelPart& part, P* to) const;
  void run_panel(Range rows, Range cols, const PanelPart& part, const AmxRows& a, const P* b,
                 S* sums, Ahead ahead);

  const Matmul<T>& p;
  double* row_sum;
  double* col_sum;
  S* col_bias = nullptr;
  S* tile_col_sum = nullptr;
  Matrix<S> partial;
  Index partial_row = 0, partial_col = 0;  // the element of C that `partial` begins with
  bool first_k_block = true, last_k_block = true;
  bool streams = false;
  bool keeps_copies = false, are_copied = false;  // of the blocks of A, for the next columns
  P* copies = nullptr;
  Index next_copy = 0;
};

template <class T>
void matmul_block(const Matmul<T>& problem, Range rows, Range cols, double* row_sum,
                  double* col_sum) {
  if (is_outer_product(problem)) return outer_product(problem, rows, cols);
  BlockedMatmul<T>(problem, row_sum, col_sum).run(rows, cols);
}
