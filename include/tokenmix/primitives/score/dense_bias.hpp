// SPDX-License-Identifier: Apache-2.0
/// @file A bias that is a tensor: one number per pair, axes of extent 1 shared.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// score -> score + values(batch, head, query row, key)
///
/// Shapes     values: (B|1, H|1, T|1, S|1), any strides, broadcast ones included; an axis of extent 1 serves all.
/// Numerics   values as T (16-bit types exactly), then one rounding. -infinity hides a pair; a NaN reaches the query that
///            sees the pair.
/// Cost       every value of a tile is read once; workspace of a tile: key_count * width numbers.
/// Errors     shape_error if an extent is neither 1 nor the call's.
template <class E>
struct dense_bias {
  using is_score = void;
  tensor_view<const E, 4> values;  // (B|1, H|1, T|1, S|1)

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    const index_t b = detail::nearest_index(where.batch, values.extent(0));
    const auto at = [&](index_t h, index_t row, index_t key) TOKENMIX_LAMBDA_INLINE {
      return detail::number<score_number<Score>>(values(b, detail::nearest_index(h, values.extent(1)),
                                                        detail::nearest_index(row, values.extent(2)),
                                                        detail::nearest_index(key, values.extent(3))));
    };
    return detail::sum(score, detail::look_up<Score>(at, where.head, where.query_row(), where.key));
  }

  /// Lays the tile's block out with queries next to each other.
  template <class T>
  detail::tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    T* block = frame.template take<T>(tile.key_count * tile.width);  // (key_count, width)
    const E* head = values.row(detail::nearest_index(tile.batch, values.extent(0)),
                               detail::nearest_index(tile.head, values.extent(1)));
    const index_t rows = values.extent(2);
    const index_t keys = values.extent(3);
    const index_t first_row = tile.query_first - (tile.keys - tile.queries);
    const auto key_offset = [&](index_t j) {
      return detail::nearest_index(tile.key_first + j, keys) * values.stride(3);
    };
    if (rows == 1) {
      for (index_t j = 0; j < tile.key_count; ++j) {
        std::fill_n(block + j * tile.width, tile.width, detail::number<T>(head[key_offset(j)]));
      }
    } else if (transposes<T>() && first_row >= 0 && first_row < rows && tile.key_first + tile.key_count <= keys) {
      const index_t valid = std::min(tile.width, rows - first_row);
      if constexpr (transposes_elements<T>) {
        simd::transpose_in(head + first_row * values.stride(2) + tile.key_first, values.stride(2), valid,
                           tile.key_count, block, tile.width);
      }
      const index_t written = (valid + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
      for (index_t j = 0; j < tile.key_count; ++j) {
        std::fill_n(block + j * tile.width + written, tile.width - written, T(0));
      }
    } else {
      // A strip of keys short enough that its rows stay in the cache while all queries write to them.
      constexpr index_t strip = 16;
      for (index_t first = 0; first < tile.key_count; first += strip) {
        const index_t last = std::min(first + strip, tile.key_count);
        for (index_t i = 0; i < tile.width; ++i) {
          const E* row = head + detail::nearest_index(first_row + i, rows) * values.stride(2);
          for (index_t j = first; j < last; ++j) {
            block[j * tile.width + i] = detail::number<T>(row[key_offset(j)]);
          }
        }
      }
    }
    return {block, tile.width, tile.query_first, tile.key_first};
  }

  void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    detail::check_view("dense_bias.values", values);
    detail::check_broadcast("dense_bias.values", values, 0, "batches", batches);
    detail::check_broadcast("dense_bias.values", values, 1, "heads", heads);
    detail::check_broadcast("dense_bias.values", values, 2, "queries", queries);
    detail::check_broadcast("dense_bias.values", values, 3, "keys", keys);
  }

 private:
  template <class T>
  static constexpr bool transposes_elements = std::is_same_v<simd::computed_t<E>, T>;
  template <class T>
  bool transposes() const {
    return transposes_elements<T> && values.stride(3) == 1;
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
