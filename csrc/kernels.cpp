// The choice of an instruction set at run time.
#include "kernels.h"

#include <cstdlib>
#include <stdexcept>

namespace twolayer {

#if defined(__x86_64__)
namespace avx512_bf16 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#endif
namespace baseline {
extern const Kernels kernels;
}

namespace {

const Kernels* const best_first[] = {
#if defined(__x86_64__)
    &avx512_bf16::kernels,
    &avx512::kernels,
    &avx2::kernels,
#endif
    &baseline::kernels,
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const Kernels& choose() {
  const char* wanted = std::getenv("TWOLAYER_ISA");
  const bool any = wanted == nullptr || *wanted == '\0';
  for (const Kernels* candidate : best_first) {
    if (candidate->supported() && (any || std::string(wanted) == candidate->name)) {
      return *candidate;
    }
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
  for (const Kernels* candidate : best_first) {
    if (candidate->supported()) names.emplace_back(candidate->name);
  }
  return names;
}

}  // namespace twolayer
