// SPDX-License-Identifier: Apache-2.0
/// @file Which tokens a short convolution sees.
#pragma once

#include <tokenmix/core/types.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Where the taps of a convolution lie.
enum class convolution_window : unsigned char {
  causal,    ///< on the token and those before it
  centered,  ///< as many behind it as before it; with an even number of taps one more behind
};

namespace detail {

/// Tap j of `count` lies (count - 1 - j) dilation tokens back, less `ahead`.
struct convolution_taps {
  index_t count = 1;
  index_t dilation = 1;
  index_t ahead = 0;  ///< how far the last tap looks ahead: 0 if causal

  constexpr index_t span() const { return (count - 1) * dilation; }
  constexpr index_t before() const { return span() - ahead; }
};

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
