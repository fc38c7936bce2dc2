// SPDX-License-Identifier: Apache-2.0
/// @file Keys at distances that double.
#pragma once

#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>

#include <bit>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI {

/// A query sees itself and the keys 1, 2, 4, 8, ... before it: log2(S) of them. Causal by itself.
///
///     query - key is 0 or a power of two
///
/// Cost       runs are exact; one that nobody sees is found in constant time.
/// Source     Li et al. 2019, Enhancing the locality of transformers on time series, section 4.2 (LogSparse).
struct log_sparse {
  using is_mask = void;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [](const index& pair) { return sees(pair.query - pair.key); });
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t nearest = block.query_first - key, farthest = block.query_last - 1 - key;
    if (farthest < 0) return {key, block.keys, coverage::none};
    if (largest_below(farthest) < nearest) {
      return {key, std::min(key + nearest - largest_below(farthest), block.keys), coverage::none};
    }
    return detail::key_run(block, key, [&](index_t at) {
      const index_t low = block.query_first - at, high = block.query_last - 1 - at;
      if (high < 0 || largest_below(high) < low) return coverage::none;
      return low >= 0 && (high <= 2 || (low == high && sees(low))) ? coverage::all : coverage::some;
    });
  }

 private:
  static constexpr bool sees(index_t distance) { return distance >= 0 && (distance & (distance - 1)) == 0; }
  // The largest distance up to this one that is seen.
  static constexpr index_t largest_below(index_t distance) {
    return static_cast<index_t>(std::bit_floor(static_cast<std::uint64_t>(distance)));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
