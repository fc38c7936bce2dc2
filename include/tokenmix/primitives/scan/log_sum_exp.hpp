// SPDX-License-Identifier: Apache-2.0
/// @file Logarithms of sums of exponentials.
#pragma once

#include <tokenmix/primitives/scan/operation.hpp>
#include <tokenmix/simd/math.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// The larger of two exponents, and what brings sums relative to each of them to it. One of the factors is 1.
template <class T>
struct common_exponent {
  simd::batch<T> m;
  simd::batch<T> before;
  simd::batch<T> now;

  TOKENMIX_ALWAYS_INLINE common_exponent(const simd::batch<T>& a, const simd::batch<T>& b) {
    const simd::batch<T> one(T(1));
    const auto first = a > b;
    m = simd::select(first, a, b);
    const simd::batch<T> other = simd::select(first, b, a);
    // Equal infinities are no distance apart; NaN stays one.
    const simd::batch<T> distance = simd::select(a == b, simd::batch<T>(T(0)), other - m);
    const simd::batch<T> factor = simd::exp_nonpositive(distance);
    before = simd::select(first, one, factor);
    now = simd::select(first, factor, one);
  }
};

}  // namespace detail

/// log(exp(a) + exp(b)), as a pair: the sum is l exp(m), m the largest exponent so far.
///
/// Numerics   |error| <= (8 + log2 n) u + 2 u |result|, u of T: no error grows with the number of terms but that of
///            l. -infinity adds nothing; infinity gives infinity; from a NaN on, everything is NaN.
template <class T>
struct log_sum_exp {
  template <class X>
  struct value {
    X m;
    X l;
  };

  static constexpr value<T> identity() { return {-std::numeric_limits<T>::infinity(), T(0)}; }

  static TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> lift(const simd::batch<T>& x) {
    return {x, simd::batch<T>(T(1))};
  }
  TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> operator()(const value<simd::batch<T>>& before,
                                                          const value<simd::batch<T>>& now) const {
    const detail::common_exponent<T> to(before.m, now.m);
    return {to.m, simd::fma(before.l, to.before, detail::product(now.l, to.now))};
  }
  static TOKENMIX_ALWAYS_INLINE simd::batch<T> read(const value<simd::batch<T>>& v) {
    return detail::sum(v.m, simd::log(v.l));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
