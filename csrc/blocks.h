// How operands are cut into blocks that fit the caches, and B packed in them.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// B is packed into blocks of BLOCK_K x BLOCK_N (512 KB, half of a 1 MB L2); a tile's rows of A
// (6 x 512 floats, 12 KB) stay in L1 while it walks along the block. BLOCK_K counts packed
// elements.
constexpr Index BLOCK_K = 512;
template <class S>
constexpr Index BLOCK_N = 1024 / sizeof(S);

// Columns of B, or of C, that are packed and walked together; in whole vectors but for the last.
template <class S>
Index column_blocks(Index columns) {
  return ceil_div(ceil_div(columns, lanes<S>), BLOCK_N<S> / lanes<S>);
}

template <class S>
Range column_block(Index columns, Index index) {
  return vector_part(columns, lanes<S>, column_blocks<S>(columns), index);
}

// Packed elements along K of an operand with so many terms.
template <class T>
Index packed_depth(Index K) {
  constexpr Index STEP = DEPTH_STEP<T>;
  return ceil_div(K, STEP) * (STEP / Packed<T>::group);
}

// Terms of the sums that are packed together, in whole steps but for the last.
template <class T>
Index depth_blocks(Index K) {
  return K == 0 ? 1 : ceil_div(packed_depth<T>(K), BLOCK_K);
}

template <class T>
Range depth_block(Index K, Index index) {
  return vector_part(K, DEPTH_STEP<T>, depth_blocks<T>(K), index);
}

// A block of B, K x columns, in panels as wide as a tile.
template <class T>
void pack_block(Index K, Index columns, const Operand<T>& b, typename Packed<T>::type* packed) {
  constexpr int L = lanes<Sum<T>>;
  const Index vectors = ceil_div(columns, L), panels = ceil_div(vectors, PANEL_VECTORS<T>);
  const Index depth = packed_depth<T>(K), filled = ceil_div(K, Packed<T>::group);
  for (Index panel = 0; panel < panels; ++panel) {
    const Range v = part(vectors, panels, panel);
    const Index n = v.begin * L, width = v.size() * L, left = columns - n;
    auto* const to = packed + n * depth;
    pack_panel<T>(K, left < width ? left : width, width, b.from(0, n), to);
    for (Index i = filled * width; i < depth * width; ++i) to[i] = 0;
  }
}

// Where in an operand packed whole a block begins: the blocks of one range of columns stand
// together.
template <class T>
Index packed_offset(Index K, Range cols, Index first_term) {
  constexpr int L = lanes<Sum<T>>;
  const Index before = first_term / Packed<T>::group;
  return cols.begin * packed_depth<T>(K) + ceil_div(cols.size(), L) * L * before;
}

template <class T>
Index packed_bytes(Index K, Index N) {
  constexpr int L = lanes<Sum<T>>;
  return ceil_div(N, L) * L * packed_depth<T>(K) * Index(sizeof(typename Packed<T>::type));
}

template <class T>
void pack_operand(Index K, Index N, const Operand<T>& b, void* to) {
  auto* packed = static_cast<typename Packed<T>::type*>(to);
  for (Index i = 0; i < column_blocks<Sum<T>>(N); ++i) {
    const Range cols = column_block<Sum<T>>(N, i);
    for (Index j = 0; j < depth_blocks<T>(K); ++j) {
      const Range depth = depth_block<T>(K, j);
      pack_block<T>(depth.size(), cols.size(), b.from(depth.begin, cols.begin),
                    packed + packed_offset<T>(K, cols, depth.begin));
    }
  }
}
