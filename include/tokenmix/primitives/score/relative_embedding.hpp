// SPDX-License-Identifier: Apache-2.0
/// @file Relative position embeddings: what a query says to a distance, without a T x S x D or T x L array.
#pragma once

#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI {

/// score -> score + scale * (q + query_bias[head]) . table[head][key - query + zero_entry]
///
/// Music Transformer: L = T rows for the distances -(T - 1) .. 0, zero_entry = L - 1. Shaw: 2 k + 1 rows, centred, clamped.
/// Transformer-XL: rows W_R R_(query - key), and query_bias = v - u where u has been added to q already.
///
/// Shapes     table: (H|1, L, D), last axis contiguous. query_bias: (H|1, D), any strides; none if empty.
/// Numerics   the product is one fma chain over ascending channels from zero, then one rounding: |error| <= (D + 2) u scale |q|.|r|.
/// Cost       2 D (key_count + width) width operations per tile, of which width / key_count is waste; workspace of a tile:
///            (key_count + 3 * 32) * width numbers. Only on tiles with queries in the lanes: reads_query.
/// Errors     shape_error if heads or channels do not fit, or L < 1, or L is even and the table centred; value_error if zero_entry
///            lies outside the table.
/// Source     Shaw et al. 2018, equation (4); Huang et al. 2019, Music Transformer, section 3.4; Dai et al. 2019, Transformer-XL,
///            section 3.3. The skew of the second paper is a choice of diagonal here.
template <class E>
struct relative_embedding {
  using is_score = void;
  static constexpr bool reads_query = true;

  tensor_view<const E, 3> table;                   // (H|1, L, D)
  index_t zero_entry = centred;                    ///< the row of distance 0
  outside_table outside = outside_table::clamped;  ///< what distances get that the table does not hold
  tensor_view<const E, 2> query_bias{};            // (H|1, D)

  template <class T>
  detail::tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    const index_t D = std::min(tile.channels, table.extent(2));
    const index_t width = tile.width;
    T* block = frame.template take<T>(tile.key_count * width);  // (key_count, width): what each pair adds
    const T* query = query_of(tile, D, frame);                  // (D, width)

    // Distances from the tile's last query to its first key up to those from its first query to its last key.
    const index_t entries = table.extent(1);
    const index_t zero = detail::entry_of_zero(zero_entry, entries);
    const index_t first = tile.key_first - (tile.query_first + width - 1) + zero;
    const index_t last = tile.key_first + tile.key_count - 1 - tile.query_first + zero;
    const index_t first_row = detail::nearest_index(first, entries);
    const index_t last_row = detail::nearest_index(last, entries);

    scratch_frame inner;
    constexpr index_t strip = 32;
    T* products = inner.take<T>(strip * width);  // (strip, width): rows of the table times the queries
    T* converted = std::is_same_v<E, T> ? nullptr : inner.take<T>(strip * D);
    const E* rows = table.row(detail::nearest_index(tile.head, table.extent(0)));
    for (index_t row = first_row; row <= last_row; row += strip) {
      const index_t count = std::min(strip, last_row + 1 - row);
      multiply(rows + row * table.stride(1), count, converted, query, D, width, products);
      for (index_t r = 0; r < count; ++r) {
        // The end rows also answer for all that lies beyond them.
        const index_t from = row + r == first_row ? first : row + r;
        const index_t to = row + r == last_row ? last : row + r;
        for (index_t entry = from; entry <= to; ++entry) {
          const bool is_outside = outside == outside_table::zero && entry != row + r;
          write_diagonal(tile, entry - zero, is_outside ? nullptr : products + r * width, block);
        }
      }
    }
    return {block, width, tile.query_first, tile.key_first};
  }

  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t /*keys*/) const {
    detail::check_view("relative_embedding.table", table);
    detail::check_channels_contiguous("relative_embedding.table", table);
    detail::check_broadcast("relative_embedding.table", table, 0, "heads", heads);
    detail::check_not_empty("relative_embedding.table", table, 1, "distances");
    detail::check_zero_entry("relative_embedding", zero_entry, table.extent(1));
    detail::check_view("relative_embedding.query_bias", query_bias);
    if (!query_bias.empty()) detail::check_broadcast("relative_embedding.query_bias", query_bias, 0, "heads", heads);
  }
  void check_channels(index_t channels) const {
    detail::check_extent("relative_embedding.table", table, 2, "channels", channels, "q has as many");
    if (!query_bias.empty()) {
      detail::check_extent("relative_embedding.query_bias", query_bias, 1, "channels", channels, "q has as many");
    }
  }

 private:
  /// scale * (q + query_bias), channel-major.
  template <class T>
  const T* query_of(const score_tile<T>& tile, index_t D, scratch_frame& frame) const {
    if (query_bias.empty()) return tile.scaled_query;
    T* query = frame.template take<T>(D * tile.width);  // (D, width)
    const index_t head = detail::nearest_index(tile.head, query_bias.extent(0));
    for (index_t c = 0; c < D; ++c) {
      const simd::batch<T> bias(detail::number<T>(query_bias(head, detail::nearest_index(c, query_bias.extent(1)))));
      for (index_t i = c * tile.width; i < (c + 1) * tile.width; i += simd::lanes<T>) {
        simd::store(query + i, simd::fma(simd::broadcast(tile.scale), bias, simd::load(tile.scaled_query + i)));
      }
    }
    return query;
  }

  /// products (count, width) = rows (count, D) * query (D, width), in columns as wide as the widest tile product.
  template <class T>
  void multiply(const E* rows, index_t count, T* converted, const T* query, index_t D, index_t width,
                T* products) const {
    const T* left;
    index_t stride;
    if constexpr (std::is_same_v<E, T>) {
      left = rows;
      stride = table.stride(1);
    } else {
      for (index_t r = 0; r < count; ++r) {
        for (index_t c = 0; c < D; ++c) converted[r * D + c] = detail::number<T>(rows[r * table.stride(1) + c]);
      }
      left = converted;
      stride = D;
    }
    constexpr index_t L = simd::lanes<T>;
    for (index_t lane = 0; lane < width; lane += simd::max_tile_vectors * L) {
      simd::with_tile_vectors(std::min(simd::max_tile_vectors, (width - lane) / L), [&](auto vectors) {
        simd::tile_product<T, vectors>({left, stride, 1}, count, query + lane, width, D, products + lane, width, false);
      });
    }
  }

  /// The pairs of a tile that are `distance` apart: lane i meets key query_first + i + distance.
  template <class T>
  static void write_diagonal(const score_tile<T>& tile, index_t distance, const T* product, T* block) {
    const index_t key = tile.query_first + distance - tile.key_first;  // of lane 0, from the tile's first key
    const index_t end = std::min(tile.width, tile.key_count - key);
    for (index_t i = std::max<index_t>(0, -key); i < end; ++i) {
      block[(key + i) * tile.width + i] = product != nullptr ? product[i] : T(0);
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
