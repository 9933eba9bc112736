// Preloaded into a Python process: counts what code in one range of addresses allocates.
#include <cstddef>
#include <cstdint>
#include <new>

extern "C" {

void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

static std::uintptr_t range_begin, range_end;
static long count;

static void note(void* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  if (address >= range_begin && address < range_end) ++count;
}

void count_allocations_of(std::uintptr_t begin, std::uintptr_t end) {
  range_begin = begin;
  range_end = end;
  count = 0;
}

long allocations_counted() { return count; }

void* malloc(std::size_t size) {
  note(__builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(std::size_t number, std::size_t size) {
  note(__builtin_return_address(0));
  return __libc_calloc(number, size);
}
void* realloc(void* memory, std::size_t size) {
  note(__builtin_return_address(0));
  return __libc_realloc(memory, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note(__builtin_return_address(0));
  return __libc_memalign(alignment, size);
}

}  // extern "C"

void* operator new(std::size_t size) {
  note(__builtin_return_address(0));
  return __libc_malloc(size);
}
