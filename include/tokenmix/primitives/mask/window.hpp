// SPDX-License-Identifier: Apache-2.0
/// @file A window of keys around the query.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// No limit: a number of tokens beyond all positions, which can still be added to one.
inline constexpr index_t unlimited = index_t{1} << 60;

/// A query sees `left` keys before itself, itself, and `right` keys after.
///
///     query - left <= key <= query + right
///
/// Both sides count tokens beside the query's own and reach without limit unless given, so the usual sliding window of W
/// tokens is `causal{} & window{.left = W - 1}`, and `window{.left = 0, .right = 0}` is the diagonal.
/// Aligned to the end, as `causal` is. A negative side is a value_error (some libraries write -1 for `unlimited`).
struct window {
  using is_mask = void;
  index_t left = unlimited;   ///< keys before the query, >= 0
  index_t right = unlimited;  ///< keys after the query, >= 0

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key >= where.query - bounded(left) && where.key <= where.query + bounded(right);
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t first = block.query_first, last = block.query_last - 1;
    return detail::interval_run(block.keys, key, first - bounded(left), last + bounded(right), last - bounded(left),
                                first + bounded(right));
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    return detail::seen_by_interval(block, key - bounded(right), key + bounded(left));
  }
  constexpr void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (left < 0) detail::fail_value("window.left is ", left, ", expected 0 or more tokens, or tokenmix::unlimited");
    if (right < 0) detail::fail_value("window.right is ", right, ", expected 0 or more tokens, or tokenmix::unlimited");
  }

 private:
  // Sums with positions do not overflow, whatever the caller wrote.
  static constexpr index_t bounded(index_t side) { return std::clamp(side, -unlimited, unlimited); }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
