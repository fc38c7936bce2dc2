// SPDX-License-Identifier: Apache-2.0
/// @file The largest and the smallest so far.
#pragma once

#include <tokenmix/primitives/scan/operation.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// a > b ? a : b, but NaN if either is.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> larger(const simd::batch<T>& a, const simd::batch<T>& b) {
  return simd::select(b == b, simd::max_or_second(b, a), b);
}
template <class T>
  requires std::is_arithmetic_v<T>
constexpr T larger(T a, T b) {
  return b > a || !(b == b) ? b : a;
}
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> smaller(const simd::batch<T>& a, const simd::batch<T>& b) {
  return simd::select(b == b, simd::select(b < a, b, a), b);
}
template <class T>
  requires std::is_arithmetic_v<T>
constexpr T smaller(T a, T b) {
  return b < a || !(b == b) ? b : a;
}

template <class T>
inline constexpr T least_of =
    std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
template <class T>
inline constexpr T greatest_of =
    std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity() : std::numeric_limits<T>::max();

}  // namespace detail

/// The larger of two, the earlier of equals.
///
/// Numerics   exact. From a NaN on, everything is NaN. The identity is -infinity.
template <class T>
struct maximum {
  static constexpr T identity() { return detail::least_of<T>; }

  template <class X>
  TOKENMIX_ALWAYS_INLINE X operator()(const X& before, const X& now) const {
    return detail::larger(before, now);
  }
};

/// The smaller of two, the earlier of equals.
///
/// Numerics   exact. From a NaN on, everything is NaN. The identity is infinity.
template <class T>
struct minimum {
  static constexpr T identity() { return detail::greatest_of<T>; }

  template <class X>
  TOKENMIX_ALWAYS_INLINE X operator()(const X& before, const X& now) const {
    return detail::smaller(before, now);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
