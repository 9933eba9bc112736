// The inner kernels for AVX2 with FMA and F16C.
#define ISA_NAMESPACE avx2
#define ISA_SUPPORTED                                                 \
  (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && \
   __builtin_cpu_supports("f16c"))
#define VECTOR_BYTES 32
#include "instantiate.h"
