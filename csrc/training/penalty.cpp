// The sums of squares that no update brings.
#include "penalty.h"

#include <cmath>
#include <vector>

#include "../kernels.h"

namespace twolayer {

namespace {

// Calls use(row) with the values of each row, as numbers of the sums' type, until it says false.
template <class T, class Use>
bool for_rows(Matrix<T> weight, Index rows, Index cols, Use use) {
  const KernelsOf<T>& kernel = kernels().of<T>();
  std::vector<Sum<T>> row(cols);
  for (Index r = 0; r < rows; ++r) {
    kernel.gather(nullptr, 1, cols, weight.from_row(r), {row.data(), cols, 1});
    if (!use(row)) return false;
  }
  return true;
}

template <class T>
double sum_of_squares(Matrix<T> weight, Index rows, Index cols) {
  double total = 0;
  for_rows(weight, rows, cols, [&](const std::vector<Sum<T>>& row) {
    for (const Sum<T> value : row) total += double(value) * double(value);
    return true;
  });
  return total;
}

}  // namespace

template <class T>
bool has_finite_squares(Matrix<T> weight, Index rows, Index cols) {
  return for_rows(weight, rows, cols, [](const std::vector<Sum<T>>& row) {
    Sum<T> sum = 0;
    for (const Sum<T> value : row) sum += value * value;
    return std::isfinite(sum);
  });
}

template <class T>
void Penalty<T>::begin_run() {
  frozen_squares = 0;
  last_squares = std::numeric_limits<double>::infinity();
  for (const int which : {W1, W2}) {
    const Parameter<T>& p = plan.parameters[which];
    if (plan.penalty == 0 || p.moves) continue;
    frozen_squares +=
        sum_of_squares(p.values, which == W1 ? plan.hidden_features : plan.out_features,
                       which == W1 ? plan.in_features : plan.hidden_features);
  }
}

template bool has_finite_squares(Matrix<float>, Index, Index);
template bool has_finite_squares(Matrix<double>, Index, Index);
template bool has_finite_squares(Matrix<bfloat16>, Index, Index);
template bool has_finite_squares(Matrix<float16>, Index, Index);

template class Penalty<float>;
template class Penalty<double>;
template class Penalty<bfloat16>;
template class Penalty<float16>;

}  // namespace twolayer
