// Copies of operands in the order in which the tile reads them, widened to the type of the sums.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// A panel of B: K x width (a multiple of the lanes), adjacent; columns from `columns` on are zero.
template <class T>
void pack_panel(Index K, Index columns, Index width, Matrix<const T> b, Sum<T>* panel) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  if (b.col_stride == 1) {
    for (Index k = 0; k < K; ++k) {
      const T* row = b.data + k * b.row_stride;
      for (Index n = 0; n < width; n += L) {
        const Index left = columns - n;
        store(panel + k * width + n, widen(row + n, int(left < L ? left : L)));
      }
    }
    return;
  }
  if (b.row_stride == 1) {  // each column of B is adjacent in memory: transpose squares
    for (Index n = 0; n < width; n += L) {
      for (Index k = 0; k < K; k += L) {
        const int used_k = int(K - k < L ? K - k : L);
        Vec<S> square[L];
#pragma GCC unroll 16
        for (int j = 0; j < L; ++j) {
          square[j] =
              n + j < columns ? widen(b.data + (n + j) * b.col_stride + k, used_k) : Vec<S>{};
        }
        transpose<S>(square);
        S* target = panel + k * width + n;
        if (used_k == L) {
#pragma GCC unroll 16
          for (int i = 0; i < L; ++i) store(target + i * width, square[i]);
        } else {
          for (int i = 0; i < used_k; ++i) store(target + i * width, square[i]);
        }
      }
    }
    return;
  }
  for (Index k = 0; k < K; ++k) {
    const T* row = b.data + k * b.row_stride;
    for (Index n = 0; n < width; ++n) {
      panel[k * width + n] = n < columns ? widen_one(row + n * b.col_stride) : S(0);
    }
  }
}

// A block of A (M x K), kept along its unit stride. Returns the view of the copy.
template <class T>
Matrix<const Sum<T>> pack_rows(Index M, Index K, Matrix<const T> a, Sum<T>* copy) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  const bool along_m = a.row_stride == 1;
  const Matrix<const T> source = along_m ? a.transposed() : a;
  const Index rows = along_m ? K : M;
  const Index cols = along_m ? M : K;
  for (Index r = 0; r < rows; ++r) {
    const T* row = source.data + r * source.row_stride;
    S* target = copy + r * cols;
    if (source.col_stride == 1) {
      Index c = 0;
      for (; c + L <= cols; c += L) store(target + c, widen(row + c, L));
      if (c < cols) store_first(target + c, widen(row + c, int(cols - c)), int(cols - c));
    } else {
      for (Index c = 0; c < cols; ++c) target[c] = widen_one(row + c * source.col_stride);
    }
  }
  const Matrix<const S> view = {copy, cols, 1};
  return along_m ? view.transposed() : view;
}
