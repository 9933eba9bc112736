// The inner kernels of bfloat16 for AVX-512 with its bfloat16 products.
#define ISA_NAMESPACE avx512_bf16
#define ISA_BFLOAT16_ONLY
#define ISA_SUPPORTED __builtin_cpu_supports("avx512bf16")
#define VECTOR_BYTES 64
#include "instantiate.h"
