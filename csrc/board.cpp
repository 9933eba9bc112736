#include "board.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "processors.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace twolayer {

namespace {

constexpr Index YIELD_AFTER = 1'000'000;  // nanoseconds
constexpr Index SLEEP_AFTER = 100'000;    // of a caller's waiting
constexpr int LOOPS_PER_LOOK = 64;        // at the clock, while waiting

thread_local bool inside = false;

}  // namespace

#if defined(__linux__)
void sleep_while(std::atomic<int>& word, int value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void wake(std::atomic<int>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}
#else
void sleep_while(std::atomic<int>&, int) {
  std::this_thread::sleep_for(std::chrono::microseconds(100));
}
void wake(std::atomic<int>&) {}
#endif

Index now() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

bool inside_part() { return inside; }

void Yielding::between_parts() {
  if (now() - since < YIELD_AFTER) return;
  std::this_thread::yield();
  since = now();
}

void Board::lay_out(Index count, Work what, std::exception_ptr& where) {
  const Index units = std::min<Index>(count, WORDS * BITS);
  notice.work = what;
  notice.parts = std::int32_t(count);
  notice.units = std::int32_t(units);
  notice.mode = FloatMode::current();
  notice.processor.store(current_processor(), std::memory_order_relaxed);
  error = &where;
  failed.store(false, std::memory_order_relaxed);
  done.store(0, std::memory_order_relaxed);
  for (int word = WORDS - 1; word >= 0; --word) {
    const Index here = std::min<Index>(std::max<Index>(units - word * BITS, 0), BITS);
    if (here == 0) continue;
    const std::uint64_t bits = here == BITS ? ~std::uint64_t(0) : (std::uint64_t(1) << here) - 1;
    // Sequentially consistent: a worker that falls asleep looks here after saying so, and the
    // caller asks who sleeps after this.
    notice.left[word].store(bits, std::memory_order_seq_cst);
  }
}

Index Board::claim(Index own) {
  for (int i = 0; i < WORDS; ++i) {
    const int word = int(own / BITS + i) % WORDS;
    const int first = i == 0 ? int(own % BITS) : 0;
    std::uint64_t bits = notice.left[word].load(std::memory_order_relaxed);
    while (bits != 0) {
      const std::uint64_t from_first = bits >> first << first;
      const int bit = __builtin_ctzll(from_first != 0 ? from_first : bits);
      const std::uint64_t mask = std::uint64_t(1) << bit;
      bits = notice.left[word].fetch_and(~mask, std::memory_order_acquire);
      if (bits & mask) return word * BITS + bit;
    }
  }
  return -1;
}

void Board::run(Index unit) {
  inside = true;
  notice.mode.enter();
  const Work work = notice.work;
  const Index parts = notice.parts, units = notice.units;
  for (Index part = parts * unit / units; part < parts * (unit + 1) / units; ++part) {
    try {
      work.call(work.fn, part);
    } catch (...) {
      if (!failed.exchange(true)) *error = std::current_exception();
    }
  }
  inside = false;
}

bool Board::serve(Index own) {
  const Index unit = claim(own);
  if (unit < 0) return false;
  make_way();
  run(unit);
  done.fetch_add(1, std::memory_order_seq_cst);
  // The caller may have gone on by now: then this wakes it for nothing at most.
  if (caller_sleeps.load(std::memory_order_seq_cst)) wake(done);
  return true;
}

void Board::make_way() const {
  const int here = current_processor();
  if (here >= 0 && here == notice.processor.load(std::memory_order_relaxed)) leave_processor(here);
}

void Board::finish() {
  int mine = 0;
  for (Index unit; (unit = claim(0)) >= 0; ++mine) run(unit);
  wait_for(notice.units - mine);
}

void Board::wait_for(int count) {
  if (done.load(std::memory_order_acquire) == count) return;
  const Index start = now();
  for (int loop = 1; done.load(std::memory_order_acquire) != count; ++loop) {
    pause();
    if (loop % LOOPS_PER_LOOK != 0 || now() - start < SLEEP_AFTER) continue;
    caller_sleeps.store(true, std::memory_order_seq_cst);
    const int seen = done.load(std::memory_order_seq_cst);
    if (seen != count) sleep_while(done, seen);
    caller_sleeps.store(false, std::memory_order_relaxed);
  }
  waited_ += now() - start;
}

bool Board::anything_left() const {
  return std::any_of(notice.left, notice.left + WORDS,
                     [](const auto& word) { return word.load() != 0; });
}

void Board::clear() {
  for (auto& word : notice.left) word.store(0);
}

}  // namespace twolayer
