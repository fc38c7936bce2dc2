// SPDX-License-Identifier: Apache-2.0
/// @file Which way a recurrence goes through its tokens.
#pragma once

#include <tokenmix/config.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which tokens a token sees.
enum class order : unsigned char {
  forward,        ///< itself and those before it
  reverse,        ///< itself and those after it: the bits of the flipped sequence, flipped back
  bidirectional,  ///< all of them; only where a rule has no gate
};

}  // namespace tokenmix::inline TOKENMIX_ABI
