// SPDX-License-Identifier: Apache-2.0
/// @file Which way a recurrence runs along its tokens.
#pragma once

#include <tokenmix/core/types.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The direction in which tokens are absorbed.
enum class order {
  forward,  ///< from the first token to the last
  reverse,  ///< from the last token to the first: position 0 is the sequence's last token
};

}  // namespace tokenmix::inline TOKENMIX_ABI
