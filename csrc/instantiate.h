// The body of each kernels_*.cpp: the inner kernels for one instruction set, in its namespace.
//
// The file that includes this one defines ISA_NAMESPACE, ISA_SUPPORTED and VECTOR_BYTES, and
// setup.py compiles it with that instruction set's flags.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cmath>
#include <type_traits>

#include "kernels.h"
#include "parts.h"
#include "scratch.h"

namespace twolayer {
namespace ISA_NAMESPACE {
namespace {

#include "simd.h"

#include "microkernel.h"

#include "pack.h"

#include "few_rows.h"

#include "in_place.h"

#include "matmul_block.h"

#include "elementwise.h"

#include "fma_rounds.h"

#include "training/vector_math.h"

#include "training/optimizers.h"

#include "training/losses.h"

bool supported() { return ISA_SUPPORTED; }

template <class T>
constexpr KernelsOf<T> kernels_of() {
  return {lanes<Sum<T>>,
          &matmul_block<T>,
          &are_few_rows<T>,
          &is_b_used_in_place<T>,
          &packed_bytes<T>,
          &pack_operand<T>,
          &masked_copy<T>,
          &column_sums<T>,
          &fma_rounds<T>,
          &round_sums<T>,
          &gather<T>,
          optimizers<T>,
          sizeof(optimizers<T>) / sizeof(optimizers<T>[0]),
          losses<T>,
          sizeof(losses<T>) / sizeof(losses<T>[0])};
}

#define STRING_OF(name) #name
#define NAME_OF(name) STRING_OF(name)

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {
    NAME_OF(ISA_NAMESPACE), &supported,
    kernels_of<float>(),    kernels_of<double>(),
    kernels_of<bfloat16>(), kernels_of<float16>(),
};

}  // namespace ISA_NAMESPACE
}  // namespace twolayer
