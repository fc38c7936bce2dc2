// SPDX-License-Identifier: Apache-2.0
/// @file The two patterns of the Sparse Transformer: strided and fixed.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>
#include <tokenmix/primitives/mask/dilated.hpp>
#include <tokenmix/primitives/mask/window.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The strided pattern: the keys less than `stride` away, and every stride-th one; with `causal{} &` the paper's.
///
///     |query - key| < stride || (query - key) % stride == 0
///
/// Errors     value_error when it is used, if stride is below 1.
/// Source     Child et al. 2019, Sparse Transformers, section 4.3.
constexpr mask_or<window, dilated> strided(index_t stride) {
  return window{.left = stride - 1, .right = stride - 1} | dilated{.dilation = stride};
}

/// The fixed pattern: a query sees its own block of positions, and the last `summary` keys of every block; with `causal{} &`
/// the paper's.
///
///     query / block == key / block || key % block >= block - summary
///
/// Cost       runs are exact and found in constant time.
/// Errors     value_error if block is below 1 or summary is not in [0, block].
/// Source     Child et al. 2019, Sparse Transformers, section 4.3.
struct fixed_pattern {
  using is_mask = void;
  index_t block = 128;  ///< >= 1
  index_t summary = 8;  ///< 0 to block

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return pair.key % block >= block - summary || detail::floor_division(pair.query, block) == pair.key / block;
    });
  }
  constexpr span run(const query_block& queries, index_t key) const {
    const index_t of_key = key / block;
    const index_t end = std::min((of_key + 1) * block, queries.keys);
    const index_t summary_first = (of_key + 1) * block - summary;
    if (key >= summary_first) return {key, end, coverage::all};
    const index_t first = detail::floor_division(queries.query_first, block);
    const index_t last = detail::floor_division(queries.query_last - 1, block);
    const coverage found = of_key < first || of_key > last ? coverage::none
                           : first == last                 ? coverage::all
                                                           : coverage::some;
    return {key, std::min(summary_first, end), found};
  }
  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (block < 1) detail::fail_value("fixed_pattern.block is ", block, ", expected 1 or more");
    if (summary < 0 || summary > block) {
      detail::fail_value("fixed_pattern.summary is ", summary, ", expected 0 to ", block, ", the block");
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
