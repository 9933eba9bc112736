// The contracts of the network's kernels: pointers, sizes and strides of every argument.
//
//   a = relu(x w1^T + b1)        y = a w2^T + b2
//   dh = (dy w2) * (a > 0)       dx = dh w1
//   dw2 = dy^T a, db2 = sum dy   dw1 = dh^T x, db1 = sum dh
//
// Inputs may have any strides; results are adjacent in memory, row after row, unless a stride is
// given. A null pointer stands for a bias that is not there or a result that is not wanted, which
// is then not computed. Any size may be zero.
#pragma once

#include "types.h"

namespace twolayer {

struct Shape {
  Index batch, in_features, hidden_features, out_features;
};

template <class T>
struct LinearReluForward {
  Index batch, in_features, out_features;
  Matrix<const T> x;  // batch x in_features
  Matrix<const T> w;  // out_features x in_features
  Vector<const T> b;  // out_features
  Matrix<T> a;        // batch x out_features, one of its strides 1
};

template <class T>
struct LinearReluBackward {
  Index batch, in_features, out_features;
  Matrix<const T> grad_a;  // batch x out_features
  Matrix<const T> x, w;    // as above
  Matrix<const T> a;       // batch x out_features
  T* grad_x;               // batch x in_features
  T* grad_w;               // out_features x in_features
  T* grad_b;               // out_features
};

template <class T>
struct TwoLayerForward {
  Shape shape;
  Matrix<const T> x;   // batch x in_features
  Matrix<const T> w1;  // hidden_features x in_features
  Matrix<const T> w2;  // out_features x hidden_features
  Vector<const T> b1;  // hidden_features
  Vector<const T> b2;  // out_features
  Matrix<T> a;         // batch x hidden_features, one of its strides 1; null: not kept
  T* y;                // batch x out_features
};

template <class T>
struct TwoLayerBackward {
  Shape shape;
  Matrix<const T> grad_y;     // batch x out_features
  Matrix<const T> x, w1, w2;  // as above
  Vector<const T> b1;         // used only where `a` is null
  Matrix<const T> a;          // as above; null: computed again, in pieces that fit the cache
  T* grad_x;                  // batch x in_features
  T* grad_w1;                 // hidden_features x in_features
  T* grad_w2;                 // out_features x hidden_features
  T* grad_b1;                 // hidden_features
  T* grad_b2;                 // out_features
};

template <class T>
void linear_relu_forward(const LinearReluForward<T>&, int threads);
template <class T>
void linear_relu_backward(const LinearReluBackward<T>&, int threads);
template <class T>
void two_layer_forward(const TwoLayerForward<T>&, int threads);
template <class T>
void two_layer_backward(const TwoLayerBackward<T>&, int threads);

// How A and B of a product lie: both adjacent along K, or B along its rows, or otherwise.
enum class Operands { along_k, b_in_rows, others };

// What a product costs, in multiply-adds of which unused lanes count too. C is adjacent along rows.
template <class T>
Index product_cost(Index M, Index N, Index K, Operands operands);

// Whether the activation is better kept with its features first, that is with the samples adjacent
// in memory; `backward`: whether a backward will read it.
template <class T>
bool features_first(const Shape& shape, bool backward);

}  // namespace twolayer
