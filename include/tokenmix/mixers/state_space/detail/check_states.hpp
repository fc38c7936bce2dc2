// SPDX-License-Identifier: Apache-2.0
/// @file The checks of states at the door of the state-space mixers.
#pragma once

#include <tokenmix/core/check.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The last axis is contiguous, or the one before it.
template <class P, std::size_t R>
void check_states_or_channels_contiguous(const char* name, const tensor_view<const P, R>& view) {
  check_view(name, view);
  if (view.channels_contiguous()) return;
  if constexpr (R >= 2) {
    if (view.extent(R - 2) <= 1 || view.stride(R - 2) == 1) return;
    fail_shape(name, " has strides ", shape_text<R>(view.strides()),
               ": its states or its channels must be contiguous (stride 1)");
  } else {
    check_channels_contiguous(name, view);
  }
}

/// Initial and final states have their shape; the final ones share no element with out or x, and are the initial ones or apart.
template <class P, std::size_t R, class O, class E>
void check_states(const char* name, const tensor_view<const P, R>& initial, const tensor_view<P, R>& final_view,
                  const extents<R>& shape, const char* letters, const tensor_view<const O, 3>& out,
                  const tensor_view<const E, 3>& x) {
  if (initial.data() != nullptr) {
    check_states_or_channels_contiguous(name, initial);
    check_shape(name, initial, shape, letters);
    check_overlap("out", out, name, initial);
  }
  const tensor_view<const P, R> final_state = final_view;
  if (final_state.data() == nullptr) return;
  check_states_or_channels_contiguous("final_state", final_state);
  check_writable_strides("final_state", final_state);
  check_shape("final_state", final_state, shape, letters);
  check_overlap("final_state", final_state, "out", out);
  check_overlap("final_state", final_state, "x", x);
  if (initial.data() != nullptr) check_overlap("final_state", final_state, name, initial, aliasing::identical);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
