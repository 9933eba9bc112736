// The element types and the views that every room of csrc speaks in.
#pragma once

#include <cstdint>

namespace twolayer {

using Index = std::int64_t;

// Storage only: values are computed with in float.
struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

// The type that products of a storage type are summed in.
template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;

// Strides count elements and may be zero or negative.
template <class T>
struct Matrix {
  T* data = nullptr;
  Index row_stride = 0;
  Index col_stride = 0;

  explicit operator bool() const { return data != nullptr; }
  Matrix transposed() const { return {data, col_stride, row_stride}; }
  Matrix from_row(Index row) const { return {data + row * row_stride, row_stride, col_stride}; }
  operator Matrix<const T>() const { return {data, row_stride, col_stride}; }
};

template <class T>
struct Vector {
  T* data = nullptr;
  Index stride = 0;

  explicit operator bool() const { return data != nullptr; }
};

struct Range {
  Index begin = 0;
  Index end = 0;

  Index size() const { return end - begin; }
};

}  // namespace twolayer
