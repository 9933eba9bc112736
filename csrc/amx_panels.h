// The loops around the tile of the matrix unit: panel by panel of B, a part of K at a time, each
// packed just before its use, while it is in L1; then all rows of A come by.
//
// Included only by kernels_amx.cpp, inside its namespace.

// Packed elements along K of a part: 32 KB of a panel. The less, the more of what a tile reads is
// in L1; the more, the more seldom sums leave the registers.
constexpr Index AMX_CACHED_K = 256;

// A panel's vectors among those of the columns, and its packed elements among those of the depth.
struct PanelPart {
  Range v, k;
};

// The parts of all panels, in the order in which they are computed.
struct PanelParts {
  Index vectors, depth;

  Index panels() const { return ceil_div(vectors, PANEL_VECTORS<bfloat16>); }
  Index per_panel() const { return depth == 0 ? 1 : ceil_div(depth, AMX_CACHED_K); }
  Index count() const { return panels() * per_panel(); }
  PanelPart at(Index i) const {
    const Index k = i % per_panel() * AMX_CACHED_K, end = k + AMX_CACHED_K;
    return {part(vectors, panels(), i / per_panel()), {k, end < depth ? end : depth}};
  }
};

// What of B a part is packed of.
struct PanelSource {
  Matrix<const bfloat16> b;
  Index K, columns;
};

// Its lines of memory, to be fetched a few at a time.
class Ahead {
 public:
  Ahead() = default;
  explicit Ahead(const PanelSource& s) {
    const bool in_rows = s.b.col_stride == 1;
    if (!in_rows && s.b.row_stride != 1) return;
    constexpr Index BYTES = sizeof(bfloat16);
    first = reinterpret_cast<const char*>(s.b.data);
    stride = (in_rows ? s.b.row_stride : s.b.col_stride) * BYTES;
    per_row = ceil_div((in_rows ? s.columns : s.K) * BYTES, LINE);
    left = per_row * (in_rows ? s.K : s.columns);
  }

  Index size() const { return left; }

  void fetch(Index count) {
    for (; count > 0 && left > 0; --count, --left) {
      __builtin_prefetch(first + line * LINE);
      if (++line == per_row) line = 0, first += stride;
    }
  }

 private:
  static constexpr Index LINE = 64;
  const char* first = nullptr;
  Index stride = 0, per_row = 0, line = 0, left = 0;
};

// Each sum is rounded as in a chain of 16 pairs and one more for each register along K, so no chain
// has to be set aside.
template <class T>
void BlockedMatmul<T>::run_panels(Range rows, Range cols) {
  const AmxRegisters registers;
  const Index blocks = depth_blocks<T>(p.K), vectors = ceil_div(cols.size(), L);
  const P* const whole = static_cast<const P*>(p.packed_b);
  P* const packed = whole ? nullptr : scratch<P>(3, BLOCK_K * BLOCK_N<S>);
  // Where more rows come by after the first ones, what is packed is kept for them.
  const bool keeps = !whole && blocks == 1 && rows.size() > BLOCK_PARTIAL_M;
  // Sums that go on in the next part of K: of all panels, or of the one that is at work.
  const Index panel_sums = BLOCK_PARTIAL_M * PANEL_VECTORS<T> * L;
  const bool waits = packed_depth<T>(p.K) > AMX_CACHED_K;
  const Index waiting = blocks > 1 ? PanelParts{vectors, 0}.panels() : 1;
  S* const sums = waits ? scratch<S>(5, waiting * panel_sums) : nullptr;
  for (Index m = rows.begin; m < rows.end; m += BLOCK_PARTIAL_M) {
    const Range chunk = {m, m + BLOCK_PARTIAL_M < rows.end ? m + BLOCK_PARTIAL_M : rows.end};
    const bool is_packed = whole || (keeps && m > rows.begin);
    use_partial(chunk, cols, p.taker != nullptr);
    for (Index block = 0; block < blocks; ++block) {
      const Range depth = depth_block<T>(p.K, block);
      const PanelParts parts = {vectors, packed_depth<T>(depth.size())};
      const AmxRows a = amx_rows(chunk, depth);
      const P* const b = whole ? whole + packed_offset<T>(p.K, cols, depth.begin) : packed;
      for (Index i = 0; i < parts.count(); ++i) {
        const PanelPart now = parts.at(i);
        const bool is_apart = whole || keeps;
        const Index at =
            is_apart ? L * (now.v.begin * parts.depth + now.v.size() * now.k.begin) : 0;
        Ahead ahead;
        if (!is_packed) {
          pack_part(source_of(depth, now, cols), now, packed + at);
          if (i + 1 < parts.count()) ahead = Ahead(source_of(depth, parts.at(i + 1), cols));
        }
        first_k_block = block == 0 && now.k.begin == 0;
        last_k_block = block == blocks - 1 && now.k.end == parts.depth;
        S* const of_panel = blocks > 1 ? sums + i / parts.per_panel() * panel_sums : sums;
        run_panel(chunk, cols, now, a.from(0, now.k.begin), b + at, of_panel, ahead);
      }
    }
    hand_over(chunk, cols);
  }
}

// A copy of some rows of A, which the next columns find again where there is room for all.
template <class T>
AmxRows BlockedMatmul<T>::amx_rows(Range rows, Range depth) {
  const Index M = rows.size(), K = depth.size(), size = amx_copy_size(M, K);
  P* const copy = keeps_copies ? copies + next_copy : scratch<P>(4, size);
  next_copy += size;
  if (!are_copied) {
    const T* const first = p.a.data + rows.begin * p.a.row_stride + depth.begin * p.a.col_stride;
    copy_for_amx(M, K, {first, p.a.row_stride, p.a.col_stride}, copy);
  }
  return view_of_amx_copy(K, copy);
}

template <class T>
PanelSource BlockedMatmul<T>::source_of(Range depth, const PanelPart& part, Range cols) const {
  const Index k = depth.begin + part.k.begin * Packed<T>::group;
  const Index end = depth.begin + part.k.end * Packed<T>::group;
  const Index n = part.v.begin * L, left = cols.size() - n, width = part.v.size() * L;
  const T* const first = p.b.data + k * p.b.row_stride + (cols.begin + n) * p.b.col_stride;
  return {{first, p.b.row_stride, p.b.col_stride},
          (end < depth.end ? end : depth.end) - k,
          left < width ? left : width};
}

template <class T>
void BlockedMatmul<T>::pack_part(const PanelSource& source, const PanelPart& part, P* to) const {
  const Index width = part.v.size() * L, filled = ceil_div(source.K, Packed<T>::group);
  if (source.b.col_stride == 1 && source.columns == 2 * L && source.K % Packed<T>::group == 0) {
    pack_whole_panel(source.K, source.b.data, source.b.row_stride, to);
  } else {
    pack_panel<T>(source.K, source.columns, width, Operand<T>{source.b}, to);
  }
  for (Index i = filled * width; i < part.k.size() * width; ++i) to[i] = 0;
}

// All rows beside a part of a panel; `sums`: those that go on.
template <class T>
void BlockedMatmul<T>::run_panel(Range rows, Range cols, const PanelPart& part, const AmxRows& a,
                                 const P* b, S* sums, Ahead ahead) {
  constexpr Index TILE = 4 * AMX_ELEMENTS;
  constexpr int FLUSHED = 2;  // heights added into a column sum in float
  const Index width = part.v.size(), K = part.k.size();
  const Index n = cols.begin + part.v.begin * L, last = cols.end - (n + (width - 1) * L);
  const Index end = n + width * L < cols.end ? n + width * L : cols.end;
  const Index fetched = ceil_div(ahead.size(), ceil_div(rows.size(), AMX_TILE_ROWS));
  for (Index begin = 0; begin < rows.size(); begin += AMX_TILE_ROWS, sums += sums ? TILE : 0) {
    const Index left = rows.size() - begin, height = left < AMX_TILE_ROWS ? left : AMX_TILE_ROWS;
    const S* const from = first_k_block ? nullptr : sums;
    ahead.fetch(fetched);
    if (!last_k_block) {
      amx_sums(height, width, K, a.from(begin, 0), b, from, sums);
      continue;
    }
    const Index m = rows.begin + begin;
    TileStore<T> out = store_of_row(m);
    out.add_partial = p.resume;
    out.last_lanes = int(last < L ? last : L);
    point_at(out, m, n, cols.begin);
    for (Index i = 0; i < height; ++i) {
      __builtin_prefetch(out.c + i * out.c_stride, 1);
      if (out.mask) __builtin_prefetch(out.mask + i * out.mask_stride);
    }
    alignas(VECTOR_BYTES) S finished[TILE];
    amx_sums(height, width, K, a.from(begin, 0), b, from, finished);
    store_amx_tile(height, width, finished, out);
    const bool flushes = begin / AMX_TILE_ROWS % FLUSHED == FLUSHED - 1 || left <= AMX_TILE_ROWS;
    if (tile_col_sum && out.finish && flushes) flush_col_sum({n, end}, cols.begin);
  }
}
