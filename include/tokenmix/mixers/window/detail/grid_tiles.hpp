// SPDX-License-Identifier: Apache-2.0
/// @file A grid of tokens cut into tiles of neighbours, each with the box of keys that its tokens see.
///
/// To the tiles of softmax attention every tile of the grid is a sequence: its queries are the tokens of the tile, its keys those
/// of the smallest box around all their windows. Within the box a pair is visible if it is along every axis.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

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

/// Along one axis: the tokens of a tile, their box, and which of the tokens see each key of it.
struct axis_tile {
  index_t first = 0, count = 0;      ///< tokens, in the grid's own numbers, `dilation` apart
  index_t box_first = 0, box = 0;    ///< keys, likewise
  index_t class_first = 0;           ///< of the tokens, counted in their class
  index_t class_box_first = 0;       ///< of the keys
  const std::uint32_t* lanes = nullptr;  ///< (box, grid_tile_tokens): for `inner` lanes per token at [key][inner - 1]
};

struct grid_tile {
  axis_tile axis[static_cast<std::size_t>(grid_rank)];
  index_t queries = 0, keys = 0;
  index_t query_row = 0, key_row = 0;  ///< the first token of each in the buffer
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
    axis_tile* along[static_cast<std::size_t>(grid_rank)];
    index_t counts[static_cast<std::size_t>(grid_rank)];
    count_ = 1;
    for (index_t a = 0; a < grid_rank; ++a) {
      counts[a] = 0;
      for (index_t r = 0; r < std::min(axis[a].dilation, axis[a].size); ++r) counts[a] += axis[a].tiles_of(r);
      along[a] = frame.take<axis_tile>(counts[a]);
      cut(axis[a], along[a], frame);
      count_ *= counts[a];
    }
    tiles_ = frame.take<grid_tile>(count_);
    index_t i = 0;
    for (index_t z = 0; z < counts[0]; ++z)
      for (index_t y = 0; y < counts[1]; ++y)
        for (index_t x = 0; x < counts[2]; ++x) tiles_[i++] = joined(along[0][z], along[1][y], along[2][x]);
  }

  index_t count() const { return count_; }
  const grid_tile& operator[](index_t i) const { return tiles_[i]; }

  /// The row of query i of a tile, and of key i of its box.
  index_t query_row(const grid_tile& tile, index_t i) const {
    return tile.query_row + row(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(tile.axis[1].count),
                                static_cast<std::uint32_t>(tile.axis[2].count));
  }
  index_t key_row(const grid_tile& tile, index_t i) const {
    return tile.key_row + row(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(tile.axis[1].box),
                              static_cast<std::uint32_t>(tile.axis[2].box));
  }
  /// How many keys follow each other from key i of a box on, step(2) rows apart.
  static index_t run_of_keys(const grid_tile& tile, index_t i) {
    const auto width = static_cast<std::uint32_t>(tile.axis[2].box);
    return tile.axis[2].box - static_cast<index_t>(static_cast<std::uint32_t>(i) % width);
  }
  index_t step() const { return step_[2]; }

  /// Bit i: query i sees this key of the box.
  static std::uint32_t seen_by(const grid_tile& tile, index_t key) {
    const auto at = static_cast<std::uint32_t>(key), width = static_cast<std::uint32_t>(tile.axis[2].box),
               height = static_cast<std::uint32_t>(tile.axis[1].box);
    const std::uint32_t row = at / width, x = at % width, y = row % height, z = row / height;
    const auto inner = static_cast<std::uint32_t>(tile.axis[2].count);
    const auto plane = inner * static_cast<std::uint32_t>(tile.axis[1].count);
    constexpr auto each = static_cast<std::uint32_t>(grid_tile_tokens);
    return tile.axis[2].lanes[x * each] & tile.axis[1].lanes[y * each + inner - 1] &
           tile.axis[0].lanes[z * each + plane - 1];
  }

 private:
  index_t row(std::uint32_t i, std::uint32_t height, std::uint32_t width) const {
    const std::uint32_t line = i / width;
    return static_cast<index_t>(i % width) * step_[2] + static_cast<index_t>(line % height) * step_[1] +
           static_cast<index_t>(line / height) * step_[0];
  }

  static void cut(const grid_axis& axis, axis_tile* tile, scratch_frame& frame) {
    for (index_t residue = 0; residue < std::min(axis.dilation, axis.size); ++residue) {
      const index_t n = axis.class_size(residue);
      for (index_t first = 0; first < n; first += axis.tile, ++tile) {
        const index_t count = std::min(axis.tile, n - first);
        index_t begin = n, end = 0;
        for (index_t i = 0; i < count; ++i) {
          begin = std::min(begin, axis.begin(first + i, n));
          end = std::max(end, axis.end(first + i, n));
        }
        std::uint32_t* lanes = frame.take<std::uint32_t>((end - begin) * grid_tile_tokens);
        *tile = {residue + first * axis.dilation, count, residue + begin * axis.dilation, end - begin, first, begin, lanes};
        for (index_t key = begin; key < end; ++key, lanes += grid_tile_tokens) {
          for (index_t inner = 1; inner <= grid_tile_tokens; ++inner) {
            std::uint32_t word = 0;
            for (index_t lane = 0; lane < grid_tile_tokens; ++lane) {
              const index_t at = first + lane / inner % count;
              word |= std::uint32_t{key >= axis.begin(at, n) && key < axis.end(at, n)} << lane;
            }
            lanes[inner - 1] = word;
          }
        }
      }
    }
  }

  grid_tile joined(const axis_tile& z, const axis_tile& y, const axis_tile& x) const {
    return {{z, y, x},
            z.count * y.count * x.count,
            z.box * y.box * x.box,
            z.first * row_step_[0] + y.first * row_step_[1] + x.first * row_step_[2],
            z.box_first * row_step_[0] + y.box_first * row_step_[1] + x.box_first * row_step_[2]};
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
