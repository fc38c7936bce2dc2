// SPDX-License-Identifier: Apache-2.0
/// @file What a scan is told besides its operation and its tensors.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/primitives/order.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// No initial state is given, or no final state is wanted.
struct no_state {};

/// Options of inclusive_scan and exclusive_scan: use with designated initialisers; the order of the fields is API.
///
/// States have the shape of the scanned tensor with one entry per segment (one, if there are no offsets) along the scanned
/// axis: (B, 1, D) for a (B, T, D). They are views: write `h0.view()` for a tensor.
template <std::integral I = std::int32_t, class Initial = no_state, class Final = no_state>
struct scan_options {
  std::optional<index_t> axis{};  ///< the scanned axis; negative: from the end; not given: the one before the channels
  tokenmix::order order = tokenmix::order::forward;  ///< reverse: from the end of each segment to its start
  std::span<const I> offsets{};  ///< (n + 1): segment i is steps [offsets[i], offsets[i + 1]); empty: one of all steps
  Initial initial{};             ///< input: what comes before each segment's first step
  Final final_state{};           ///< output: the inclusive scan's value at each segment's end
};

}  // namespace tokenmix::inline TOKENMIX_ABI
