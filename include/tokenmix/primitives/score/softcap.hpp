// SPDX-License-Identifier: Apache-2.0
/// @file Soft cap: scores are bent so that none leaves (-cap, cap).
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/simd/sigmoidal.hpp>

#include <cmath>
#include <concepts>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> score_tanh(const simd::batch<T>& x) {
  return simd::tanh(x);
}
/// A plain number takes the way of the registers, so that it gets the same bits.
template <std::floating_point T>
TOKENMIX_ALWAYS_INLINE T score_tanh(T x) {
  alignas(64) T values[static_cast<std::size_t>(simd::lanes<T>)];
  simd::store(values, score_tanh(simd::broadcast(x)));
  return values[0];
}

}  // namespace detail

/// score -> cap * tanh(score / cap)
///
/// Numerics   |error| <= 3.1 u |result| (float), 5 u (double), for scores of any size; +-infinity gives +-cap, NaN gives NaN.
/// Errors     value_error unless 0 < cap < infinity.
/// Source     Gemma 2 (2024), section 2, logit soft-capping; Bello et al. 2016, Neural combinatorial optimization, section 4.
template <class Value>
struct softcap {
  using is_score = void;
  Value cap{};

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& /*where*/) const {
    const Score limit(static_cast<score_number<Score>>(cap));
    return detail::product(limit, detail::score_tanh(detail::quotient(score, limit)));
  }

  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (!(cap > Value(0)) || !std::isfinite(cap))
      detail::fail_value("softcap.cap is ", cap, ": it must be positive and finite");
  }
};
// Without it clang 19 drops `.cap = 0.5f` inside a template: it deduces a designated number once more, from nothing.
template <class Value>
softcap(Value) -> softcap<Value>;

}  // namespace tokenmix::inline TOKENMIX_ABI
