// How sizes are cut into parts of nearly equal size.
//
// Of internal linkage: each instruction set compiles its own.
#pragma once

#include "types.h"

namespace twolayer {

static inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// The larger parts come last, so that a last vector that is not full is in one of them.
static inline Range part(Index size, Index count, Index index) {
  const Index base = size / count, first_larger = count - size % count;
  const Index begin = index * base + (index > first_larger ? index - first_larger : 0);
  return {begin, begin + base + (index >= first_larger)};
}

// Parts of whole vectors, but for the last one's end.
static inline Range vector_part(Index size, Index lanes, Index count, Index index) {
  const Range vectors = part(ceil_div(size, lanes), count, index);
  const Index begin = vectors.begin * lanes, end = vectors.end * lanes;
  return {begin < size ? begin : size, end < size ? end : size};
}

}  // namespace twolayer
