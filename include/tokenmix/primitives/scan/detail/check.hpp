// SPDX-License-Identifier: Apache-2.0
/// @file The door of a scan: shapes, axis, offsets and overlaps, checked once and before anything is written.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/scan/detail/problem.hpp>

#include <span>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// "in", or "in.a" for a part of a struct of views, without an allocation in calls that go well.
class part_name {
 public:
  part_name(const char* operand, const char* part) {
    append(operand);
    if (*part == '\0') return;
    append(".");
    append(part);
  }
  const char* c_str() const { return text_; }

 private:
  void append(const char* from) {
    while (*from != '\0' && size_ + 1 < sizeof text_) text_[size_++] = *from++;
    text_[size_] = '\0';
  }
  char text_[64];
  std::size_t size_ = 0;
};

template <class E, std::size_t R>
tensor_view<const E, R> readable(const tensor_view<const E, R>& view) {
  return view;
}

/// f(name, view) for every part of an operand.
template <class Operand, class F>
void for_each_part_of(const char* name, const Operand& operand, F&& f) {
  const auto views = operand.views();
  for (std::size_t k = 0; k < views.size(); ++k) f(part_name(name, Operand::names[k]), views[k], k);
}

/// The shape that the last part sets; the others have it too, or are repeated.
template <class In>
auto check_scan_input(const char* name, const In& in) {
  const auto views = in.views();
  const auto& main = views.back();
  for_each_part_of(name, in, [&](const part_name& part, const auto& view, std::size_t) {
    check_view(part.c_str(), readable(view));
    for (std::size_t axis = 0; axis < rank_of_operand<In>; ++axis) {
      if (view.extent(axis) != main.extent(axis) && view.extent(axis) != 1) {
        fail_shape(part.c_str(), " is ", shape_text(view.shape()), ", ",
                   part_name(name, In::names[views.size() - 1]).c_str(), " is ", shape_text(main.shape()),
                   ": extents must be equal, or 1 where ", part.c_str(), " is repeated");
      }
    }
  });
  return main.shape();
}

template <class Out, std::size_t R>
void check_scan_output(const char* name, const Out& out, const extents<R>& shape, const char* letters) {
  static_assert(rank_of_operand<Out> == R, "what a scan writes has as many axes as what it reads");
  for_each_part_of(name, out, [&](const part_name& part, const auto& view, std::size_t) {
    check_view(part.c_str(), readable(view));
    check_shape(part.c_str(), readable(view), shape, letters);
    check_writable_strides(part.c_str(), readable(view));
  });
}

/// No part of an output shares an element with a part of another operand, or, if allowed, it is that part.
template <class Out, class Other>
void check_scan_overlap(const char* name, const Out& out, const char* other_name, const Other& other,
                        aliasing allowed) {
  for_each_part_of(name, out, [&](const part_name& part, const auto& view, std::size_t) {
    for_each_part_of(other_name, other, [&](const part_name& other_part, const auto& other_view, std::size_t) {
      check_overlap(part.c_str(), readable(view), other_part.c_str(), readable(other_view), allowed);
    });
  });
}

/// Parts of one output share no element.
template <class Out>
void check_parts_apart(const char* name, const Out& out) {
  for_each_part_of(name, out, [&](const part_name& part, const auto& view, std::size_t k) {
    for_each_part_of(name, out, [&](const part_name& other, const auto& other_view, std::size_t i) {
      if (i < k) check_overlap(part.c_str(), readable(view), other.c_str(), readable(other_view));
    });
  });
}

inline std::size_t check_scan_axis(std::optional<index_t> axis, std::size_t rank) {
  const auto R = static_cast<index_t>(rank);
  if (!axis) return rank > 1 ? rank - 2 : 0;
  if (*axis < -R || *axis >= R) fail_value("axis is ", *axis, ": in has ", R, " axes");
  return static_cast<std::size_t>(*axis < 0 ? *axis + R : *axis);
}

inline void check_scan_order(order direction) {
  if (direction == order::forward || direction == order::reverse) return;
  fail_value("order is ", direction == order::bidirectional ? "bidirectional" : "none of its names",
             ": a scan runs forward or reverse");
}

template <class I>
void check_scan_offsets(std::span<const I> offsets, index_t steps) {
  index_t before = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    // What does not fit an index is out of order, or too far.
    if (std::cmp_less(offsets[i], before)) {
      fail_value("offsets[", i, "] is ", offsets[i], ": offsets start at 0 or later and do not decrease");
    }
    if (std::cmp_greater(offsets[i], steps)) {
      fail_value("offsets[", i, "] is ", offsets[i], ": in has ", steps, " steps along the scanned axis");
    }
    before = static_cast<index_t>(offsets[i]);
  }
}

template <class State>
inline constexpr bool is_view_struct_or_view = true;
template <class E, std::size_t R>
inline constexpr bool is_view_struct_or_view<tensor<E, R>> = false;

template <class State>
auto input_state(const State& state) {
  static_assert(is_view_struct_or_view<State>, "states are views, or structs of views: write h0.view()");
  if constexpr (std::is_same_v<State, no_state>) {
    return state;
  } else {
    return as_input(state);
  }
}
template <class State>
auto output_state(const State& state) {
  static_assert(is_view_struct_or_view<State>, "states are views, or structs of views: write h1.view()");
  if constexpr (std::is_same_v<State, no_state>) {
    return state;
  } else {
    return as_output(state);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
