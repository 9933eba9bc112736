#include "tile_registers.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace twolayer {

#if defined(__x86_64__) && defined(__linux__)
namespace {

bool has_products() {
  constexpr unsigned AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24;  // leaf 7, EDX
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  return (edx & AMX_BF16) && (edx & AMX_TILE);
}

bool is_permitted() {
  // Linux's arch_prctl(2): what it asks for by this name, and the number of the registers'
  // contents.
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

}  // namespace

bool may_use_tile_registers() {
  static const bool may = has_products() && is_permitted();
  return may;
}
#else
bool may_use_tile_registers() { return false; }
#endif

}  // namespace twolayer
