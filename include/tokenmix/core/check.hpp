// SPDX-License-Identifier: Apache-2.0
/// @file The checks at every mixer's door; each message names the argument, what it is and what was expected.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/overlap.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <string>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What an output may share with an input.
enum class aliasing {
  none,       ///< no element
  identical,  ///< all of them: same address, extents and strides; otherwise none
};

/// "(2, 8, 16, 64)"
inline std::string shape_text(const index_t* extents, std::size_t rank) {
  std::string result = "(";
  for (std::size_t axis = 0; axis < rank; ++axis) {
    if (axis > 0) result += ", ";
    result += std::to_string(extents[axis]);
  }
  return result + ")";
}

template <std::size_t R>
std::string shape_text(const extents<R>& shape) {
  return shape_text(shape.data(), R);
}

inline void check_layout(const char* name, const memory_layout& view, bool is_null) {
  index_t size = 1;
  bool too_large = false;
  for (std::size_t axis = 0; axis < view.rank; ++axis) {
    if (view.extents[axis] < 0) {
      fail_shape(name, " has extent ", view.extents[axis], " along axis ", axis, ": extents are not negative");
    }
    too_large = too_large || __builtin_mul_overflow(size, view.extents[axis], &size);
  }
  if (is_empty(view)) return;
  if (too_large) {
    fail_shape(name, " is ", shape_text(view.extents, view.rank), ": the number of elements does not fit 63 bits");
  }
  if (is_null) fail_value(name, " is a null pointer, its shape is ", shape_text(view.extents, view.rank));
  if (!reach_of(view).valid) {
    fail_shape(name, " is ", shape_text(view.extents, view.rank), " with strides ", shape_text(view.strides, view.rank),
               ": its elements do not fit the address space");
  }
}

/// Extents >= 0, the number of elements and every address fit, the pointer is not null unless the view is empty.
///
/// The first check of every view: the other checks and all index arithmetic rely on it.
template <class E, std::size_t R>
void check_view(const char* name, const tensor_view<const E, R>& view) {
  check_layout(name, layout_of(view), view.data() == nullptr);
}

/// The last axis has stride 1 (or at most one element).
template <class E, std::size_t R>
void check_channels_contiguous(const char* name, const tensor_view<const E, R>& view) {
  if (!view.channels_contiguous()) {
    fail_shape(name, " has stride ", view.stride(R - 1), " along its last axis: it must be contiguous (stride 1)");
  }
}

/// `k has 5 channels, expected 4: q has 4`, with the reason as the caller puts it.
template <class E, std::size_t R>
void check_extent(const char* name, const tensor_view<const E, R>& view, std::size_t axis, const char* axis_name,
                  index_t expected, const std::string& reason) {
  if (view.extent(axis) != expected) {
    fail_shape(name, " has ", view.extent(axis), " ", axis_name, ", expected ", expected, ": ", reason);
  }
}

template <class E, std::size_t R>
void check_extent(const char* name, const tensor_view<const E, R>& view, std::size_t axis, const char* axis_name,
                  index_t expected, const char* reason) {
  if (view.extent(axis) != expected) {
    fail_shape(name, " has ", view.extent(axis), " ", axis_name, ", expected ", expected, ": ", reason);
  }
}

/// `k has 5 channels, q has 4: they must be equal`, for an axis of two views.
template <class E, std::size_t R, class F, std::size_t S>
void check_same_extent(const char* name, const tensor_view<const E, R>& view, std::size_t axis, const char* other_name,
                       const tensor_view<const F, S>& other, std::size_t other_axis, const char* axis_name) {
  if (view.extent(axis) != other.extent(other_axis)) {
    fail_shape(name, " has ", view.extent(axis), " ", axis_name, ", ", other_name, " has ", other.extent(other_axis),
               ": they must be equal");
  }
}

/// `k has 3 heads, q has 8: the number of query heads must be a multiple of the number of key heads`.
///
/// `whose` and `others` are the words before "heads" in that sentence.
template <class E, std::size_t R, class F, std::size_t S>
void check_head_groups(const char* name, const tensor_view<const E, R>& q, std::size_t axis, const char* other_name,
                       const tensor_view<const F, S>& k, std::size_t other_axis, const char* whose = "query",
                       const char* others = "key") {
  const index_t heads = q.extent(axis);
  const index_t groups = k.extent(other_axis);
  if (groups == 0 ? heads != 0 : heads % groups != 0) {
    fail_shape(other_name, " has ", groups, " heads, ", name, " has ", heads, ": the number of ", whose,
               " heads must be a multiple of the number of ", others, " heads");
  }
}

/// `out is (2, 8, 16, 64), q is (2, 8, 16, 32): they must have the same shape`.
template <class E, class F, std::size_t R>
void check_same_shape(const char* name, const tensor_view<const E, R>& view, const char* other_name,
                      const tensor_view<const F, R>& other) {
  if (view.shape() != other.shape()) {
    fail_shape(name, " is ", shape_text<R>(view.shape()), ", ", other_name, " is ", shape_text<R>(other.shape()),
               ": they must have the same shape");
  }
}

/// `out is (2, 8, 16, 64), expected (B, H, T, Dv) = (2, 8, 16, 32)`, with the shape's letters as the caller puts them.
template <class E, std::size_t R>
void check_shape(const char* name, const tensor_view<const E, R>& view, const extents<R>& expected,
                 const char* letters) {
  if (view.shape() != expected) {
    fail_shape(name, " is ", shape_text<R>(view.shape()), ", expected ", letters, " = ", shape_text<R>(expected));
  }
}

/// No two indices of an output are the same element: no broadcast, no overlapping rows. After check_view.
template <class E, std::size_t R>
void check_writable_strides(const char* name, const tensor_view<const E, R>& out) {
  if (overlaps_itself(layout_of(out))) {
    fail_shape(name, " is ", shape_text<R>(out.shape()), " with strides ", shape_text<R>(out.strides()),
               ": an output must not reach an element twice");
  }
}

/// An output shares no element with an input, or is that input. After check_view of both.
///
/// Views that interleave without sharing an element, such as q, k and v in one packed buffer, do not overlap.
template <class E, std::size_t R, class F, std::size_t S>
void check_overlap(const char* name, const tensor_view<const E, R>& out, const char* other_name,
                   const tensor_view<const F, S>& in, aliasing allowed = aliasing::none) {
  const memory_layout a = layout_of(out);
  const memory_layout b = layout_of(in);
  if (!overlap(a, b) || (allowed == aliasing::identical && identical(a, b))) return;
  if (allowed == aliasing::identical) {
    fail_shape(name, " overlaps ", other_name, ": it must be ", other_name, " itself or share no element with it");
  } else {
    fail_shape(name, " overlaps ", other_name, ": it must share no element with it");
  }
}

/// What every input goes through: check_view and check_channels_contiguous.
template <class E, std::size_t R>
void check_input(const char* name, const tensor_view<const E, R>& view) {
  check_view(name, view);
  check_channels_contiguous(name, view);
}

/// What every output goes through: check_view, check_channels_contiguous and check_writable_strides.
template <class E, std::size_t R>
void check_output(const char* name, const tensor_view<const E, R>& view) {
  check_view(name, view);
  check_channels_contiguous(name, view);
  check_writable_strides(name, view);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
