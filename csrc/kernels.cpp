// The choice of an instruction set at run time.
#include "kernels.h"

#include <cstdlib>
#include <stdexcept>

namespace twolayer {

#define WITH_ALL_TYPES(isa)              \
  namespace isa {                        \
  bool supported();                      \
  extern const KernelsOf<float> f32;     \
  extern const KernelsOf<double> f64;    \
  extern const KernelsOf<bfloat16> bf16; \
  extern const KernelsOf<float16> f16;   \
  }
#define WITH_BFLOAT16_ONLY(isa)          \
  namespace isa {                        \
  bool supported();                      \
  extern const KernelsOf<bfloat16> bf16; \
  }

#if defined(__x86_64__)
WITH_BFLOAT16_ONLY(amx)
WITH_BFLOAT16_ONLY(avx512_bf16)
WITH_ALL_TYPES(avx512)
WITH_ALL_TYPES(avx2)
#endif
WITH_ALL_TYPES(baseline)

namespace {

#define ALL_OF(isa) isa::f32, isa::f64, isa::bf16, isa::f16
#if defined(__x86_64__)
#define AVX512_WITH(isa) avx512::f32, avx512::f64, isa::bf16, avx512::f16

bool has_avx512_bf16() { return avx512::supported() && avx512_bf16::supported(); }
bool has_amx() { return has_avx512_bf16() && amx::supported(); }
#endif

const Kernels best_first[] = {
#if defined(__x86_64__)
    {"amx", &has_amx, AVX512_WITH(amx)},
    {"avx512_bf16", &has_avx512_bf16, AVX512_WITH(avx512_bf16)},
    {"avx512", &avx512::supported, ALL_OF(avx512)},
    {"avx2", &avx2::supported, ALL_OF(avx2)},
#endif
    {"baseline", &baseline::supported, ALL_OF(baseline)},
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Kernels& choose() {
  const char* wanted = std::getenv("TWOLAYER_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  for (const Kernels& candidate : best_first) {
    if ((any || std::string(wanted) == candidate.name) && candidate.supported()) return candidate;
  }
  throw std::runtime_error("TWOLAYER_ISA must be one of " + joined(instruction_sets()) +
                           " on this machine, got '" + wanted + "'");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels& candidate : best_first) {
    if (candidate.supported()) names.emplace_back(candidate.name);
  }
  return names;
}

}  // namespace twolayer
