// SPDX-License-Identifier: Apache-2.0
/// @file Keys and values of the tiles of a grid, read in place, and the mask between a tile's tokens and its box.
#pragma once

#include <tokenmix/mixers/window/detail/grid_tiles.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The keys of a tile's box, after extra ones that all tokens see.
template <class E>
struct grid_source {
  using stored_type = E;

  tensor_view<const E, 4> k;        // (B, Hk, T, D)
  tensor_view<const E, 4> v;        // (B, Hk, T, Dv)
  tensor_view<const E, 4> extra_k;  // (B|1, Hk, P, D)
  tensor_view<const E, 4> extra_v;  // (B|1, Hk, P, Dv)
  const grid_tiles& tiles;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(k, extra_k, seq, head, position);
  }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(v, extra_v, seq, head, position);
  }
  index_t query_row(const sequence& seq, index_t i) const { return tiles.query_row(tiles[seq.number], i); }

  constexpr index_t batches() const { return k.extent(0); }
  constexpr index_t heads() const { return k.extent(1); }
  constexpr index_t most_keys() const { return k.extent(2); }
  constexpr index_t extra_keys() const { return extra_k.extent(2); }
  constexpr index_t key_width() const { return k.extent(3); }
  constexpr index_t value_width() const { return v.extent(3); }

 private:
  row_run<E> run(const tensor_view<const E, 4>& own, const tensor_view<const E, 4>& extra, const sequence& seq,
                 index_t head, index_t position) const {
    const index_t before = extra.extent(2);
    if (position < before) {
      return {extra.row(extra.extent(0) == 1 ? 0 : seq.batch, head, position), extra.stride(2), before - position};
    }
    const grid_tile& tile = tiles[seq.number];
    return {own.row(seq.batch, head, tiles.key_row(tile, position - before)), own.stride(2) * tiles.step(),
            grid_tiles::run_of_keys(tile, position - before)};
  }
};

/// A token sees the extra keys and its own window of the box.
struct grid_mask {
  using is_mask = void;
  const grid_tiles& tiles;
  index_t extra;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE auto operator()(const Index& where) const {
    const std::uint32_t word = where.key < extra ? ~std::uint32_t{0} : tiles[where.batch].seen_by[where.key - extra];
    const index_t first = where.keys - where.queries;
    if constexpr (simd::is_positions<std::remove_cvref_t<decltype(where.query)>>) {
      using T = lane_type<Index>;
      return simd::lane_mask<T>{simd::from_bits<T>(word >> static_cast<unsigned>(where.query.base - first))};
    } else {
      return (word >> static_cast<unsigned>(where.query - first) & 1u) != 0;
    }
  }
  span run(const query_block& block, index_t key) const {
    if (key < extra) return {key, extra, coverage::all};
    return {key, block.keys, coverage::some};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
