// SPDX-License-Identifier: Apache-2.0
/// @file What score modifiers are written with: numbers of positions and table look-ups by lane.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/primitives/arithmetic.hpp>
#include <tokenmix/primitives/index.hpp>

#include <array>
#include <concepts>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A position or a difference of positions as a number like the score, correctly rounded below 2^31.
///
///     [](auto score, auto where) { return score - 0.1f * mix::as_score(score, where.query - where.key); }
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> as_score(const simd::batch<T>& /*score*/, simd::positions<T> p) {
  return simd::to_batch(p);
}
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> as_score(const simd::batch<T>& /*score*/, index_t p) {
  return simd::broadcast(static_cast<T>(p));
}
template <std::floating_point T>
constexpr T as_score(T /*score*/, index_t p) {
  return static_cast<T>(p);
}

namespace detail {

// ---- tables ---------------------------------------------------------------------------------------------------------

/// One element of a table as a number of type T.
template <class T, class E>
constexpr T number(const E& value) {
  if constexpr (element<E>) {
    return static_cast<T>(static_cast<accumulator_t<E>>(value));
  } else {
    return static_cast<T>(value);
  }
}

/// i if it is in [0, n), else the nearest index that is. Positions of padding lanes and hidden pairs may be anything.
constexpr index_t nearest_index(index_t i, index_t n) { return i < 0 ? 0 : i < n ? i : n - 1; }

template <class T>
struct lane_positions {
  index_t base;
  std::array<simd::integer_of<T>, static_cast<std::size_t>(simd::lanes<T>)> offset;
  index_t operator[](index_t i) const { return base + static_cast<index_t>(offset[static_cast<std::size_t>(i)]); }
};
struct same_position {
  index_t position;
  index_t operator[](index_t /*i*/) const { return position; }
};

template <class T>
TOKENMIX_ALWAYS_INLINE lane_positions<T> by_lane(const simd::positions<T>& p) {
  lane_positions<T> result{p.base, {}};
  simd::store(result.offset.data(), p.offset);
  return result;
}
TOKENMIX_ALWAYS_INLINE same_position by_lane(index_t p) { return {p}; }

/// f(field...) like the score: asked once where every field is a number, and lane by lane where one has lanes.
template <class Score, class F, class... Fields>
TOKENMIX_ALWAYS_INLINE Score look_up(F&& f, const Fields&... fields) {
  using T = score_number<Score>;
  if constexpr (!(simd::is_positions<Fields> || ...)) {
    return Score(static_cast<T>(f(fields...)));
  } else {
    alignas(64) T values[static_cast<std::size_t>(simd::lanes<T>)];
    [&](const auto&... lane) TOKENMIX_LAMBDA_INLINE {
      for (index_t i = 0; i < simd::lanes<T>; ++i) values[i] = static_cast<T>(f(lane[i]...));
    }(by_lane(fields)...);
    return simd::load(values);
  }
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

/// Adds numbers that were laid out for one tile: bias[query - query_first + (key - key_first) * key_step].
///
/// Queries of the tile are consecutive, so a register of scores reads a register of numbers: no gather.
template <class T>
struct tile_bias {
  using is_score = void;
  const T* bias;
  index_t key_step;
  index_t query_first;
  index_t key_first;

  template <class Head>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& score,
                                                   const basic_index<Head, simd::positions<T>, index_t>& where) const {
    const index_t at = (where.query[0] - query_first) + (where.key - key_first) * key_step;
    return sum(score, simd::load(bias + at));
  }
};

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
