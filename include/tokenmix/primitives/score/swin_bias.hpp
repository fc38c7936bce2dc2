// SPDX-License-Identifier: Apache-2.0
/// @file Swin's bias: a table over the two-dimensional relative position of two tokens of a window.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Height and width of a window of tokens that are numbered row by row.
struct window_shape {
  index_t height = 1;  ///< Wh
  index_t width = 1;   ///< Ww
};

/// score -> score + table[(yq - yk + Wh - 1) (2 Ww - 1) + (xq - xk + Ww - 1)][head],  token = y Ww + x
///
/// Shapes     table: ((2 Wh - 1) (2 Ww - 1), H|1), any strides; a sequence is one window: S = Wh Ww, T <= S.
/// Numerics   one rounding.
/// Cost       workspace of a tile: key_count * width numbers.
/// Errors     shape_error if the table, T or S do not fit the window; value_error if the window is empty.
/// Source     Liu et al. 2021, Swin transformer, equation (4), with the authors' order of the table.
template <class E>
struct swin_bias {
  using is_score = void;
  tensor_view<const E, 2> table;  // ((2 Wh - 1) (2 Ww - 1), H|1)
  window_shape window{};

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    const auto at = [this](index_t h, index_t q, index_t k) { return value<score_number<Score>>(h, q, k); };
    return detail::sum(score, detail::look_up<Score>(at, where.head, where.query, where.key));
  }

  template <class T>
  detail::tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    T* block = frame.template take<T>(tile.key_count * tile.width);  // (key_count, width)
    for (index_t j = 0; j < tile.key_count; ++j) {
      for (index_t i = 0; i < tile.width; ++i) {
        block[j * tile.width + i] = value<T>(tile.head, tile.query_first + i, tile.key_first + j);
      }
    }
    return {block, tile.width, tile.query_first, tile.key_first};
  }

  void check(index_t /*batches*/, index_t heads, index_t queries, index_t keys) const {
    detail::check_view("swin_bias.table", table);
    detail::check_broadcast("swin_bias.table", table, 1, "heads", heads);
    if (window.height < 1 || window.width < 1) {
      detail::fail_value("swin_bias.window is ", window.height, " x ", window.width, ": both must be at least 1");
    }
    const index_t tokens = window.height * window.width;
    const index_t entries = (2 * window.height - 1) * (2 * window.width - 1);
    if (table.extent(0) != entries) {
      detail::fail_shape("swin_bias.table has ", table.extent(0), " rows, expected ", entries, ": the window is ",
                         window.height, " x ", window.width);
    }
    if (keys != tokens || queries > keys) {
      detail::fail_shape("swin_bias.window has ", tokens, " tokens, q has ", queries, " and k has ", keys,
                         ": a sequence must be one window");
    }
  }

 private:
  template <class T>
  T value(index_t head, index_t query, index_t key) const {
    const index_t tokens = window.height * window.width;
    const index_t q = detail::nearest_index(query, tokens);
    const index_t k = detail::nearest_index(key, tokens);
    const index_t dy = q / window.width - k / window.width + window.height - 1;
    const index_t dx = q % window.width - k % window.width + window.width - 1;
    return detail::number<T>(table(dy * (2 * window.width - 1) + dx, detail::nearest_index(head, table.extent(1))));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
