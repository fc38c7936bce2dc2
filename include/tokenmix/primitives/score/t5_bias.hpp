// SPDX-License-Identifier: Apache-2.0
/// @file T5's bias: a table over buckets of relative positions, exact nearby and logarithmic farther out.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which keys T5's buckets tell apart.
enum class t5_sides : unsigned char {
  both,  ///< encoder: half of the buckets for keys at or before the query, half for those after it
  past,  ///< decoder: all buckets for keys at or before the query; later keys fall into bucket 0
};

/// T5's bucket of a relative position key - query.
///
///     n      = |key - query|                                     (past: max(query - key, 0))
///     bucket = n                                                 for n < exact = buckets / 2
///              exact + floor((buckets - exact) * log(n / exact) / log(max_distance / exact)), at most buckets - 1, beyond
///
/// With both sides this is done on buckets / 2, and later keys come after all earlier ones. The floor is that of exact
/// arithmetic: where the quotient of logarithms is a whole number, rounding does not lose it.
///
/// Errors     preconditions: buckets >= 2 (both: >= 4), max_distance > exact.
/// Source     Raffel et al. 2020, T5, section 2.1; the formula is that of the authors' code (mesh, _relative_position_bucket).
class t5_buckets {
 public:
  t5_buckets(index_t buckets, index_t max_distance, t5_sides sides)
      : sides_(sides),
        buckets_(sides == t5_sides::both ? buckets / 2 : buckets),
        exact_(buckets_ / 2),
        max_distance_(max_distance),
        steps_per_log_(static_cast<double>(buckets_ - exact_) /
                       std::log(static_cast<double>(max_distance) / static_cast<double>(exact_))) {}

  index_t operator()(index_t relative) const {
    const bool is_later = relative > 0;
    const index_t first = is_later && sides_ == t5_sides::both ? buckets_ : 0;
    const index_t n = !is_later ? -relative : sides_ == t5_sides::both ? relative : 0;
    if (n < exact_) return first + n;
    if (n >= max_distance_) return first + buckets_ - 1;
    const double steps = steps_per_log_ * std::log(static_cast<double>(n) / static_cast<double>(exact_));
    // Rounding moves `steps` by less than 1e-12. A quotient that is no whole number keeps farther away: for up to 128 buckets
    // and distances up to 4096, all tried in integers, more than 1e-8.
    const double nearest = std::round(steps);
    const double whole = std::abs(steps - nearest) < 1e-10 ? nearest : std::floor(steps);
    const index_t bucket = exact_ + static_cast<index_t>(whole);
    return first + (bucket < buckets_ ? bucket : buckets_ - 1);
  }

 private:
  t5_sides sides_;
  index_t buckets_;
  index_t exact_;
  index_t max_distance_;
  double steps_per_log_;
};

/// The bucket of one relative position.
inline index_t t5_bucket(index_t relative, index_t buckets, index_t max_distance, t5_sides sides) {
  return t5_buckets(buckets, max_distance, sides)(relative);
}

/// score -> score + table[head][t5_bucket(key - query)]
///
/// T5 does not scale its scores: use it with `.scale = 1`.
///
/// Shapes     table: (H|1, buckets), any strides. A checkpoint's (buckets, H) embedding is its `permuted({1, 0})`.
/// Numerics   one rounding.
/// Cost       workspace of a tile: key_count + width - 1 numbers; a logarithm per distance between the exact ones and max_distance.
/// Errors     shape_error if the heads are neither 1 nor H, or there are less than 2 buckets (both sides: 4); value_error unless
///            max_distance is larger than the exact distances.
/// Source     Raffel et al. 2020, T5, section 2.1.
template <class E>
struct t5_bias {
  using is_score = void;
  tensor_view<const E, 2> table;  // (H|1, buckets)
  t5_sides sides = t5_sides::both;
  index_t max_distance = 128;

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    const t5_buckets bucket_of(table.extent(1), max_distance, sides);
    const auto at = [&](index_t h, index_t relative) { return value<score_number<Score>>(h, bucket_of(relative)); };
    return detail::sum(score, detail::look_up<Score>(at, where.head, where.key - where.query));
  }

  template <class T>
  detail::tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    const t5_buckets bucket_of(table.extent(1), max_distance, sides);
    return detail::prepare_diagonals(tile, frame,
                                     [&](index_t relative) { return value<T>(tile.head, bucket_of(relative)); });
  }

  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t /*keys*/) const {
    detail::check_view("t5_bias.table", table);
    detail::check_broadcast("t5_bias.table", table, 0, "heads", heads);
    const index_t least = sides == t5_sides::both ? 4 : 2;
    if (table.extent(1) < least) {
      detail::fail_shape("t5_bias.table has ", table.extent(1), " buckets, expected at least ", least);
    }
    const index_t exact = table.extent(1) / least;
    if (max_distance <= exact) {
      detail::fail_value("t5_bias.max_distance is ", max_distance, ": it must be larger than the ", exact,
                         " distances that have a bucket of their own");
    }
  }

 private:
  template <class T>
  T value(index_t head, index_t bucket) const {
    return detail::number<T>(table(detail::nearest_index(head, table.extent(0)), bucket));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
