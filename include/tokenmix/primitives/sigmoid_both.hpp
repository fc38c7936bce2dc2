// SPDX-License-Identifier: Apache-2.0
/// @file A sigmoid and its complement from one exponential, and what follows from them: for kernels that memory should bound.
#pragma once

#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/simd/math.hpp>

#include <array>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// sigmoid(x) and sigmoid(-x), each within (6 + 3 |x|) u of itself and 4 u of 1; exactly 0 and 1 far out.
template <class T>
struct sigmoid_and_rest {
  simd::batch<T> value, rest;
};
template <class T>
TOKENMIX_ALWAYS_INLINE sigmoid_and_rest<T> sigmoid_both(const simd::batch<T>& x) {
  const simd::batch<T> zero(T(0)), one(T(1));
  const simd::batch<T> e = simd::exp_nonpositive(x | simd::batch<T>(T(-0.0)));
  const simd::batch<T> large = simd::divide<T>(one, one + e), small = e * large;
  const auto negative = x < zero;
  return {simd::select(negative, small, large), simd::select(negative, large, small)};
}

/// sigmoid(x) and sigmoid(y) with one division, each within (8 + 3 |x|) u of itself.
template <class T>
TOKENMIX_ALWAYS_INLINE std::array<simd::batch<T>, 2> two_sigmoids(const simd::batch<T>& x, const simd::batch<T>& y) {
  const simd::batch<T> zero(T(0)), one(T(1)), sign(T(-0.0));
  const simd::batch<T> of_x = simd::exp_nonpositive(x | sign), of_y = simd::exp_nonpositive(y | sign);
  const simd::batch<T> a = one + of_x, b = one + of_y;  // 1 to 2: their product is far from any border
  const simd::batch<T> inverse = simd::divide<T>(one, a * b);
  return {simd::select(x < zero, of_x, one) * (inverse * b), simd::select(y < zero, of_y, one) * (inverse * a)};
}

/// x sigmoid(x) within 5 u; the feature map silu is within 2, by way of double. Where e^-x is infinite, zero of the sign of x.
struct silu_of_one_exponential {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return simd::divide<T>(x, simd::batch<T>(T(1)) + simd::exp(simd::batch<T>(T(0)) - x));
  }
};

/// What a kernel calls for an activation.
template <class Activation>
using kernel_activation = std::conditional_t<std::is_same_v<Activation, silu>, silu_of_one_exponential, Activation>;
template <class Activation>
const kernel_activation<Activation>& activation_of(const Activation& activation) {
  if constexpr (std::is_same_v<Activation, silu>) {
    static constexpr silu_of_one_exponential instance{};
    return instance;
  } else {
    return activation;
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
