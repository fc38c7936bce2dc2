// SPDX-License-Identifier: Apache-2.0
/// @file A short convolution along contiguous time: tokens of one channel in the lanes.
#pragma once

#include <tokenmix/primitives/convolution/window.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/stream.hpp>
#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// out[p] of positions [first, last) of a line: tap j reads x[p + offset + j step], all of which exist.
///
/// From the last position to the first if `backwards`: then out may be x if no offset is positive; otherwise if none is negative.
/// `Stream`: results go past the caches, if `first` can be streamed to; a fence is the caller's.
template <bool Stream, class T, class E, class O, class Activation>
TOKENMIX_NOINLINE void convolve_line(const E* x, O* out, index_t first, index_t last, index_t taps, index_t offset,
                                     index_t step, const T* weights, T bias, const Activation& activation,
                                     bool backwards) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t V = 4;
  const auto some = [&]<index_t Vectors>(index_t p, std::integral_constant<index_t, Vectors>) TOKENMIX_LAMBDA_INLINE {
    simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[v] = simd::batch<T>(bias); });
    const E* from = x + p + offset;
    for (index_t j = 0; j < taps; ++j, from += step) {
      const simd::batch<T> weight(weights[j]);
      simd::unroll<Vectors>(
          [&](auto v) TOKENMIX_LAMBDA_INLINE { sum[v] = simd::fma(weight, simd::load_as<T>(from + v * L), sum[v]); });
    }
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      if constexpr (Stream) {
        simd::stream(out + p + v * L, activation(sum[v]));
      } else {
        simd::store_as(out + p + v * L, activation(sum[v]));
      }
    });
  };
  const auto rest = [&](index_t p, index_t n) {
    simd::batch<T> sum(bias);
    const E* from = x + p + offset;
    for (index_t j = 0; j < taps; ++j, from += step)
      sum = simd::fma(simd::batch<T>(weights[j]), simd::load_as_n<T>(from, n), sum);
    simd::store_as_n(out + p, activation(sum), n);
  };
  constexpr std::integral_constant<index_t, V> many;
  constexpr std::integral_constant<index_t, 1> one;
  if (backwards) {
    index_t p = last;
    for (; p - V * L >= first; p -= V * L) some(p - V * L, many);
    for (; p - L >= first; p -= L) some(p - L, one);
    if (p > first) rest(first, p - first);
  } else {
    index_t p = first;
    for (; p + V * L <= last; p += V * L) some(p, many);
    for (; p + L <= last; p += L) some(p, one);
    if (p < last) rest(p, last - p);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
