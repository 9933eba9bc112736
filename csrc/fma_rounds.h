// The arithmetic limit: multiply-adds on registers alone, as many at a time as the latency needs.
//
// Included only by the kernels_*.cpp files, inside their namespace.

template <class T>
double fma_rounds(Index rounds) {
  using S = Sum<T>;
  constexpr int CHAINS = 12;
  Vec<S> chain[CHAINS];
  for (int i = 0; i < CHAINS; ++i) chain[i] = S(i) - Vec<S>{};
  // Factors the compiler cannot see through, and that keep every chain finite.
  volatile S hidden_factor = S(0.5), hidden_addend = S(1);
  const Vec<S> factor = hidden_factor - Vec<S>{}, addend = hidden_addend - Vec<S>{};
  for (Index round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; ++i) chain[i] = chain[i] * factor + addend;
  }
  Vec<S> total = {};
  for (int i = 0; i < CHAINS; ++i) total += chain[i];
  volatile S kept = total[0];  // else the loop above has no purpose and disappears
  (void)kept;
  return 2.0 * lanes<S> * CHAINS * double(rounds);
}
