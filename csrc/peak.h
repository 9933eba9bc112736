// The machine's measured arithmetic limit, which the benches hold the kernels against.
#pragma once

namespace twolayer {

// Operations (a multiply-add is two) per second, of all threads together, measured for about
// `seconds`: the median of many short runs, since a shared machine interrupts some of them.
template <class T>
double fma_rate(int threads, double seconds);

}  // namespace twolayer
