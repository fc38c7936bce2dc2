// SPDX-License-Identifier: Apache-2.0
/// @file Keys and values of the tiles of a grid, read in place, and the mask between a tile's tokens and its box.
#pragma once

#include <tokenmix/mixers/window/detail/grid_tiles.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The keys of a tile's box, after extra ones that all tokens see.
template <class E>
struct grid_source : key_value_tensors<E> {
  const grid_tiles& tiles;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(this->k, this->extra_k, seq, head, position);
  }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(this->v, this->extra_v, seq, head, position);
  }
  index_t query_row(const sequence& seq, index_t i) const { return tiles.query_row(tiles[seq.number], i); }

 private:
  row_run<E> run(const tensor_view<const E, 4>& own, const tensor_view<const E, 4>& extra, const sequence& seq,
                 index_t head, index_t position) const {
    const index_t before = extra.extent(2);
    if (position < before) return this->extra_run(extra, seq, head, position);
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

  bool operator()(const index& where) const { return (seen_by(block_of(where), where.key) & 1u) != 0; }
  std::uint64_t seen_by(const query_block& block, index_t key) const {
    if (key < extra) return ~std::uint64_t{0};
    return std::uint64_t{tiles[block.batch].seen_by[key - extra]} >> static_cast<unsigned>(block.row_first());
  }
  span run(const query_block& block, index_t key) const {
    if (key < extra) return {key, extra, coverage::all};
    return {key, block.keys, coverage::some};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
