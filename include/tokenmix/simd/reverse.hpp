// SPDX-License-Identifier: Apache-2.0
/// @file A register's lanes in the opposite order.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Lane i of the result is lane lanes<T> - 1 - i.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> reversed(const xsimd::batch<T, arch>& x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    const __m512i order = _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return batch<T>(_mm512_permutexvar_ps(order, x.data));
  } else {
    return batch<T>(_mm512_permutexvar_pd(_mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7), x.data));
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm256_permute_ps(_mm256_permute2f128_ps(x.data, x.data, 0x01), 0x1b));
  } else {
    return batch<T>(_mm256_permute_pd(_mm256_permute2f128_pd(x.data, x.data, 0x01), 0x5));
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm_shuffle_ps(x.data, x.data, 0x1b));
  } else {
    return batch<T>(_mm_shuffle_pd(x.data, x.data, 0x1));
  }
#else
  if constexpr (std::is_same_v<T, float>) {
    const float32x4_t swapped = vrev64q_f32(x.data);
    return batch<T>(vextq_f32(swapped, swapped, 2));
  } else {
    return batch<T>(vextq_f64(x.data, x.data, 1));
  }
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
