// SPDX-License-Identifier: Apache-2.0
/// @file How the rows of an attention are cut into tiles and groups. No choice made here changes a bit of the result.
#pragma once

#include <tokenmix/simd/tile_product.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Tiles of one head that go through the keys together, so that a leaf of K and V is read once from the outer caches for all.
inline constexpr index_t most_grouped_tiles = 4;

/// The rows of a sequence, cut evenly into tiles of whole registers, and the tiles into groups.
template <class T>
struct tile_cut {
  index_t rows = 0;
  index_t tiles = 0;
  index_t groups = 0;

  /// `leaf_bytes` is what one leaf of K and V takes.
  static tile_cut of(index_t rows, index_t keys, index_t row_bytes) {
    constexpr index_t L = simd::lanes<T>;
    const index_t vectors = (rows + L - 1) / L;
    const index_t widest = vectors <= simd::max_tile_vectors ? simd::max_tile_vectors : simd::preferred_tile_vectors;
    const index_t tiles = (vectors + widest - 1) / widest;
    const index_t together = keys * row_bytes > outer_cache_bytes ? most_grouped_tiles : 1;
    return {rows, tiles, (tiles + together - 1) / together};
  }

  /// The first row of a tile; tiles differ by at most one register.
  constexpr index_t first_row(index_t tile) const {
    constexpr index_t L = simd::lanes<T>;
    const index_t vectors = (rows + L - 1) / L;
    return std::min(rows, tile * vectors / tiles * L);
  }
  constexpr index_t first_tile(index_t group) const { return group * tiles / groups; }

 private:
  /// K and V of this size stay in the cache next to the core while all tiles go over them.
  static constexpr index_t outer_cache_bytes = 512 * 1024;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
