// SPDX-License-Identifier: Apache-2.0
/// @file The mask that hides nothing.
#pragma once

#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every query sees every key: attention in both directions, the default.
struct all_keys {
  using is_mask = void;

  template <class Index>
  constexpr bool operator()(const Index& /*where*/) const {
    return true;
  }
  constexpr span run(const query_block& block, index_t key) const { return {key, block.keys, coverage::all}; }
  constexpr std::uint64_t seen_by(const query_block& /*block*/, index_t /*key*/) const {
    return detail::seen_by_all_if(true);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
