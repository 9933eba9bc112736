// Where a caller lays out the parts of its work, and whoever is there claims them.
#pragma once

#include <atomic>
#include <exception>

#include "float_mode.h"
#include "types.h"

namespace twolayer {

// A function of the part, behind pointers.
struct Work {
  void (*call)(void* fn, Index part) = nullptr;
  void* fn = nullptr;
};

// Nanoseconds on a steady clock.
Index now();

// Tells the processor that this thread waits in a loop.
inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while `word` holds `value`, or wakes up for no reason.
void sleep_while(std::atomic<int>& word, int value);
// Wakes whoever sleeps on `word`.
void wake(std::atomic<int>& word);

// Gives the processor away where others want it, but not more often than this thread has run for
// about a millisecond: the scheduler then takes it away between two parts and not inside one.
class Yielding {
 public:
  void between_parts();
  void has_slept() { since = now(); }

 private:
  Index since = now();
};

// The parts of one piece of work at a time. Each is a bit that a thread clears to claim the part,
// so nobody waits for a thread that comes late; it finds nothing to claim, or parts of the next
// work. Only claimed parts are waited for.
class alignas(64) Board {
 public:
  // Lays out `parts` of `work`, to be followed by finish(); `error` gets an exception of a part.
  void lay_out(Index parts, Work work, std::exception_ptr& error);

  // Claims and runs what is left, then waits for what others hold. Called by whoever laid out.
  void finish();

  // Claims and runs a part, thread `own`'s if it is still there; whether there was one.
  bool serve(Index own);

  bool anything_left() const;

  // Moves the calling thread away where the one that laid out is on the same processor.
  void make_way() const;

  // No parts, as in the beginning: for the child of a fork.
  void clear();

  // Nanoseconds that finish() has waited for others.
  Index waited() const { return waited_; }

 private:
  static constexpr int WORDS = 4, BITS = 64;

  Index claim(Index own);
  void run(Index unit);
  void wait_for(int count);

  // What a thread reads to find and begin a part, in one line: each line that another processor has
  // written may take long to read.
  struct alignas(64) Notice {
    std::atomic<std::uint64_t> left[WORDS] = {};
    Work work;
    std::int32_t parts = 0, units = 0;  // a unit is one part, or several neighbours of many
    FloatMode mode;
    std::atomic<std::int32_t> processor{-1};  // of the one that laid out
  } notice;
  static_assert(sizeof(Notice) == 64);
  alignas(64) std::atomic<int> done{0};  // units that others than the caller have run
  std::atomic<bool> caller_sleeps{false};
  alignas(64) std::exception_ptr* error = nullptr;
  std::atomic<bool> failed{false};
  Index waited_ = 0;
};

// Whether the calling thread is inside a part.
bool inside_part();

}  // namespace twolayer
