// SPDX-License-Identifier: Apache-2.0
/// @file Blocks drawn at random from a seed, and BigBird, which joins them with a window and global blocks.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>

#include <array>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every block of queries of every head sees `count` distinct blocks of keys, drawn from the seed: the same ones on every
/// machine and in every batch element. Blocks are counted from row 0 and key 0; nothing is stored.
///
/// Cost       O(count^2) per question.
/// Errors     value_error if a block size is below 1 or count is not in [0, 64].
/// Source     the random part of Zaheer et al. 2020, BigBird; distinct draws as Bentley and Floyd 1987.
struct random_blocks {
  using is_mask = void;
  static constexpr index_t most = 64;
  index_t query_block = 64;  ///< >= 1
  index_t key_block = 64;    ///< >= 1
  index_t count = 3;         ///< blocks of keys, 0 to 64; all if there are no more
  std::uint64_t seed = 0;

  /// Whether block `row` of queries sees block `column` of keys, of `columns` ones.
  constexpr bool sees(index_t head, index_t row, index_t column, index_t columns) const {
    if (count >= columns) return true;
    std::array<index_t, most> drawn{};
    index_t n = 0;
    const auto has = [&](index_t x) { return std::find(drawn.begin(), drawn.begin() + n, x) != drawn.begin() + n; };
    for (index_t last = columns - count; last < columns; ++last) {
      std::uint64_t number = mixed(seed ^ mixed(static_cast<std::uint64_t>(head)));
      number = mixed(number ^ mixed(static_cast<std::uint64_t>(row)));
      number = mixed(number + static_cast<std::uint64_t>(n));
      const auto draw = static_cast<index_t>(number % static_cast<std::uint64_t>(last + 1));
      const index_t taken = has(draw) ? last : draw;
      if (taken == column) return true;
      drawn[static_cast<std::size_t>(n++)] = taken;
    }
    return false;
  }

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return sees(pair.head, pair.query_row() / query_block, pair.key / key_block,
                  detail::blocks_of(pair.keys, key_block));
    });
  }
  constexpr span run(const tokenmix::query_block& block, index_t key) const {
    const index_t columns = detail::blocks_of(block.keys, key_block);
    return detail::block_run(block, key, query_block, key_block, [&](index_t head, index_t row, index_t column) {
      return sees(head, row, column, columns);
    });
  }
  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (query_block < 1) detail::fail_value("random_blocks.query_block is ", query_block, ", expected 1 or more");
    if (key_block < 1) detail::fail_value("random_blocks.key_block is ", key_block, ", expected 1 or more");
    if (count < 0 || count > most) {
      detail::fail_value("random_blocks.count is ", count, ", expected 0 to ", most);
    }
  }

 private:
  // SplitMix64.
  static constexpr std::uint64_t mixed(std::uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
};

/// Blocks of tokens see the blocks beside them, the first ones of the sequence, and some at random; the first ones see all.
///
///     |i - j| <= window || i < global || j < global || random(i, j),    i = row / block, j = key / block
///
/// Blocks are counted from row 0 and key 0.
///
/// Errors     value_error if block is below 1, window or global below 0, or random not in [0, 64].
/// Source     Zaheer et al. 2020, BigBird, section 2 and appendix D (internal global tokens: BigBird-ITC).
struct big_bird {
  using is_mask = void;
  index_t block = 64;  ///< tokens of a block, >= 1
  index_t window = 1;  ///< blocks seen on either side, >= 0
  index_t global = 1;  ///< blocks at the beginning that see all and are seen by all, >= 0
  index_t random = 3;  ///< blocks drawn for each block of queries of each head
  std::uint64_t seed = 0;

  constexpr bool sees(index_t head, index_t row, index_t column, index_t columns) const {
    const index_t apart = row > column ? row - column : column - row;
    return apart <= window || row < global || column < global || drawn().sees(head, row, column, columns);
  }

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return sees(pair.head, pair.query_row() / block, pair.key / block, detail::blocks_of(pair.keys, block));
    });
  }
  constexpr span run(const query_block& queries, index_t key) const {
    const index_t columns = detail::blocks_of(queries.keys, block);
    return detail::block_run(queries, key, block, block, [&](index_t head, index_t row, index_t column) {
      return sees(head, row, column, columns);
    });
  }
  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (block < 1) detail::fail_value("big_bird.block is ", block, ", expected 1 or more");
    if (window < 0) detail::fail_value("big_bird.window is ", window, ", expected 0 or more");
    if (global < 0) detail::fail_value("big_bird.global is ", global, ", expected 0 or more");
    if (random < 0 || random > random_blocks::most) {
      detail::fail_value("big_bird.random is ", random, ", expected 0 to ", random_blocks::most);
    }
  }

 private:
  constexpr random_blocks drawn() const {
    return {.query_block = block, .key_block = block, .count = random, .seed = seed};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
