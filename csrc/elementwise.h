// The passes that no matrix product can carry: masking a given gradient, sums over rows, and rows
// picked out by number.
//
// Included only by the kernels_*.cpp files, inside their namespace.

// Rows summed in float before the sum is added to the double behind it.
constexpr Index ROWS_PER_SUM = 16;

// col_sum += sums of up to ROWS_PER_SUM rows, over NV vectors of columns, the last one with
// `last_lanes` of them.
template <class T, int NV>
inline void add_rows(Index rows, const T* x, Index row_stride, int last_lanes, double* col_sum) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  Vec<S> sum[NV] = {};
  for (Index r = 0; r < rows; ++r) {
    for (int j = 0; j < NV; ++j) {
      sum[j] += widen(x + r * row_stride + j * L, j < NV - 1 ? L : last_lanes);
    }
  }
  for (int j = 0; j < NV; ++j) {
    for (int i = 0; i < (j < NV - 1 ? L : last_lanes); ++i) col_sum[j * L + i] += sum[j][i];
  }
}

template <class T>
void column_sums(Index rows, Index cols, Matrix<const T> x, double* col_sum) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  for (Index r = 0; r < rows; r += ROWS_PER_SUM) {
    const Index count = rows - r < ROWS_PER_SUM ? rows - r : ROWS_PER_SUM;
    const T* first = x.data + r * x.row_stride;
    if (x.col_stride == 1) {
      Index c = 0;
      for (; c + 4 * L <= cols; c += 4 * L) {
        add_rows<T, 4>(count, first + c, x.row_stride, L, col_sum + c);
      }
      for (; c < cols; c += L) {
        const int used = int(cols - c < L ? cols - c : L);
        add_rows<T, 1>(count, first + c, x.row_stride, used, col_sum + c);
      }
    } else {
      for (Index c = 0; c < cols; ++c) {
        S sum = 0;
        for (Index i = 0; i < count; ++i) {
          sum += widen_one(first + i * x.row_stride + c * x.col_stride);
        }
        col_sum[c] += sum;
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

template <class T>
void gather(const std::int64_t* numbers, Index rows, Index cols, Matrix<const T> from,
            Matrix<Sum<T>> to) {
  using S = Sum<T>;
  constexpr int L = lanes<S>;
  for (Index r = 0; r < rows; ++r) {
    const T* source = from.data + (numbers ? numbers[r] : r) * from.row_stride;
    S* target = to.data + r * to.row_stride;
    if (from.col_stride == 1 && to.col_stride == 1) {
      for (Index c = 0; c < cols; c += L) {
        const int n = int(cols - c < L ? cols - c : L);
        store_first(target + c, widen(source + c, n), n);
      }
    } else {
      for (Index c = 0; c < cols; ++c) {
        target[c * to.col_stride] = widen_one(source + c * from.col_stride);
      }
    }
  }
}
