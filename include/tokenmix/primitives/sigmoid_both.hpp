// SPDX-License-Identifier: Apache-2.0
/// @file A sigmoid and its complement from one exponential, and what follows from them: for kernels that memory should bound.
#pragma once

#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/simd/math.hpp>

#include <limits>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// x sigmoid(gate) within (5 + 2 |gate|) u. Zero of the sign of x where e^-gate is infinite.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> gated(const simd::batch<T>& x, const simd::batch<T>& gate) {
  return simd::divide<T>(x, simd::batch<T>(T(1)) + simd::exp_of_minus<T>(gate));
}

/// sigmoid(x) and sigmoid(-x), each within (6 + 2 |x|) u of itself and 4 u of 1. Far above the first is 1 and the second exactly
/// 0; far below the second is 1 and the first, since both come from one exponential, the least normal number.
template <class T>
struct sigmoid_and_rest {
  simd::batch<T> value, rest;
};
template <class T>
TOKENMIX_ALWAYS_INLINE sigmoid_and_rest<T> sigmoid_both(const simd::batch<T>& x) {
  const simd::batch<T> most(T(1) / std::numeric_limits<T>::min());
  const simd::batch<T> e = simd::min_or_second(most, simd::exp_of_minus<T>(x));
  const simd::batch<T> value = simd::divide<T>(simd::batch<T>(T(1)), simd::batch<T>(T(1)) + e);
  return {value, e * value};
}

/// x sigmoid(x) within (5 + |x| / 20) u, in double 5 u; the feature map silu is within 2, by way of double. Zero of the sign of x
/// where e^-x is infinite.
struct silu_of_one_exponential {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return simd::divide<T>(x, simd::batch<T>(T(1)) + simd::exp_of_minus_reduced<T>(x));
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
