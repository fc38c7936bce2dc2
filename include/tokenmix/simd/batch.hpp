// SPDX-License-Identifier: Apache-2.0
/// @file One register of lanes: loads and stores of any length, fma, select, reductions, lane bits.
#pragma once

#include <tokenmix/config.hpp>
#include <tokenmix/core/types.hpp>

#include <xsimd/xsimd.hpp>

#include <bit>
#include <cstdint>
#include <cstring>  // std::memcpy
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// The instruction set of this translation unit, as xsimd names it.
using arch = xsimd::default_arch;

/// A register of T. Arithmetic, comparisons and bitwise operators are xsimd's, but for the ones that toolchains get wrong:
/// spell `!=` as `!(a == b)`, and no `^` of masks.
template <class T>
using batch = xsimd::batch<T, arch>;

/// One truth value per lane of batch<T>.
template <class T>
using mask = typename batch<T>::batch_bool_type;

/// How many T fit in a register.
template <class T>
inline constexpr index_t lanes = static_cast<index_t>(batch<T>::size);

/// The signed integer as wide as T.
template <class T>
using integer_of = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;

template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> broadcast(T value) {
  return batch<T>(value);
}

template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> load(const T* p) {
  return batch<T>::load_unaligned(p);
}

template <class T>
TOKENMIX_ALWAYS_INLINE void store(T* p, const batch<T>& value) {
  value.store_unaligned(p);
}

/// The same value, held in a register: compilers otherwise load an operand of two instructions twice.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> in_register(xsimd::batch<T, arch> value) {
#if defined(__AVX512F__)
  asm("" : "+v"(value.data));
#elif defined(__x86_64__)
  asm("" : "+x"(value.data));
#else
  asm("" : "+w"(value.data));
#endif
  return value;
}

/// 0, 1, 2, ...
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> iota() {
  alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
  for (index_t i = 0; i < lanes<T>; ++i) numbers[i] = static_cast<T>(i);
  return load(numbers);
}

/// The same truth values for a type of the same width.
template <class To, class From>
TOKENMIX_ALWAYS_INLINE mask<To> mask_cast(const xsimd::batch_bool<From, arch>& m) {
  static_assert(sizeof(To) == sizeof(From));
  if constexpr (std::is_same_v<To, From>) {
    return m;
  } else if constexpr (std::is_integral_v<To> && std::is_integral_v<From>) {
    return mask<To>(m.data);
  } else if constexpr (std::is_unsigned_v<To> || std::is_unsigned_v<From>) {  // xsimd before 9 casts signed ones only
    return mask_cast<To>(mask_cast<integer_of<To>>(m));
  } else {
#if defined(__AVX512F__)
    return mask<To>(m.data);
#elif XSIMD_VERSION_MAJOR >= 9
    return xsimd::batch_bool_cast<To>(m);
#else
    return xsimd::bool_cast(m);
#endif
  }
}

/// True in lanes [0, n).
template <class T>
TOKENMIX_ALWAYS_INLINE mask<T> first_lanes(index_t n) {
  using I = integer_of<T>;
  return mask_cast<T>(batch<I>(static_cast<I>(n)) > iota<I>());
}

/// Lane i of the mask is bit i of the result.
template <class T>
TOKENMIX_ALWAYS_INLINE std::uint32_t bits(const xsimd::batch_bool<T, arch>& m) {
#if defined(__AVX512F__)
  return static_cast<std::uint32_t>(m.data);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(mask_cast<float>(m).data));
  } else {
    return static_cast<std::uint32_t>(_mm256_movemask_pd(mask_cast<double>(m).data));
  }
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) {
    return static_cast<std::uint32_t>(_mm_movemask_ps(mask_cast<float>(m).data));
  } else {
    return static_cast<std::uint32_t>(_mm_movemask_pd(mask_cast<double>(m).data));
  }
#else
  bool truth[static_cast<std::size_t>(lanes<T>)];
  m.store_unaligned(truth);
  std::uint32_t word = 0;
  for (index_t i = 0; i < lanes<T>; ++i) word |= static_cast<std::uint32_t>(truth[i]) << i;
  return word;
#endif
}

/// How many lanes are true.
template <class T>
TOKENMIX_ALWAYS_INLINE index_t count_true(const xsimd::batch_bool<T, arch>& m) {
  const std::uint32_t word = bits<T>(m);
  if constexpr (lanes<T> <= 4) {  // these have no instruction for it: a table of the sixteen answers
    return static_cast<index_t>((0x4332322132212110u >> (4 * word)) & 15u);
  } else {
    return std::popcount(word);
  }
}

/// The inverse of bits(): lane i is bit i.
template <class T>
TOKENMIX_ALWAYS_INLINE mask<T> from_bits(std::uint32_t word) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return mask<T>(static_cast<__mmask16>(word));
  } else {
    return mask<T>(static_cast<__mmask8>(word));
  }
#else
  using I = integer_of<T>;
  alignas(64) I lane_bit[static_cast<std::size_t>(lanes<T>)];
  for (index_t i = 0; i < lanes<T>; ++i) lane_bit[i] = static_cast<I>(I{1} << i);
  const batch<I> bit = load(lane_bit);
  return mask_cast<T>((batch<I>(static_cast<I>(word)) & bit) == bit);
#endif
}

/// Lane by lane m ? a : b; the lane that is not chosen may hold anything.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> select(const xsimd::batch_bool<T, arch>& m, const xsimd::batch<T, arch>& a,
                                       const xsimd::batch<T, arch>& b) {
#if defined(__AVX512F__)  // xsimd 8.1 does not compile here for integers
  if constexpr (std::is_integral_v<T> && sizeof(T) == 4) {
    return batch<T>(_mm512_mask_blend_epi32(static_cast<__mmask16>(m.data), b.data, a.data));
  } else if constexpr (std::is_integral_v<T> && sizeof(T) == 8) {
    return batch<T>(_mm512_mask_blend_epi64(static_cast<__mmask8>(m.data), b.data, a.data));
  } else
#endif
  {
    return xsimd::select(m, a, b);
  }
}

/// a * b + c, rounded once where the instruction set has it (AVX2+FMA, AVX-512, AArch64), else twice. Never contracted otherwise.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> fma(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b,
                                    const xsimd::batch<T, arch>& c) {
#if defined(__AVX512F__)  // xsimd before 11 multiplies and adds here
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_fmadd_ps(a.data, b.data, c.data));
  } else {
    return batch<T>(_mm512_fmadd_pd(a.data, b.data, c.data));
  }
#else
  return xsimd::fma(a, b, c);
#endif
}

/// c - a * b, rounded as fma is.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> fnma(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b,
                                     const xsimd::batch<T, arch>& c) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_fnmadd_ps(a.data, b.data, c.data));
  } else {
    return batch<T>(_mm512_fnmadd_pd(a.data, b.data, c.data));
  }
#else
  return xsimd::fma(batch<T>(T(-0.0)) - a, b, c);
#endif
}

/// a / b, correctly rounded on every instruction set: what xsimd 8 has for floats on AArch64 is an estimate and two steps,
/// and NaN where b is infinite.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> divide(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b) {
#if defined(__aarch64__)
  return batch<T>(a.data / b.data);
#else
  return a / b;
#endif
}

/// The square root, correctly rounded on every instruction set; xsimd 8 has no more than an estimate there either.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> sqrt(const xsimd::batch<T, arch>& x) {
#if defined(__aarch64__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(vsqrtq_f32(x.data));
  } else {
    return batch<T>(vsqrtq_f64(x.data));
  }
#else
  return xsimd::sqrt(x);
#endif
}

/// a > b ? a : b: where either is NaN the result is b, so the accumulator stands second to ignore NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> max_or_second(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_max_ps(a.data, b.data));
  } else {
    return batch<T>(_mm512_max_pd(a.data, b.data));
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm256_max_ps(a.data, b.data));
  } else {
    return batch<T>(_mm256_max_pd(a.data, b.data));
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm_max_ps(a.data, b.data));
  } else {
    return batch<T>(_mm_max_pd(a.data, b.data));
  }
#else
  return xsimd::select(a > b, a, b);
#endif
}

/// a < b ? a : b: where either is NaN the result is b.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> min_or_second(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_min_ps(a.data, b.data));
  } else {
    return batch<T>(_mm512_min_pd(a.data, b.data));
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm256_min_ps(a.data, b.data));
  } else {
    return batch<T>(_mm256_min_pd(a.data, b.data));
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm_min_ps(a.data, b.data));
  } else {
    return batch<T>(_mm_min_pd(a.data, b.data));
  }
#else
  return xsimd::select(a < b, a, b);
#endif
}

#if defined(__AVX__) && !defined(__AVX512F__)
/// All bits set in lanes [0, n): what the masked moves of AVX take.
template <class I>
TOKENMIX_ALWAYS_INLINE batch<I> first_lanes_vector(index_t n) {
  static constexpr I ones_then_zeros[8 + 8] = {I(-1), I(-1), I(-1), I(-1), I(-1), I(-1), I(-1), I(-1)};
  return load(ones_then_zeros + 8 - n);
}
#endif

/// The n lanes at p, n in [0, lanes]; the others are zero. Reads n elements and not one byte more.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> load_n(const T* p, index_t n) {
#if defined(__AVX512F__)
  const auto word = (1u << static_cast<unsigned>(n)) - 1u;
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_maskz_loadu_ps(static_cast<__mmask16>(word), p));
  } else if constexpr (std::is_same_v<T, double>) {
    return batch<T>(_mm512_maskz_loadu_pd(static_cast<__mmask8>(word), p));
  } else
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm256_maskload_ps(p, first_lanes_vector<std::int32_t>(n).data));
  } else if constexpr (std::is_same_v<T, double>) {
    return batch<T>(_mm256_maskload_pd(p, first_lanes_vector<std::int64_t>(n).data));
  } else
#endif
  {
    alignas(64) T padded[static_cast<std::size_t>(lanes<T>)] = {};
    std::memcpy(padded, p, static_cast<std::size_t>(n) * sizeof(T));
    return load(padded);
  }
}

/// Writes lanes [0, n) to p and not one byte more.
template <class T>
TOKENMIX_ALWAYS_INLINE void store_n(T* p, const xsimd::batch<T, arch>& value, index_t n) {
#if defined(__AVX512F__)
  const auto word = (1u << static_cast<unsigned>(n)) - 1u;
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>(word), value.data);
  } else if constexpr (std::is_same_v<T, double>) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(word), value.data);
  } else
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    _mm256_maskstore_ps(p, first_lanes_vector<std::int32_t>(n).data, value.data);
  } else if constexpr (std::is_same_v<T, double>) {
    _mm256_maskstore_pd(p, first_lanes_vector<std::int64_t>(n).data, value.data);
  } else
#endif
  {
    alignas(64) T padded[static_cast<std::size_t>(lanes<T>)];
    store(padded, value);
    std::memcpy(p, padded, static_cast<std::size_t>(n) * sizeof(T));
  }
}

namespace detail {

#if defined(__x86_64__)
// The upper half of a register is added to the lower one until a lane is left: memory would be waited for at every halving.
TOKENMIX_ALWAYS_INLINE float halved_sum(__m128 x) {
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
}
TOKENMIX_ALWAYS_INLINE double halved_sum(__m128d x) { return _mm_cvtsd_f64(_mm_add_sd(x, _mm_unpackhi_pd(x, x))); }
#if defined(__AVX__)
TOKENMIX_ALWAYS_INLINE float halved_sum(__m256 x) {
  return halved_sum(_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}
TOKENMIX_ALWAYS_INLINE double halved_sum(__m256d x) {
  return halved_sum(_mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1)));
}
#endif
#if defined(__AVX512F__)
TOKENMIX_ALWAYS_INLINE double halved_sum(__m512d x) {
  return halved_sum(_mm256_add_pd(_mm512_castpd512_pd256(x), _mm512_extractf64x4_pd(x, 1)));
}
TOKENMIX_ALWAYS_INLINE float halved_sum(__m512 x) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
  return halved_sum(_mm256_add_ps(_mm512_castps512_ps256(x), high));
}
#endif
#endif

}  // namespace detail

/// The sum of all lanes, in a fixed order: halves are added until one lane is left.
template <class T>
TOKENMIX_ALWAYS_INLINE T reduce_add(const xsimd::batch<T, arch>& value) {
#if defined(__x86_64__)
  if constexpr (std::is_floating_point_v<T>) return detail::halved_sum(value.data);
#endif
  alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
  store(numbers, value);
  for (index_t half = lanes<T> / 2; half > 0; half /= 2) {
    for (index_t i = 0; i < half; ++i) numbers[i] += numbers[i + half];
  }
  return numbers[0];
}

/// The largest lane; NaN lanes are ignored unless all are NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE T reduce_max(const xsimd::batch<T, arch>& value) {
  alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
  store(numbers, value);
  for (index_t half = lanes<T> / 2; half > 0; half /= 2) {
    for (index_t i = 0; i < half; ++i) {
      const T a = numbers[i];
      const T b = numbers[i + half];
      numbers[i] = a > b || !(b == b) ? a : b;
    }
  }
  return numbers[0];
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
