// Memory that is kept between calls and grows on demand.
#include "scratch.h"

#include <cstdlib>
#include <new>

namespace twolayer {

namespace {
constexpr Index ALIGNMENT = 64;
}

ScratchBuffer::~ScratchBuffer() { std::free(data_); }

void* ScratchBuffer::at_least(Index bytes) {
  if (bytes > bytes_) {
    keep_at_most(0);
    const Index rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    data_ = std::aligned_alloc(ALIGNMENT, std::size_t(rounded));
    if (data_ == nullptr) throw std::bad_alloc();
    bytes_ = rounded;
  }
  return data_;
}

void ScratchBuffer::keep_at_most(Index bytes) {
  if (bytes_ <= bytes) return;
  std::free(data_);
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace twolayer
