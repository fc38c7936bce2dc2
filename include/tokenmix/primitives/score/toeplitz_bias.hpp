// SPDX-License-Identifier: Apache-2.0
/// @file A bias by relative position: a table over key - query.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// score -> score + table[head][key - query + zero_entry]
///
/// A table of T + S - 1 entries with zero_entry = S - 1 holds every distance of a call; one of 2 M - 1 entries, centred, holds
/// those up to M - 1 to either side.
///
/// Shapes     table: (H|1, L), any strides.
/// Numerics   one rounding.
/// Cost       workspace of a tile: key_count + width - 1 numbers.
/// Errors     shape_error if the heads are neither 1 nor H, or L < 1, or L is even and the table centred; value_error if zero_entry
///            lies outside the table.
/// Source     Ma et al. 2023, MEGA, appendix (simple relative bias); Ren et al. 2023, SeqBoat, section 3.
template <class E>
struct toeplitz_bias {
  using is_score = void;
  tensor_view<const E, 2> table;                   // (H|1, L)
  index_t zero_entry = centred;                    ///< the entry of distance 0
  outside_table outside = outside_table::clamped;  ///< what distances get that the table does not hold

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    const auto at = [this](index_t h, index_t distance) { return value<score_number<Score>>(h, distance); };
    return detail::sum(score, detail::look_up<Score>(at, where.head, where.key - where.query));
  }

  template <class T>
  detail::tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    return detail::prepare_diagonals(tile, frame, [&](index_t distance) { return value<T>(tile.head, distance); });
  }

  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t /*keys*/) const {
    detail::check_view("toeplitz_bias.table", table);
    detail::check_broadcast("toeplitz_bias.table", table, 0, "heads", heads);
    detail::check_not_empty("toeplitz_bias.table", table, 1, "distances");
    detail::check_zero_entry("toeplitz_bias", zero_entry, table.extent(1));
  }

 private:
  template <class T>
  T value(index_t head, index_t distance) const {
    const index_t entries = table.extent(1);
    const index_t entry = distance + detail::entry_of_zero(zero_entry, entries);
    if (outside == outside_table::zero && (entry < 0 || entry >= entries)) return T(0);
    return detail::number<T>(
        table(detail::nearest_index(head, table.extent(0)), detail::nearest_index(entry, entries)));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
