// SPDX-License-Identifier: Apache-2.0
/// @file Step sizes of state spaces: what is made of the numbers given.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/simd/exact_sum.hpp>
#include <tokenmix/simd/math.hpp>

#include <algorithm>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// What a step size is before its limits.
enum class delta_form : unsigned char {
  given,     ///< delta + bias
  softplus,  ///< log(1 + exp(delta + bias))
};

/// Step sizes are clamped to [least, most]: dt_limit. No step is negative.
struct delta_limits {
  double least = 0;
  double most = std::numeric_limits<double>::infinity();
};

namespace detail {

template <class T>
struct delta_steps {
  delta_form form;
  T least, most;

  /// NaN stays NaN.
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x, const simd::batch<T>& bias) const {
    simd::batch<T> rest;
    simd::batch<T> step = simd::sum_and_rest<T>(x, bias, rest);
    // Far below zero the rounding of the sum is as large as that many times the step.
    if (form == delta_form::softplus) step = simd::fma(simd::sigmoid(step), rest, simd::softplus(step));
    step = simd::max_or_second(simd::batch<T>(least), step);
    return simd::select(step > simd::batch<T>(most), simd::batch<T>(most), step);
  }
};

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
