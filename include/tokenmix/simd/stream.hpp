// SPDX-License-Identifier: Apache-2.0
/// @file Stores that go past the caches: for results too large to be found there again.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Results of this size are not found in a cache when they are read next.
inline constexpr index_t bytes_past_caches = index_t{16} << 20;

}  // namespace tokenmix::inline TOKENMIX_ABI::detail

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Whether a register of T can be streamed to p.
template <class T>
TOKENMIX_ALWAYS_INLINE bool can_stream_to(const T* p) {
#if defined(__x86_64__)
  return reinterpret_cast<std::uintptr_t>(p) % (static_cast<std::uintptr_t>(lanes<T>) * sizeof(T)) == 0;
#else
  static_cast<void>(p);
  return false;
#endif
}

/// Writes a register to p, which can_stream_to, without reading the line that it overwrites. Other threads see it
/// after a fence.
template <class T>
TOKENMIX_ALWAYS_INLINE void stream(T* p, const xsimd::batch<T, arch>& value) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    _mm512_stream_ps(p, value.data);
  } else {
    _mm512_stream_pd(p, value.data);
  }
#elif defined(__AVX__)
  if constexpr (std::is_same_v<T, float>) {
    _mm256_stream_ps(p, value.data);
  } else {
    _mm256_stream_pd(p, value.data);
  }
#elif defined(__SSE2__)
  if constexpr (std::is_same_v<T, float>) {
    _mm_stream_ps(p, value.data);
  } else {
    _mm_stream_pd(p, value.data);
  }
#else
  store(p, value);
#endif
}

/// Ends a run of stream(): what was written is visible to whoever synchronises with this thread.
inline void fence_after_stream() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
