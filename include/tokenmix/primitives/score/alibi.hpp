// SPDX-License-Identifier: Apache-2.0
/// @file ALiBi: attention with linear biases, a penalty per head that grows with distance.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

#include <bit>
#include <cmath>
#include <vector>

namespace tokenmix::inline TOKENMIX_ABI {

/// The paper's slopes of H heads: 2^(-8/H), 2^(-16/H), ... where H is a power of two.
///
/// Otherwise the slopes of the next lower power of two P, then every other slope of 2 P heads, as the authors' code has it.
///
/// Numerics   each correctly rounded but for one ulp of exp2.
/// Source     Press, Smith, Lewis 2022, Train short, test long, section 3, and ofirpress/attention_with_linear_biases.
inline std::vector<double> alibi_slopes(index_t heads) {
  if (heads < 0) detail::fail_value("heads is ", heads, ": expected at least 0");
  std::vector<double> slopes;
  if (heads == 0) return slopes;
  slopes.reserve(static_cast<std::size_t>(heads));
  const auto lower = static_cast<index_t>(std::bit_floor(static_cast<std::size_t>(heads)));
  const auto slope = [](index_t i, index_t of) {
    return std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(of));
  };
  for (index_t i = 0; i < lower; ++i) slopes.push_back(slope(i, lower));
  for (index_t i = 0; i < heads - lower; ++i) slopes.push_back(slope(2 * i, 2 * lower));
  return slopes;
}

namespace detail {

/// The slope of the one head that a tile belongs to.
template <class T>
struct tile_alibi {
  using is_score = void;
  T negative_slope;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& score, const Index& where) const {
    return multiply_add(simd::broadcast(negative_slope), magnitude(as_score(score, where.query - where.key)), score);
  }

  template <class Score>
  static TOKENMIX_ALWAYS_INLINE Score magnitude(const Score& distance) {
    const Score opposite = Score(T(0)) - distance;
    if constexpr (std::is_same_v<Score, T>) {
      return distance < T(0) ? opposite : distance;
    } else {
      return simd::max_or_second(distance, opposite);
    }
  }
};

}  // namespace detail

/// score -> score - slopes[head] * |query - key|
///
/// Under a causal mask this is the paper's; without one it is the symmetric form for bidirectional attention.
///
/// Shapes     slopes: one number per query head, in anything with size() and []: a vector, a span, a view of rank 1.
/// Numerics   one rounding (fma) where the instruction set has it, else two; distances are exact up to 2^24 (float).
/// Errors     shape_error if there are not H slopes.
/// Source     Press, Smith, Lewis 2022, Train short, test long, section 3.
template <class Slopes>
struct alibi {
  using is_score = void;
  Slopes slopes;  // (H)

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    using T = score_number<Score>;
    const Score negative_slope = detail::look_up<Score>(
        [this](index_t h) { return -static_cast<T>(detail::head_value(slopes, h)); }, where.head);
    const Score distance = as_score(score, where.query - where.key);
    return detail::multiply_add(negative_slope, detail::tile_alibi<T>::magnitude(distance), score);
  }

  template <class T>
  TOKENMIX_ALWAYS_INLINE detail::tile_alibi<T> prepare(const score_tile<T>& tile, scratch_frame& /*frame*/) const {
    return {-static_cast<T>(detail::head_value(slopes, tile.head))};
  }

  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t /*keys*/) const {
    detail::check_head_values("alibi.slopes", slopes, heads);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
