// The inner kernels for AVX-512 with its bfloat16 products; the other dtypes as in avx512.
#define ISA_NAMESPACE avx512_bf16
#define ISA_SUPPORTED                                                          \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&  \
   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && \
   __builtin_cpu_supports("avx512bf16"))
#define VECTOR_BYTES 64
#include "instantiate.h"
