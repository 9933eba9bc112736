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
    mode.bits = _mm_getcsr() & ~std::uint64_t(0x3f);  // without the exceptions seen so far
#elif defined(__aarch64__)
    asm volatile("mrs %0, fpcr" : "=r"(mode.bits));
#endif
    return mode;
  }

  // Makes this the calling thread's mode.
  void enter() const {
    if (bits == current().bits) return;  // changing it is dear, reading it is not
#if defined(__x86_64__)
    _mm_setcsr(unsigned(bits));
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" : : "r"(bits));
#endif
  }

 private:
  std::uint64_t bits = 0;
};

}  // namespace twolayer
