// The body of each kernels_*.cpp: the inner kernels for one instruction set, in its namespace.
//
// The file that includes this one defines ISA_NAMESPACE, ISA_SUPPORTED and VECTOR_BYTES, and
// ISA_BFLOAT16_ONLY where the other types have nothing to win; setup.py compiles it with that
// instruction set's flags.

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

#if defined(__AMX_BF16__)
#include "amx.h"
#endif

#include "blocks.h"

#include "matmul_block.h"

#if defined(__AMX_BF16__)
#include "amx_panels.h"
#endif

#include "elementwise.h"

#include "fma_rounds.h"

#include "training/vector_math.h"

#include "training/optimizers.h"

#include "training/losses.h"

template <class T>
constexpr KernelsOf<T> kernels_of() {
  return {lanes<Sum<T>>,
          PACK_COST<T>,
          COPY_COST<T>,
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

}  // namespace

bool supported();
bool supported() { return ISA_SUPPORTED; }

#define EXPORT_KERNELS(T, name)   \
  extern const KernelsOf<T> name; \
  const KernelsOf<T> name = kernels_of<T>();

EXPORT_KERNELS(bfloat16, bf16)
#if !defined(ISA_BFLOAT16_ONLY)
EXPORT_KERNELS(float, f32)
EXPORT_KERNELS(double, f64)
EXPORT_KERNELS(float16, f16)
#endif

}  // namespace ISA_NAMESPACE
}  // namespace twolayer
