// SPDX-License-Identifier: Apache-2.0
/// @file Causal masks, aligned to the end or to the start.
#pragma once

#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// A query sees the keys up to its own position, aligned to the end: the last query sees the last key.
///
///     key <= query,   query = row + S - T
///
/// With T > S the first T - S queries see nothing; with T < S (a chunk of a prefill, a decode step) the past is all visible.
struct causal {
  using is_mask = void;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key <= where.query;
  }
  constexpr span run(const query_block& block, index_t key) const {
    return detail::interval_run(block.keys, key, 0, block.query_last - 1, 0, block.query_first);
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    return ~detail::first_queries(key - block.query_first);
  }
};

/// A query sees as many keys as its row, aligned to the start: the first query sees the first key alone.
///
///     key <= row,   row = 0 .. T - 1
///
/// The same as `causal` where T = S. What PyTorch's is_causal means.
struct causal_top_left {
  using is_mask = void;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key <= where.query_row();
  }
  constexpr span run(const query_block& block, index_t key) const {
    return detail::interval_run(block.keys, key, 0, block.row_last() - 1, 0, block.row_first());
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    return ~detail::first_queries(key - block.row_first());
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
