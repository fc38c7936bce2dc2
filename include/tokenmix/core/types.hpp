// SPDX-License-Identifier: Apache-2.0
/// @file The one integer type of extents, strides and positions.
#pragma once

#include <tokenmix/config.hpp>

#include <cstddef>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every extent, stride, offset and position: signed, 64 bits wide, in elements or tokens, never in bytes.
using index_t = std::ptrdiff_t;

static_assert(sizeof(index_t) == 8, "tokenmix needs a 64-bit target");

}  // namespace tokenmix::inline TOKENMIX_ABI
