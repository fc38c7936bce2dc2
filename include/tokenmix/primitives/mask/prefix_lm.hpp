// SPDX-License-Identifier: Apache-2.0
/// @file Prefix language models: a prefix that everybody sees, causal after it.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every query sees the prefix, and the keys up to its own position.
///
///     key < prefix || key <= query,   prefix = lengths[batch], or length where there are no lengths
///
/// A prefix longer than the keys makes all of them visible. Aligned to the end, as `causal` is.
///
/// Shapes     lengths: (B) or empty; the mask refers to it.
/// Errors     shape_error if there are lengths but not B, value_error if one is negative.
/// Source     Raffel et al. 2020, T5, figure 4.
struct prefix_lm {
  using is_mask = void;
  index_t length = 0;                     ///< the prefix of every sequence, if `lengths` is empty
  std::span<const index_t> lengths = {};  // (B)

  constexpr index_t prefix(index_t batch) const {
    return lengths.empty() ? length : lengths[static_cast<std::size_t>(batch)];
  }

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return where.key < prefix(where.batch) || where.key <= where.query;
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t last = prefix(block.batch) - 1;
    return detail::interval_run(block.keys, key, 0, std::max(last, block.query_last - 1), 0,
                                std::max(last, block.query_first));
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    return key < prefix(block.batch) ? ~std::uint64_t{0} : ~detail::first_queries(key - block.query_first);
  }
  void check(index_t batches, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (length < 0) detail::fail_value("prefix_lm.length is ", length, ", expected 0 or more");
    if (!lengths.empty() && static_cast<index_t>(lengths.size()) != batches) {
      detail::fail_shape("prefix_lm.lengths has ", lengths.size(), " entries, expected one per sequence: ", batches);
    }
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      if (lengths[b] < 0) detail::fail_value("prefix_lm.lengths[", b, "] is ", lengths[b], ", expected 0 or more");
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
