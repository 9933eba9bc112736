// Large results on large pages.
#include "huge_pages.h"

#include <cerrno>

#include "parts.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace twolayer {

namespace {

constexpr Index LARGE = Index(1) << 22, PAGE = Index(1) << 21;

}  // namespace

void prefer_huge_pages(const void* data, Index bytes) {
#if defined(MADV_HUGEPAGE)
  if (data == nullptr || bytes < LARGE) return;
  const Index address = reinterpret_cast<std::intptr_t>(data);
  const Index begin = ceil_div(address, PAGE) * PAGE, end = (address + bytes) / PAGE * PAGE;
  const int before = errno;
  madvise(reinterpret_cast<void*>(begin), std::size_t(end - begin), MADV_HUGEPAGE);
  errno = before;
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace twolayer
