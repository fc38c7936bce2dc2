// SPDX-License-Identifier: Apache-2.0
/// @file Key padding: how many keys of each batch element are real.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Batch element b has lengths[b] real keys; the padding behind them is never read.
///
///     key < lengths[batch]
///
/// Padding in front is `!valid_keys{padding}`. This hides keys and moves no position: `causal`, `window` and the like still
/// count from the end of the padded tensor (the option `sequences` counts from each sequence's own end).
///
/// Shapes     lengths: (B); the mask refers to it.
/// Errors     shape_error if there are not B lengths, value_error if one is negative or above S.
struct valid_keys {
  using is_mask = void;
  std::span<const index_t> lengths = {};  // (B)

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key < lengths[static_cast<std::size_t>(where.batch)];
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t last = lengths[static_cast<std::size_t>(block.batch)] - 1;
    return detail::interval_run(block.keys, key, 0, last, 0, last);
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    return detail::seen_by_all_if(key < lengths[static_cast<std::size_t>(block.batch)]);
  }
  void check(index_t batches, index_t /*heads*/, index_t /*queries*/, index_t keys) const {
    if (static_cast<index_t>(lengths.size()) != batches) {
      detail::fail_shape("valid_keys.lengths has ", lengths.size(), " entries, expected one per sequence: ", batches);
    }
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      if (lengths[b] < 0) detail::fail_value("valid_keys.lengths[", b, "] is ", lengths[b], ", expected 0 or more");
      if (lengths[b] > keys) {
        detail::fail_value("valid_keys.lengths[", b, "] is ", lengths[b], ", k has ", keys, " keys");
      }
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
