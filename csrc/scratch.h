// Memory that is kept between calls and grows on demand.
#pragma once

#include "types.h"

namespace twolayer {

// Aligned to a cache line. Out of line, so that one copy serves every instruction set.
class ScratchBuffer {
 public:
  ScratchBuffer() = default;
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;
  ~ScratchBuffer();

  // Room for `bytes`; earlier contents may be gone. Throws std::bad_alloc.
  void* at_least(Index bytes);

  // What at_least() returned last.
  template <class T>
  T* data() const {
    return static_cast<T*>(data_);
  }

  // Gives the memory back where it is more than `bytes`.
  void keep_at_most(Index bytes);

 private:
  void* data_ = nullptr;
  Index bytes_ = 0;
};

}  // namespace twolayer
