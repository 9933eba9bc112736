// The inner kernels for what every machine of the architecture has (SSE2 on x86-64).
#define ISA_NAMESPACE baseline
#define ISA_SUPPORTED true
#define VECTOR_BYTES 16
#include "instantiate.h"
