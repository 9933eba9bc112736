// The passes that no matrix product can carry: masking a given gradient, and sums over rows.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Rows summed in float before the sum is added to the double behind it.
constexpr Index ROWS_PER_SUM = 16;

// One row from `x`, widened, into `row`.
template <class T>
inline void widen_row(const T* x, Index stride, Index cols, Sum<T>* row) {
  constexpr int L = lanes<Sum<T>>;
  if (stride == 1) {
    for (Index c = 0; c < cols; c += L) {
      const int n = int(cols - c < L ? cols - c : L);
      store_first(row + c, widen(x + c, n), n);
    }
  } else {
    for (Index c = 0; c < cols; ++c) row[c] = widen_one(x + c * stride);
  }
}

template <class T>
void column_sums(Index rows, Index cols, Matrix<const T> x, double* col_sum) {
  using S = Sum<T>;
  constexpr Index WIDTH = 256;
  for (Index begin = 0; begin < cols; begin += WIDTH) {
    const Index width = cols - begin < WIDTH ? cols - begin : WIDTH;
    S sum[WIDTH] = {}, row[WIDTH];
    for (Index r = 0; r < rows; ++r) {
      widen_row(x.data + r * x.row_stride + begin * x.col_stride, x.col_stride, width, row);
      for (Index c = 0; c < width; ++c) sum[c] += row[c];
      if (r % ROWS_PER_SUM == ROWS_PER_SUM - 1 || r == rows - 1) {
        for (Index c = 0; c < width; ++c) {
          col_sum[begin + c] += sum[c];
          sum[c] = 0;
        }
      }
    }
  }
}

template <class T>
void masked_copy(Index rows, Index cols, Matrix<const T> grad, Matrix<const T> a, Matrix<T> out,
                 double* col_sum) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  for (Index r = 0; r < rows; ++r) {
    const T* grad_row = grad.data + r * grad.row_stride;
    const T* a_row = a.data + r * a.row_stride;
    T* out_row = out.data + r * out.row_stride;
    if (grad.col_stride == 1 && a.col_stride == 1) {
      for (Index c = 0; c < cols; c += L) {
        const int n = int(cols - c < L ? cols - c : L);
        const Vec<S> masked = widen(a_row + c, n) <= 0 ? Vec<S>{} : widen(grad_row + c, n);
        narrow(out_row + c, masked, n);
      }
    } else {
      for (Index c = 0; c < cols; ++c) {
        const S value = widen_one(grad_row + c * grad.col_stride);
        narrow_one(out_row + c, widen_one(a_row + c * a.col_stride) <= 0 ? S(0) : value);
      }
    }
  }
  if (col_sum) column_sums<T>(rows, cols, out, col_sum);
}

template <class T>
void round_sums(Index size, const double* sums, T* out) {
  for (Index i = 0; i < size; ++i) narrow_one(out + i, Sum<T>(sums[i]));
}
