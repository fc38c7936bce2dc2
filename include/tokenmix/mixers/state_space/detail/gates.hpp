// SPDX-License-Identifier: Apache-2.0
/// @file Gates of elementwise recurrences, in registers: numbers whose complements do not cancel.
#pragma once

#include <tokenmix/primitives/sigmoid_both.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <array>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// 1 - e^(-2 y) for y >= 0, given decay = e^-y: a series where the difference would cancel.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> rest_of_square(const simd::batch<T>& y, const simd::batch<T>& decay) {
  // Below 1/2 the terms left out are less than 2^-26, or 2^-56, of the sum.
  constexpr index_t terms = std::is_same_v<T, float> ? 9 : 15;
  constexpr auto coefficients = [] {
    std::array<T, static_cast<std::size_t>(terms)> c{};  // (-1)^n / (n + 1)!
    double factor = 1;
    for (std::size_t n = 0; n < c.size(); ++n) {
      factor /= static_cast<double>(n + 1);
      c[n] = static_cast<T>(n % 2 == 0 ? factor : -factor);
    }
    return c;
  }();
  const simd::batch<T> one(T(1)), twice = y + y;
  simd::batch<T> series(coefficients[static_cast<std::size_t>(terms - 1)]);
  simd::unroll<terms - 1>([&](auto n) TOKENMIX_LAMBDA_INLINE {
    series = simd::fma(series, twice, simd::batch<T>(coefficients[static_cast<std::size_t>(terms - 2 - n)]));
  });
  return simd::select(twice < simd::batch<T>(T(0.5)), series * twice,
                      simd::fma(simd::batch<T>(T(0)) - decay, decay, one));
}

/// keep h + write, where what keeps nothing does not read h.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> kept_and_written(const simd::batch<T>& keep, const simd::batch<T>& h,
                                                       const simd::batch<T>& write) {
  return simd::select(keep == simd::batch<T>(T(0)), write, simd::fma(keep, h, write));
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
