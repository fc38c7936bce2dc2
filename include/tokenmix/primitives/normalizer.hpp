// SPDX-License-Identifier: Apache-2.0
/// @file How scores become weights: softmax, or an elementwise function without a sum.
#pragma once

#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/math.hpp>

#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A normaliser says how scores become weights. `sums_to_one` ones are softmaxes, computed with the running max; the others
/// give the weight of each score on its own: `weight(batch<T>) -> batch<T>`, with weight(-inf) never asked for.
template <class N>
concept normalizer = requires { typename N::is_normalizer; };

/// w = exp(s) / sum of exp(s).
struct softmax_weights {
  using is_normalizer = void;
  static constexpr bool sums_to_one = true;
  static constexpr bool extra_zero_logit = false;
};

/// w = exp(s) / (1 + sum of exp(s)): one more key with logit 0 and value 0, so a query may attend to nothing.
struct softmax_off_by_one {
  using is_normalizer = void;
  static constexpr bool sums_to_one = true;
  static constexpr bool extra_zero_logit = true;
};

/// w = 1 / (1 + exp(-(s + bias))). Ramapuram et al. 2024 take bias = -log S.
struct sigmoid_weights {
  using is_normalizer = void;
  static constexpr bool sums_to_one = false;
  double bias = 0;

  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> weight(const simd::batch<T>& s) const {
    return simd::sigmoid(s + simd::batch<T>(static_cast<T>(bias)));
  }
};

/// w = factor * max(s, 0)^2.
struct relu_squared_weights {
  using is_normalizer = void;
  static constexpr bool sums_to_one = false;
  double factor = 1;

  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> weight(const simd::batch<T>& s) const {
    const simd::batch<T> zero(T(0));
    const simd::batch<T> positive = simd::select(s <= zero, zero, s);  // NaN stays
    return (positive * positive) * simd::batch<T>(static_cast<T>(factor));
  }
};

/// w = (1 + erf((s - mean) / (deviation * sqrt 2))) / 2: Ma et al. 2022 (MEGA), equation 18, whose constants are the default.
struct laplace_weights {
  using is_normalizer = void;
  static constexpr bool sums_to_one = false;
  double mean = 0.70710678118654752440;       ///< sqrt(1/2)
  double deviation = 0.28209479177387814347;  ///< sqrt(1/(4 pi))

  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> weight(const simd::batch<T>& s) const {
    const simd::batch<T> distance = s - simd::batch<T>(static_cast<T>(mean));
    const simd::batch<T> x = distance * simd::batch<T>(static_cast<T>(0.70710678118654752440 / deviation));
    const simd::batch<T> half(static_cast<T>(0.5));
    return simd::fma(simd::erf(x), half, half);
  }
};

/// w = s: no normaliser at all.
struct score_weights {
  using is_normalizer = void;
  static constexpr bool sums_to_one = false;

  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> weight(const simd::batch<T>& s) const {
    return s;
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
