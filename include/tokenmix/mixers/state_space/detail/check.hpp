// SPDX-License-Identifier: Apache-2.0
/// @file What the doors of the selective scans check alike.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A view that may be absent, of a shape, and written nowhere.
template <class E, std::size_t R>
void check_optional(const char* name, const tensor_view<const E, R>& view, const extents<R>& shape,
                    const char* letters) {
  if (view.data() == nullptr) return;
  check_view(name, view);
  check_shape(name, view, shape, letters);
}

/// Rows of channels, or lines of time: one of the two is contiguous.
template <class E>
void check_rows_or_lines(const char* name, const tensor_view<const E, 3>& view) {
  check_view(name, view);
  if (view.channels_contiguous() || view.empty() || view.extent(1) == 1 || view.stride(1) == 1) return;
  fail_shape(name, " has strides ", shape_text(view.strides()), ": channels or time must be contiguous (stride 1)");
}

/// Either rows for every token or one for all: exactly one of the two.
template <class E, class P, std::size_t R, std::size_t S>
void check_rows_or_constant(const char* name, const tensor_view<const E, R>& rows, const char* constant_name,
                            const tensor_view<const P, S>& constant, const extents<S>& shape, const char* letters) {
  if (constant.data() != nullptr) {
    if (rows.data() != nullptr) fail_value(name, " and ", constant_name, " are both given: a scan takes one of them");
    check_view(constant_name, constant);
    check_shape(constant_name, constant, shape, letters);
  } else {
    check_input(name, rows);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
