// SPDX-License-Identifier: Apache-2.0
/// @file The first keys of the sequence: attention sinks, global tokens.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every query sees the first `count` keys; there may be fewer.
///
///     key < count
///
/// `causal{} & (window{.left = W - 1} | first_keys{4})` is a sliding window with attention sinks, in two spans.
struct first_keys {
  using is_mask = void;
  index_t count = 0;  ///< >= 0

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key < count;
  }
  constexpr span run(const query_block& block, index_t key) const {
    return detail::interval_run(block.keys, key, 0, count - 1, 0, count - 1);
  }
  constexpr std::uint64_t seen_by(const query_block& /*block*/, index_t key) const {
    return detail::seen_by_all_if(key < count);
  }
  constexpr void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (count < 0) detail::fail_value("first_keys.count is ", count, ", expected 0 or more keys");
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
