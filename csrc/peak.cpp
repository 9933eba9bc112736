// The machine's measured arithmetic limit, which the benches hold the kernels against.
#include "peak.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <vector>

#include "kernels.h"

namespace twolayer {

template <class T>
double fma_rate(int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr Index ROUNDS = 100000;  // about half a millisecond
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const KernelsOf<T>& kernel = kernels().of<T>();
  const auto median_rate = [&] {
    std::vector<double> rates;
    const auto begin = Clock::now();
    do {
      const auto start = Clock::now();
      const double operations = kernel.fma_rounds(ROUNDS);
      rates.push_back(operations / since(start));
    } while (since(begin) < seconds);
    const auto middle = rates.begin() + std::ptrdiff_t(rates.size() / 2);
    std::nth_element(rates.begin(), middle, rates.end());
    return *middle;
  };
  std::vector<std::future<double>> others;
  for (int thread = 1; thread < threads; ++thread) {
    others.push_back(std::async(std::launch::async, median_rate));
  }
  double total = median_rate();
  for (auto& other : others) total += other.get();
  return total;
}

template double fma_rate<float>(int, double);
template double fma_rate<double>(int, double);
template double fma_rate<bfloat16>(int, double);
template double fma_rate<float16>(int, double);

}  // namespace twolayer
