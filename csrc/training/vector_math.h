// Functions on whole vectors: exponential, logarithms and roots.
//
// Included only by the kernels_*.cpp files, inside their namespace.

template <class S>
inline Vec<S> square_root(Vec<S> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return (Vec<S>)_mm512_sqrt_ps((__m512)v);
  if constexpr (sizeof(S) == 8) return (Vec<S>)_mm512_sqrt_pd((__m512d)v);
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4) return (Vec<S>)_mm256_sqrt_ps((__m256)v);
  if constexpr (sizeof(S) == 8) return (Vec<S>)_mm256_sqrt_pd((__m256d)v);
#elif defined(__SSE2__)
  if constexpr (sizeof(S) == 4) return (Vec<S>)_mm_sqrt_ps((__m128)v);
  if constexpr (sizeof(S) == 8) return (Vec<S>)_mm_sqrt_pd((__m128d)v);
#else
  for (int i = 0; i < lanes<S>; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// What the two floating-point formats differ in.
template <class S>
struct Format {
  using Bits = std::int32_t;
  static constexpr int mantissa = 23;
  static constexpr S magic = 12582912;  // 1.5 * 2^23: a sum with it has no fraction left
  static constexpr S smallest = S(-87), largest = S(88);  // of which the exponential is normal
  static constexpr S ln2_high = S(0.693359375), ln2_low = S(-2.12194440e-4);
  static constexpr int exp_terms = 8, log_terms = 5, log1p_terms = 8;
};
template <>
struct Format<double> {
  using Bits = std::int64_t;
  static constexpr int mantissa = 52;
  static constexpr double magic = 6755399441055744.0;
  static constexpr double smallest = -708, largest = 709;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr int exp_terms = 14, log_terms = 13, log1p_terms = 17;
};

template <class S>
using BitsOf = Vec<typename Format<S>::Bits>;

// 1 / k! for k = 0 .. COUNT - 1.
template <int COUNT>
struct InverseFactorials {
  double of[COUNT] = {1};
  constexpr InverseFactorials() {
    for (int k = 1; k < COUNT; ++k) of[k] = of[k - 1] / k;
  }
};

// e^x = 2^n e^r with r of at most ln(2) / 2, and there Taylor's series. Arguments that have no
// normal result count as the last one that has; NaN stays NaN.
template <class S>
inline Vec<S> exponential(Vec<S> x) {
  using F = Format<S>;
  x = x < F::smallest ? F::smallest - Vec<S>{} : x;
  x = x > F::largest ? F::largest - Vec<S>{} : x;
  const Vec<S> shifted = x * S(1.44269504088896340736) + F::magic;
  const Vec<S> n = shifted - F::magic;
  const Vec<S> r = (x - n * F::ln2_high) - n * F::ln2_low;
  constexpr InverseFactorials<F::exp_terms> coefficient;
  Vec<S> sum = S(coefficient.of[F::exp_terms - 1]) - Vec<S>{};
#pragma GCC unroll 16
  for (int k = F::exp_terms - 2; k >= 0; --k) sum = S(coefficient.of[k]) + r * sum;
  const BitsOf<S> exponent = (BitsOf<S>)shifted << F::mantissa;
  return (Vec<S>)((BitsOf<S>)sum + exponent);
}

// 2 atanh(z) = 2 (z + z^3 / 3 + z^5 / 5 + ...).
template <class S, int TERMS>
inline Vec<S> twice_atanh(Vec<S> z) {
  const Vec<S> square = z * z;
  Vec<S> sum = S(1.0 / (2 * TERMS - 1)) - Vec<S>{};
#pragma GCC unroll 16
  for (int k = TERMS - 2; k >= 0; --k) sum = S(1.0 / (2 * k + 1)) + square * sum;
  return 2 * z * sum;
}

// log(x) for normal x > 0; NaN and infinity come out as NaN.
template <class S>
inline Vec<S> logarithm(Vec<S> x) {
  using F = Format<S>;
  const BitsOf<S> two_thirds = (BitsOf<S>)(S(2.0 / 3.0) - Vec<S>{});
  const BitsOf<S> exponent = ((BitsOf<S>)x - two_thirds) >> F::mantissa;
  const Vec<S> m = (Vec<S>)((BitsOf<S>)x - (exponent << F::mantissa));  // 2/3 .. 4/3
  const Vec<S> n = (Vec<S>)((BitsOf<S>)(F::magic - Vec<S>{}) + exponent) - F::magic;
  const Vec<S> log_m = twice_atanh<S, F::log_terms>((m - S(1)) / (m + S(1)));
  return n * F::ln2_high + (n * F::ln2_low + log_m) + (x - x);
}

// log(1 + x) for 0 <= x <= 1.
template <class S>
inline Vec<S> log_one_plus(Vec<S> x) {
  return twice_atanh<S, Format<S>::log1p_terms>(x / (S(2) + x));
}
