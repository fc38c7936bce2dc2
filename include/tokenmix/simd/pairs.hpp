// SPDX-License-Identifier: Apache-2.0
/// @file Numbers that lie in pairs (interleaved rotary channels, complex numbers) as two registers, and back.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// The first and the second number of lanes<T> pairs.
template <class T>
struct pairs {
  batch<T> first;
  batch<T> second;
};

#if defined(__AVX512F__)

namespace detail {

template <class T>
struct pair_order {
  using I = integer_of<T>;
  alignas(64) I first[static_cast<std::size_t>(lanes<T>)];
  alignas(64) I second[static_cast<std::size_t>(lanes<T>)];
  alignas(64) I low[static_cast<std::size_t>(lanes<T>)];
  alignas(64) I high[static_cast<std::size_t>(lanes<T>)];

  constexpr pair_order() : first{}, second{}, low{}, high{} {
    constexpr auto n = static_cast<I>(lanes<T>);
    for (I i = 0; i < n; ++i) {
      first[i] = 2 * i;
      second[i] = 2 * i + 1;
      low[i] = i / 2 + (i % 2) * n;
      high[i] = n / 2 + i / 2 + (i % 2) * n;
    }
  }
};
template <class T>
inline constexpr pair_order<T> pair_orders{};

template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> choose(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b,
                                       const integer_of<T>* order) {
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_permutex2var_ps(a.data, _mm512_load_si512(order), b.data));
  } else {
    return batch<T>(_mm512_permutex2var_pd(a.data, _mm512_load_si512(order), b.data));
  }
}

}  // namespace detail

#endif

/// a and b hold 2 lanes<T> numbers, pair after pair: the first ones of all pairs, and the second ones.
template <class T>
TOKENMIX_ALWAYS_INLINE pairs<T> separate(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b) {
#if defined(__AVX512F__)
  return {detail::choose<T>(a, b, detail::pair_orders<T>.first),
          detail::choose<T>(a, b, detail::pair_orders<T>.second)};
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    const __m256 low = _mm256_permute2f128_ps(a.data, b.data, 0x20);
    const __m256 high = _mm256_permute2f128_ps(a.data, b.data, 0x31);
    return {batch<T>(_mm256_shuffle_ps(low, high, 0x88)), batch<T>(_mm256_shuffle_ps(low, high, 0xdd))};
  } else {
    const __m256d low = _mm256_permute2f128_pd(a.data, b.data, 0x20);
    const __m256d high = _mm256_permute2f128_pd(a.data, b.data, 0x31);
    return {batch<T>(_mm256_unpacklo_pd(low, high)), batch<T>(_mm256_unpackhi_pd(low, high))};
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    return {batch<T>(_mm_shuffle_ps(a.data, b.data, 0x88)), batch<T>(_mm_shuffle_ps(a.data, b.data, 0xdd))};
  } else {
    return {batch<T>(_mm_unpacklo_pd(a.data, b.data)), batch<T>(_mm_unpackhi_pd(a.data, b.data))};
  }
#else
  if constexpr (std::is_same_v<T, float>) {
    return {batch<T>(vuzp1q_f32(a.data, b.data)), batch<T>(vuzp2q_f32(a.data, b.data))};
  } else {
    return {batch<T>(vuzp1q_f64(a.data, b.data)), batch<T>(vuzp2q_f64(a.data, b.data))};
  }
#endif
}

/// The inverse of separate(): the lower half of the pairs, pair after pair, in a, the upper half in b.
template <class T>
TOKENMIX_ALWAYS_INLINE void join(const pairs<T>& p, xsimd::batch<T, arch>& a, xsimd::batch<T, arch>& b) {
#if defined(__AVX512F__)
  a = detail::choose<T>(p.first, p.second, detail::pair_orders<T>.low);
  b = detail::choose<T>(p.first, p.second, detail::pair_orders<T>.high);
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    const __m256 low = _mm256_unpacklo_ps(p.first.data, p.second.data);
    const __m256 high = _mm256_unpackhi_ps(p.first.data, p.second.data);
    a = batch<T>(_mm256_permute2f128_ps(low, high, 0x20));
    b = batch<T>(_mm256_permute2f128_ps(low, high, 0x31));
  } else {
    const __m256d low = _mm256_unpacklo_pd(p.first.data, p.second.data);
    const __m256d high = _mm256_unpackhi_pd(p.first.data, p.second.data);
    a = batch<T>(_mm256_permute2f128_pd(low, high, 0x20));
    b = batch<T>(_mm256_permute2f128_pd(low, high, 0x31));
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    a = batch<T>(_mm_unpacklo_ps(p.first.data, p.second.data));
    b = batch<T>(_mm_unpackhi_ps(p.first.data, p.second.data));
  } else {
    a = batch<T>(_mm_unpacklo_pd(p.first.data, p.second.data));
    b = batch<T>(_mm_unpackhi_pd(p.first.data, p.second.data));
  }
#else
  if constexpr (std::is_same_v<T, float>) {
    a = batch<T>(vzip1q_f32(p.first.data, p.second.data));
    b = batch<T>(vzip2q_f32(p.first.data, p.second.data));
  } else {
    a = batch<T>(vzip1q_f64(p.first.data, p.second.data));
    b = batch<T>(vzip2q_f64(p.first.data, p.second.data));
  }
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
