// Vectors of the instruction set being compiled for, in the compiler's own vector extension.
//
// Included only by the microkernel_*.cpp files, inside their namespace, so that no inline function
// compiled for one instruction set can be linked into the code of another.

template <class S>
struct VectorType {
  static constexpr int lanes = VECTOR_BYTES / sizeof(S);
  typedef S type __attribute__((vector_size(VECTOR_BYTES)));
  typedef S unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(alignof(S)), may_alias));
};

template <class S>
using Vec = typename VectorType<S>::type;

template <class S>
constexpr int lanes = VectorType<S>::lanes;

template <class S>
constexpr int log2_lanes = lanes<S> == 16  ? 4
                           : lanes<S> == 8 ? 3
                           : lanes<S> == 4 ? 2
                                           : 1;

// x - 0 is x for every x, so this is one broadcast load; 0 + x is not (x = -0), and costs an add.
template <class S>
inline Vec<S> broadcast(const S* p) {
  return *p - Vec<S>{};
}

// ---- loads and stores of whole vectors, and of the first n lanes (the others read as zero) ----

template <class S>
inline Vec<S> load(const S* p) {
  return *reinterpret_cast<const typename VectorType<S>::unaligned*>(p);
}

template <class S>
inline void store(S* p, Vec<S> v) {
  *reinterpret_cast<typename VectorType<S>::unaligned*>(p) = v;
}

template <class S>
inline Vec<S> load_first(const S* p, int n) {
  if (n >= lanes<S>) return load(p);
  alignas(VECTOR_BYTES) S buffer[lanes<S>] = {};
  for (int i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
}

template <class S>
inline void store_first(S* p, Vec<S> v, int n) {
  if (n >= lanes<S>) return store(p, v);
  alignas(VECTOR_BYTES) S buffer[lanes<S>];
  store(buffer, v);
  for (int i = 0; i < n; ++i) p[i] = buffer[i];
}

#if defined(__AVX512F__)
template <>
inline Vec<float> load_first(const float* p, int n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
template <>
inline void store_first(float* p, Vec<float> v, int n) {
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
}
template <>
inline Vec<double> load_first(const double* p, int n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
}
template <>
inline void store_first(double* p, Vec<double> v, int n) {
  _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
}
#elif defined(__AVX2__)
// Lanes of 4 bytes, the first n of which are all ones.
inline __m256i first_mask(int n) {
  alignas(VECTOR_BYTES) static const int ones_and_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ones_and_zeros + 8 - n));
}
template <>
inline Vec<float> load_first(const float* p, int n) {
  if (n >= 8) return load(p);
  return (Vec<float>)_mm256_maskload_ps(p, first_mask(n));
}
template <>
inline void store_first(float* p, Vec<float> v, int n) {
  if (n >= 8) return store(p, v);
  _mm256_maskstore_ps(p, first_mask(n), (__m256)v);
}
template <>
inline Vec<double> load_first(const double* p, int n) {
  if (n >= 4) return load(p);
  return (Vec<double>)_mm256_maskload_pd(p, first_mask(2 * n));
}
template <>
inline void store_first(double* p, Vec<double> v, int n) {
  if (n >= 4) return store(p, v);
  _mm256_maskstore_pd(p, first_mask(2 * n), (__m256d)v);
}
#endif

// ---- 16-bit storage: widened on load, rounded to nearest even on store ----

using Bits32 = VectorType<std::uint32_t>::type;
typedef std::uint16_t Bits16 __attribute__((vector_size(VECTOR_BYTES / 2)));

#if defined(__AVX512BW__)
inline Bits16 load_bits(const std::uint16_t* p, int n) {
  return (Bits16)_mm256_maskz_loadu_epi16(__mmask16((1u << n) - 1), p);
}

inline void store_bits(std::uint16_t* p, Bits16 bits, int n) {
  _mm256_mask_storeu_epi16(p, __mmask16((1u << n) - 1), (__m256i)bits);
}
#else
inline Bits16 load_bits(const std::uint16_t* p, int n) {
  Bits16 bits = {};
  if (n >= lanes<float>) {
    __builtin_memcpy(&bits, p, sizeof bits);
  } else {
    for (int i = 0; i < n; ++i) bits[i] = p[i];
  }
  return bits;
}

inline void store_bits(std::uint16_t* p, Bits16 bits, int n) {
  if (n >= lanes<float>) {
    __builtin_memcpy(p, &bits, sizeof bits);
  } else {
    for (int i = 0; i < n; ++i) p[i] = bits[i];
  }
}
#endif

inline Vec<float> widen(const bfloat16* p, int n) {
  const Bits16 bits = load_bits(&p->bits, n);
  return (Vec<float>)(__builtin_convertvector(bits, Bits32) << 16);
}

inline void narrow(bfloat16* p, Vec<float> v, int n) {
  const Bits32 bits = (Bits32)v;
  const Bits32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits32 quiet_nan = (bits >> 16) | 0x40;
  const Bits32 chosen = v != v ? quiet_nan : rounded;
  store_bits(&p->bits, __builtin_convertvector(chosen, Bits16), n);
}

#if defined(__AVX512F__)
inline Vec<float> widen_half(Bits16 bits) { return (Vec<float>)_mm512_cvtph_ps((__m256i)bits); }
inline Bits16 narrow_half(Vec<float> v) {
  return (Bits16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__F16C__)
inline Vec<float> widen_half(Bits16 bits) { return (Vec<float>)_mm256_cvtph_ps((__m128i)bits); }
inline Bits16 narrow_half(Vec<float> v) {
  return (Bits16)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
}
#else
// Half to float: shift exponent and mantissa into place and scale by 2^112, which also turns
// subnormal halves into normal floats; infinities and NaNs get the top exponent instead.
inline Vec<float> widen_half(Bits16 half) {
  const Bits32 bits = __builtin_convertvector(half, Bits32);
  const Bits32 magnitude = (bits & 0x7fff) << 13;
  const Vec<float> scaled = (Vec<float>)magnitude * 0x1p112f;
  const Bits32 special = magnitude | 0x7f800000;
  const Bits32 wide = (bits & 0x7fff) >= 0x7c00 ? special : (Bits32)scaled;
  return (Vec<float>)(wide | ((bits & 0x8000) << 16));
}

// Float to half: adding a float whose last mantissa bit is the half's last bit rounds to it.
inline Bits16 narrow_half(Vec<float> v) {
  const Bits32 bits = (Bits32)v;
  const Bits32 magnitude = bits & 0x7fffffff;
  const Bits32 sign = (bits >> 16) & 0x8000;
  const Bits32 normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const Vec<float> half_unit = (Vec<float>)(Bits32{} + 0x3f000000);  // 0.5: unit 2^-24
  const Bits32 subnormal = (Bits32)((Vec<float>)magnitude + half_unit) - 0x3f000000;
  Bits32 half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x477ff000 ? Bits32{} + 0x7c00 : half;  // rounds to infinity
  half = magnitude > 0x7f800000 ? Bits32{} + 0x7e00 : half;
  return __builtin_convertvector(half | sign, Bits16);
}
#endif

inline Vec<float> widen(const float16* p, int n) { return widen_half(load_bits(&p->bits, n)); }
inline void narrow(float16* p, Vec<float> v, int n) { store_bits(&p->bits, narrow_half(v), n); }

inline Vec<float> widen(const float* p, int n) { return load_first(p, n); }
inline void narrow(float* p, Vec<float> v, int n) { store_first(p, v, n); }
inline Vec<double> widen(const double* p, int n) { return load_first(p, n); }
inline void narrow(double* p, Vec<double> v, int n) { store_first(p, v, n); }

// The first n lanes of a product's sums, and two whole vectors of them. Where the matrix unit made
// them it has made subnormal ones zero, and so do these.
template <class T>
inline void narrow_sums(T* p, Vec<Sum<T>> v, int n) {
  narrow(p, v, n);
}
template <class T>
inline void narrow_two_sums(T* p, Vec<Sum<T>> first, Vec<Sum<T>> second) {
  narrow(p, first, lanes<Sum<T>>);
  narrow(p + lanes<Sum<T>>, second, lanes<Sum<T>>);
}
#if defined(__AMX_BF16__)
inline void narrow_sums(bfloat16* p, Vec<float> v, int n) {
  store_bits(&p->bits, (Bits16)_mm512_cvtneps_pbh((__m512)v), n);
}
inline void narrow_two_sums(bfloat16* p, Vec<float> first, Vec<float> second) {
  _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}
#endif

// Past the caches, to whole vectors of aligned memory; drain_streams() before others read it.
template <class T>
inline void stream(T* p, Vec<Sum<T>> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) return _mm512_stream_ps(p, (__m512)v);
  if constexpr (std::is_same_v<T, double>) return _mm512_stream_pd(p, (__m512d)v);
#elif defined(__AVX2__)
  if constexpr (std::is_same_v<T, float>) return _mm256_stream_ps(p, (__m256)v);
  if constexpr (std::is_same_v<T, double>) return _mm256_stream_pd(p, (__m256d)v);
#endif
  narrow(p, v, lanes<Sum<T>>);
}

inline void drain_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

template <class T>
inline Sum<T> widen_one(const T* p) {
  return widen(p, 1)[0];
}
inline float widen_one(const float* p) { return *p; }
inline double widen_one(const double* p) { return *p; }

template <class T>
inline void narrow_one(T* p, Sum<T> value) {
  narrow(p, value - Vec<Sum<T>>{}, 1);
}

// ---- packed operands: what the tile multiplies, and how ----

// By default an element widened to the type of the sums.
template <class T>
struct Packed {
  using type = Sum<T>;
  static constexpr int group = 1;  // elements along K in one packed element

  static Vec<type> multiply_add(Vec<type> sum, Vec<type> a, Vec<type> b) { return sum + a * b; }
};

#if defined(__AVX512BF16__)
// Pairs along K, two products a lane and instruction. Subnormal inputs count as zero.
template <>
struct Packed<bfloat16> {
  using type = std::uint32_t;
  static constexpr int group = 2;

  static Vec<float> multiply_add(Vec<float> sum, Bits32 a, Bits32 b) {
    return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};

// A tensor of 16-bit elements promises no alignment to pairs.
template <>
inline Bits32 broadcast(const std::uint32_t* p) {
  std::uint32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return pair - Bits32{};
}
#endif

// ---- transposition of a square of lanes x lanes elements held in registers ----

template <int... I>
struct Indices {};
template <int N, int... I>
struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
  using type = Indices<I...>;
};

// Exchanges, between rows r and r + D, the lanes that have bit D set in the one and not in the
// other: one of the log2(lanes) steps of a transposition.
template <class S, int D, int... I>
inline void exchange(Vec<S>& upper, Vec<S>& lower, Indices<I...>) {
  constexpr int L = lanes<S>;
  const Vec<S> first = __builtin_shufflevector(upper, lower, ((I & D) ? L + I - D : I)...);
  const Vec<S> second = __builtin_shufflevector(upper, lower, ((I & D) ? L + I : I + D)...);
  upper = first;
  lower = second;
}

template <class S, int D>
inline void transpose_steps(Vec<S> (&rows)[lanes<S>]) {
  if constexpr (D < lanes<S>) {
#pragma GCC unroll 16
    for (int r = 0; r < lanes<S>; ++r) {
      if ((r & D) == 0) {
        exchange<S, D>(rows[r], rows[r + D], typename CountTo<lanes<S>>::type{});
      }
    }
    transpose_steps<S, 2 * D>(rows);
  }
}

template <class S>
inline void transpose(Vec<S> (&rows)[lanes<S>]) {
  transpose_steps<S, 1>(rows);
}

template <class S, int D, int... I>
inline Vec<S> rotated(Vec<S> v, Indices<I...>) {
  return __builtin_shufflevector(v, v, ((I + D) % lanes<S>)...);
}

template <class S, int D = lanes<S> / 2>
inline S horizontal_sum(Vec<S> v) {
  if constexpr (D == 0) {
    return v[0];
  } else {
    return horizontal_sum<S, D / 2>(v + rotated<S, D>(v, typename CountTo<lanes<S>>::type{}));
  }
}

template <class S>
inline Vec<S> first_lanes(Vec<S> v, int n) {
  if (n >= lanes<S>) return v;
  alignas(VECTOR_BYTES) S buffer[lanes<S>];
  store(buffer, v);
  return load_first(buffer, n);
}

// Calls step(i, n) for each vector of a range, the n elements from i on. It is compiled twice: for
// the whole vectors n is a constant, and nothing is masked. (A masked store takes several times as
// long as a plain one on Zen 4, and what reads it next waits for it.)
template <int L, class Step>
inline void for_vectors(Index begin, Index end, const Step& step) {
  Index i = begin;
  for (; i + L <= end; i += L) step(i, L);
  if (i < end) step(i, int(end - i));
}

// Calls part(begin, end) for pieces of a range that are short enough for sums in vectors to be as
// exact as their type; what they bring is then added up in double.
template <class S, class Part>
inline void for_exact_parts(Index begin, Index end, const Part& part) {
  constexpr Index SIZE = 32 * lanes<S>;
  for (; begin < end; begin += SIZE) part(begin, begin + SIZE < end ? begin + SIZE : end);
}
