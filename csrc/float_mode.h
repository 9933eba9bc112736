// How a thread rounds, and whether it flushes subnormal numbers to zero.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace twolayer {

// Each thread has a mode of its own; parts of one piece of work must all run in their caller's.
class FloatMode {
 public:
  static FloatMode current() {
    FloatMode mode;
#if defined(__x86_64__)
    mode.bits = _mm_getcsr() & ~0x3fu;  // without the exceptions seen so far
#elif defined(__aarch64__)
    std::uint64_t fpcr;
    asm volatile("mrs %0, fpcr" : "=r"(fpcr));
    mode.bits = std::uint32_t(fpcr);
#endif
    return mode;
  }

  // Makes this the calling thread's mode.
  void enter() const {
    if (bits == current().bits) return;  // changing it is dear, reading it is not
#if defined(__x86_64__)
    _mm_setcsr(bits);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t(bits)));
#endif
  }

 private:
  std::uint32_t bits = 0;
};

}  // namespace twolayer
