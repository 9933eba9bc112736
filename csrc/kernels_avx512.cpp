// The inner kernels for AVX-512 (F, BW, DQ, VL).
#define ISA_NAMESPACE avx512
#define ISA_SUPPORTED                                                         \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && \
   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
#define VECTOR_BYTES 64
#include "instantiate.h"
