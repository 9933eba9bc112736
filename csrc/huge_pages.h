// Large results on large pages.
#pragma once

#include "types.h"

namespace twolayer {

// Asks for huge pages where a result of some megabytes lies, as NumPy does for its arrays: fresh
// memory costs a fault for each page, which takes longer than writing it. No harm where the memory
// is not fresh, or the system has no such pages.
void prefer_huge_pages(const void* data, Index bytes);

}  // namespace twolayer
