// SPDX-License-Identifier: Apache-2.0
/// @file A grid of tokens cut into tiles of neighbours, each with the box of keys that its tokens see.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// To the tiles of softmax attention every tile of the grid is a sequence: its queries are the tokens of the tile, its keys those
// of the smallest box around all their windows. Within the box a pair is visible if it is along every axis.

/// Tokens of one tile: a register of floats with AVX-512. More would see wider boxes of which each token sees less.
inline constexpr index_t grid_tile_tokens = 16;
inline constexpr index_t grid_rank = 3;

/// One axis as its owner describes it; an axis that a grid does not have has size 1 and a window of 1.
struct grid_axis {
  index_t size = 1;
  index_t window = 1;
  index_t dilation = 1;
  index_t stride = 1;
  bool causal = false;
  index_t tile = 1;  ///< tokens of a tile along this axis

  constexpr index_t class_size(index_t residue) const { return (size - residue + dilation - 1) / dilation; }
  constexpr index_t tiles_of(index_t residue) const { return (class_size(residue) + tile - 1) / tile; }

  /// The keys [begin, end) that token `at` of a class of n tokens sees, counted in the class.
  constexpr index_t begin(index_t at, index_t n) const {
    if (causal) return std::max<index_t>(0, std::min(at / stride * stride + stride - 1, n - 1) - window + 1);
    const index_t center = std::min(at / stride * stride + stride / 2, n - 1);
    return std::clamp<index_t>(center - window / 2, 0, n - window);
  }
  constexpr index_t end(index_t at, index_t n) const { return causal ? at + 1 : begin(at, n) + window; }
};

/// Along one axis: the tokens of a tile and their box. Tiles of one pattern differ in where they stand alone.
struct axis_tile {
  index_t first = 0, count = 0;    ///< tokens, in the grid's own numbers, `dilation` apart
  index_t box_first = 0, box = 0;  ///< keys, likewise
  index_t class_first = 0;         ///< of the tokens, counted in their class
  index_t class_box_first = 0;     ///< of the keys
  index_t pattern = 0;
};

/// Which keys of a box the tokens of a tile see along one axis: token i those of [begin[i], end[i]).
struct axis_pattern {
  index_t count = 0, box = 0;
  index_t begin[static_cast<std::size_t>(grid_tile_tokens)] = {};
  index_t end[static_cast<std::size_t>(grid_tile_tokens)] = {};

  friend bool operator==(const axis_pattern&, const axis_pattern&) = default;
};

struct grid_tile {
  axis_tile axis[static_cast<std::size_t>(grid_rank)];
  index_t queries = 0, keys = 0;
  index_t query_row = 0, key_row = 0;      ///< the first token of each in the buffer
  const std::uint32_t* seen_by = nullptr;  ///< (keys): bit i says whether query i sees the key
  const index_t* query_offset = nullptr;   ///< (queries): rows from the first one
};

/// All tiles of a grid, of all residue classes modulo the dilations. Lives in the scratch of the thread that calls.
class grid_tiles {
 public:
  grid_tiles(const grid_axis (&axis)[static_cast<std::size_t>(grid_rank)], scratch_frame& frame) {
    index_t tokens = 1;
    for (index_t a = grid_rank - 1; a >= 0; --a) {
      step_[a] = tokens * axis[a].dilation;
      row_step_[a] = tokens;
      tokens *= axis[a].size;
    }
    if (tokens == 0) return;
    axis_tiles along[static_cast<std::size_t>(grid_rank)];
    count_ = 1;
    index_t patterns = 1;
    for (index_t a = 0; a < grid_rank; ++a) {
      along[a] = cut(axis[a], frame);
      count_ *= along[a].count;
      patterns *= along[a].patterns;
    }
    const std::uint32_t** const seen = frame.take<const std::uint32_t*>(patterns);
    const index_t** const offsets = frame.take<const index_t*>(patterns);
    for (index_t i = 0; i < patterns; ++i) {
      const index_t yz = i / along[2].patterns;
      const axis_pattern& z = along[0].pattern[yz / along[1].patterns];
      const axis_pattern& y = along[1].pattern[yz % along[1].patterns];
      const axis_pattern& x = along[2].pattern[i % along[2].patterns];
      seen[i] = joined(z, y, x, frame);
      index_t* const offset = frame.take<index_t>(grid_tile_tokens);
      for (index_t n = 0; n < z.count * y.count * x.count; ++n) offset[n] = row(n, y.count, x.count);
      offsets[i] = offset;
    }
    tiles_ = frame.take<grid_tile>(count_);
    index_t i = 0;
    for (index_t z = 0; z < along[0].count; ++z)
      for (index_t y = 0; y < along[1].count; ++y)
        for (index_t x = 0; x < along[2].count; ++x) {
          grid_tile& tile = tiles_[i++] = joined(along[0].tile[z], along[1].tile[y], along[2].tile[x]);
          const index_t pattern =
              (tile.axis[0].pattern * along[1].patterns + tile.axis[1].pattern) * along[2].patterns +
              tile.axis[2].pattern;
          tile.seen_by = seen[pattern];
          tile.query_offset = offsets[pattern];
        }
  }

  index_t count() const { return count_; }
  const grid_tile& operator[](index_t i) const { return tiles_[i]; }

  /// The row of query i of a tile, and of key i of its box.
  index_t query_row(const grid_tile& tile, index_t i) const { return tile.query_row + tile.query_offset[i]; }
  index_t key_row(const grid_tile& tile, index_t i) const {
    return tile.key_row + row(i, tile.axis[1].box, tile.axis[2].box);
  }
  /// How many keys follow each other from key i of a box on, step() rows apart.
  static index_t run_of_keys(const grid_tile& tile, index_t i) {
    const auto width = static_cast<std::uint32_t>(tile.axis[2].box);
    return tile.axis[2].box - static_cast<index_t>(static_cast<std::uint32_t>(i) % width);
  }
  index_t step() const { return step_[2]; }

 private:
  struct axis_tiles {
    axis_tile* tile = nullptr;
    index_t count = 0;
    axis_pattern* pattern = nullptr;
    index_t patterns = 0;
  };

  // Rows from the first token of a box to token i. Divisions of 32 bits are several times as fast as those of 64.
  index_t row(index_t i, index_t height, index_t width) const {
    const auto place = static_cast<std::uint32_t>(i), h = static_cast<std::uint32_t>(height),
               w = static_cast<std::uint32_t>(width);
    const std::uint32_t line = place / w;
    return static_cast<index_t>(place % w) * step_[2] + static_cast<index_t>(line % h) * step_[1] +
           static_cast<index_t>(line / h) * step_[0];
  }

  static axis_tiles cut(const grid_axis& axis, scratch_frame& frame) {
    axis_tiles all;
    const index_t classes = std::min(axis.dilation, axis.size);
    for (index_t residue = 0; residue < classes; ++residue) all.count += axis.tiles_of(residue);
    all.tile = frame.take<axis_tile>(all.count);
    all.pattern = frame.take<axis_pattern>(all.count);
    axis_tile* tile = all.tile;
    for (index_t residue = 0; residue < classes; ++residue) {
      const index_t n = axis.class_size(residue);
      for (index_t first = 0; first < n; first += axis.tile, ++tile) {
        axis_pattern pattern{.count = std::min(axis.tile, n - first)};
        const index_t begin = axis.begin(first, n);  // neither end of a window moves back from token to token
        for (index_t i = 0; i < pattern.count; ++i) {
          pattern.begin[i] = axis.begin(first + i, n) - begin;
          pattern.end[i] = axis.end(first + i, n) - begin;
        }
        pattern.box = pattern.end[pattern.count - 1];
        const axis_pattern* const known = std::find(all.pattern, all.pattern + all.patterns, pattern);
        const index_t number = known - all.pattern;
        if (number == all.patterns) all.pattern[all.patterns++] = pattern;
        *tile = {residue + first * axis.dilation,
                 pattern.count,
                 residue + begin * axis.dilation,
                 pattern.box,
                 first,
                 begin,
                 number};
      }
    }
    return all;
  }

  static const std::uint32_t* joined(const axis_pattern& z, const axis_pattern& y, const axis_pattern& x,
                                     scratch_frame& frame) {
    std::uint32_t* const seen = frame.take<std::uint32_t>(z.box * y.box * x.box);
    index_t key = 0;
    for (index_t kz = 0; kz < z.box; ++kz)
      for (index_t ky = 0; ky < y.box; ++ky)
        for (index_t kx = 0; kx < x.box; ++kx) {
          std::uint32_t word = 0, lane = 0;
          for (index_t qz = 0; qz < z.count; ++qz)
            for (index_t qy = 0; qy < y.count; ++qy)
              for (index_t qx = 0; qx < x.count; ++qx, ++lane) {
                const bool visible = kz >= z.begin[qz] && kz < z.end[qz] && ky >= y.begin[qy] && ky < y.end[qy] &&
                                     kx >= x.begin[qx] && kx < x.end[qx];
                word |= std::uint32_t{visible} << lane;
              }
          seen[key++] = word;
        }
    return seen;
  }

  grid_tile joined(const axis_tile& z, const axis_tile& y, const axis_tile& x) const {
    return {{z, y, x},
            z.count * y.count * x.count,
            z.box * y.box * x.box,
            z.first * row_step_[0] + y.first * row_step_[1] + x.first * row_step_[2],
            z.box_first * row_step_[0] + y.box_first * row_step_[1] + x.box_first * row_step_[2],
            nullptr,
            nullptr};
  }

  index_t step_[static_cast<std::size_t>(grid_rank)];      ///< rows from one token of a class to the next
  index_t row_step_[static_cast<std::size_t>(grid_rank)];  ///< rows from one token of the grid to the next
  grid_tile* tiles_ = nullptr;
  index_t count_ = 0;
};

/// The tiles of every batch element as sequences.
struct grid_sequences {
  const grid_tiles& tiles;

  index_t count(index_t batches) const { return batches * tiles.count(); }
  sequence at(index_t i, index_t /*queries*/, index_t /*keys*/) const {
    const grid_tile& tile = tiles[i % tiles.count()];
    return {i % tiles.count(), i / tiles.count(), 0, tile.queries, 0, tile.keys};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
