// SPDX-License-Identifier: Apache-2.0
/// @file The relative position bias of neighbourhood attention, as a score modifier of the tiles of a grid.
#pragma once

#include <tokenmix/mixers/window/detail/grid_tiles.hpp>
#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

#include <array>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// score -> score + bias[head][key - query], counted in tokens of a class along every axis.
template <class E>
struct neighborhood_bias {
  using is_score = void;
  static constexpr bool reads_query = true;  // only on tiles that are prepared: there are no others in a grid

  tensor_view<const E, 2> bias;  // (H|1, product of 2 window - 1)
  const grid_tiles& tiles;
  std::array<index_t, static_cast<std::size_t>(grid_rank)> window;
  index_t extra;

  template <class T>
  tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    const grid_tile& of = tiles[tile.batch];
    const index_t first = tile.query_first - (tile.keys - tile.queries);
    const index_t head = bias.extent(0) == 1 ? 0 : tile.head;
    T* const block = frame.template take<T>(tile.key_count * tile.width);   // (key_count, width)
    index_t* const query = frame.template take<index_t>(tile.query_count);  // what a query takes off an entry's number
    const auto number = [&](index_t i, bool box) {
      index_t entry = 0;
      for (std::size_t a = window.size(), unit = 1, left = static_cast<std::size_t>(i); a-- > 0;) {
        const axis_tile& axis = of.axis[a];
        const auto n = static_cast<std::size_t>(box ? axis.box : axis.count);
        const index_t at = static_cast<index_t>(left % n) + (box ? axis.class_box_first : axis.class_first);
        entry += static_cast<index_t>(unit) * (box ? at + window[a] - 1 : at);
        left /= n;
        unit *= static_cast<std::size_t>(2 * window[a] - 1);
      }
      return entry;
    };
    for (index_t i = 0; i < tile.query_count; ++i) query[i] = number(first + i, false);
    for (index_t j = 0; j < tile.key_count; ++j) {
      T* const row = block + j * tile.width;
      std::fill(row, row + tile.width, T(0));
      const index_t key = tile.key_first + j - extra;
      if (key < 0) continue;
      const index_t entry = number(key, true);
      const std::uint32_t seen = of.seen_by[key] >> static_cast<unsigned>(first);
      for (index_t i = 0; i < tile.query_count; ++i) {
        if ((seen >> static_cast<unsigned>(i) & 1u) != 0) row[i] = detail::number<T>(bias(head, entry - query[i]));
      }
    }
    return {block, tile.width, tile.query_first, tile.key_first};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
