// SPDX-License-Identifier: Apache-2.0
/// @file Temperatures: scores are divided by a number, by one per head, or by one per query.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// score -> score / value
///
/// A bias that stands before it in a composition is divided too: `alibi{slopes} | temperature{0.5f}`.
///
/// Numerics   one rounding.
/// Errors     value_error unless 0 < value < infinity.
/// Source     Zhou et al. 2024, Length-induced embedding collapse, section 4 (TempScale).
template <class Value>
struct temperature {
  using is_score = void;
  Value value{1};

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& /*where*/) const {
    return detail::quotient(score, Score(static_cast<score_number<Score>>(value)));
  }

  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (!(value > Value(0)) || !std::isfinite(value)) {
      detail::fail_value("temperature.value is ", value, ": it must be positive and finite");
    }
  }
};
// Without it clang 19 drops `.value = 0.5f` inside a template: it deduces a designated number once more, from nothing.
template <class Value>
temperature(Value) -> temperature<Value>;

/// score -> score / values[head]
///
/// Shapes     values: one number per query head, in anything with size() and [].
/// Numerics   one rounding. The values are used as they are: a zero or a NaN gives what the division gives.
/// Errors     shape_error if there are not H values.
template <class Values>
struct head_temperature {
  using is_score = void;
  Values values;  // (H)

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    return detail::quotient(
        score, detail::look_up<Score>([this](index_t h) { return detail::head_value(values, h); }, where.head));
  }

  template <class T>
  TOKENMIX_ALWAYS_INLINE temperature<T> prepare(const score_tile<T>& tile, scratch_frame& /*frame*/) const {
    return {static_cast<T>(detail::head_value(values, tile.head))};
  }

  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t /*keys*/) const {
    detail::check_head_values("head_temperature.values", values, heads);
  }
};

namespace detail {

/// Divides by the numbers that were laid out for the queries of one tile.
template <class T>
struct tile_temperature {
  using is_score = void;
  const T* values;  // (width)
  index_t query_first;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& score, const Index& where) const {
    return quotient(score, simd::load(values + (where.query[0] - query_first)));
  }
};

}  // namespace detail

/// score -> score / values(batch, head, query row)
///
/// Shapes     values: (B|1, H|1, T|1), any strides; an axis of extent 1 serves all.
/// Numerics   one rounding. The values are used as they are: a zero or a NaN gives what the division gives.
/// Errors     shape_error if an extent is neither 1 nor the call's.
/// Source     Zhang et al. 2024, Selective self-attention, section 3 (with the reciprocal, the query's inverse temperature).
template <class E>
struct query_temperature {
  using is_score = void;
  tensor_view<const E, 3> values;  // (B|1, H|1, T|1)

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    using T = score_number<Score>;
    return detail::quotient(
        score, detail::look_up<Score>([this, b = where.batch](index_t h, index_t row) { return at<T>(b, h, row); },
                                      where.head, where.query_row()));
  }

  template <class T>
  detail::tile_temperature<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    T* numbers = frame.template take<T>(tile.width);
    const index_t first_row = tile.query_first - (tile.keys - tile.queries);
    for (index_t i = 0; i < tile.width; ++i) numbers[i] = at<T>(tile.batch, tile.head, first_row + i);
    return {numbers, tile.query_first};
  }

  void check(index_t batches, index_t heads, index_t queries, index_t /*keys*/) const {
    detail::check_view("query_temperature.values", values);
    detail::check_broadcast("query_temperature.values", values, 0, "batches", batches);
    detail::check_broadcast("query_temperature.values", values, 1, "heads", heads);
    detail::check_broadcast("query_temperature.values", values, 2, "queries", queries);
  }

 private:
  template <class T>
  T at(index_t batch, index_t head, index_t row) const {
    return detail::number<T>(values(detail::nearest_index(batch, values.extent(0)),
                                    detail::nearest_index(head, values.extent(1)),
                                    detail::nearest_index(row, values.extent(2))));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
