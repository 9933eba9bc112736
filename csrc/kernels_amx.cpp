// The inner kernels of bfloat16 for AVX-512 with its bfloat16 products and AMX's.
#include "tile_registers.h"

#define ISA_NAMESPACE amx
#define ISA_BFLOAT16_ONLY
#define ISA_SUPPORTED may_use_tile_registers()
#define VECTOR_BYTES 64
#include "instantiate.h"
