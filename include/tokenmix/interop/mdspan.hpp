// SPDX-License-Identifier: Apache-2.0
/// @file Multidimensional spans as views and back: std::mdspan's, and any type made like it (Kokkos').
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

#if __has_include(<mdspan>)
#include <mdspan>  // so that users of std::mdspan need no second include
#endif

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// A type that has std::mdspan's members, whose elements lie behind a plain pointer at strides.
///
/// An accessor that computes elements (a scale, an atomic reference) gives no plain reference, and is not one.
template <class Span>
concept strided_mdspan = requires(const Span& span, std::size_t axis) {
  typename Span::element_type;
  typename Span::extents_type;
  typename Span::mapping_type;
  { Span::rank() } -> std::convertible_to<std::size_t>;
  { span.extent(axis) } -> std::convertible_to<index_t>;
  { span.stride(axis) } -> std::convertible_to<index_t>;
  { span.data_handle() } -> std::convertible_to<typename Span::element_type*>;
  requires std::same_as<typename Span::reference, typename Span::element_type&>;
};

/// A multidimensional span as a view of the same rank, extents and strides.
///
///     std::mdspan q(data, B, H, T, D);
///     softmax_attention(mdspan_view(q), ...);
///
/// Shapes     any layout with strides whose last axis is contiguous: layout_right, layout_stride with that property,
///            layout_left where all but one extent is 1. Elements are const where the span's are.
/// Errors     shape_error if the last axis is not contiguous, or for what check_view refuses.
template <strided_mdspan Span>
auto mdspan_view(const Span& span) {
  using E = typename Span::element_type;
  constexpr auto R = static_cast<std::size_t>(Span::rank());
  extents<R> shape{};
  extents<R> strides{};
  for (std::size_t axis = 0; axis < R; ++axis) {
    shape[axis] = static_cast<index_t>(span.extent(axis));
    strides[axis] = static_cast<index_t>(span.stride(axis));
  }
  const tensor_view<E, R> view(span.data_handle(), shape, strides);
  detail::check_view("mdspan", view);
  if (!view.channels_contiguous()) {
    detail::fail_shape("mdspan has stride ", strides[R - 1], " along its last axis",
                       R > 1 && strides[0] == 1 ? " (is it layout_left?)" : "", ": it must be contiguous (stride 1)");
  }
  return view;
}

namespace detail {

template <class Span, class E, std::size_t R>
Span mdspan_of(E* data, const extents<R>& shape, const extents<R>& strides) {
  using extents_type = typename Span::extents_type;
  using mapping_type = typename Span::mapping_type;
  using index = typename extents_type::index_type;
  static_assert(static_cast<std::size_t>(Span::rank()) == R, "tokenmix: this span has another rank than the view.");

  check_view("view", tensor_view<const std::remove_const_t<E>, R>(data, shape, strides));
  std::array<index, R> span_shape{};
  std::array<index, R> span_strides{};
  for (std::size_t axis = 0; axis < R; ++axis) {
    constexpr auto dynamic = std::numeric_limits<std::size_t>::max();  // std::dynamic_extent
    const std::size_t fixed = extents_type::static_extent(axis);
    if (fixed != dynamic && shape[axis] != static_cast<index_t>(fixed)) {
      fail_shape("view has extent ", shape[axis], " along axis ", axis, ", the span's type has ", fixed);
    }
    if (!std::in_range<index>(shape[axis]) || (shape[axis] > 1 && !std::in_range<index>(strides[axis]))) {
      fail_shape("view is ", shape_text<R>(shape), " with strides ", shape_text<R>(strides),
                 ": that does not fit the span's index type");
    }
    if (shape[axis] > 1 && strides[axis] <= 0) {
      fail_shape("view has stride ", strides[axis], " along axis ", axis, ": a span's strides are positive");
    }
    span_shape[axis] = static_cast<index>(shape[axis]);
    // Strides that are never used may be anything in a view, but not in a span.
    span_strides[axis] = shape[axis] > 1 ? static_cast<index>(strides[axis]) : index{1};
  }
  if constexpr (std::is_constructible_v<mapping_type, const extents_type&, const std::array<index, R>&>) {
    return Span(data, mapping_type(extents_type(span_shape), span_strides));
  } else {
    const mapping_type mapping{extents_type(span_shape)};
    for (std::size_t axis = 0; axis < R; ++axis) {
      if (shape[axis] > 1 && static_cast<index_t>(mapping.stride(axis)) != strides[axis]) {
        fail_shape("view is ", shape_text<R>(shape), " with strides ", shape_text<R>(strides),
                   ": the span's layout has others; take one with run-time strides (layout_stride)");
      }
    }
    return Span(data, mapping);
  }
}

}  // namespace detail

/// A view as a span of the type that is asked for:
///
///     auto q = to_mdspan<std::mdspan<const float, std::dextents<index_t, 4>, std::layout_stride>>(view);
///
/// Errors     shape_error if the span's static extents, layout or index type cannot say what the view is. Spans have
///            no negative strides, and none of zero.
template <strided_mdspan Span, class E, std::size_t R>
  requires std::is_const_v<typename Span::element_type>
Span to_mdspan(const tensor_view<const E, R>& view) {
  return detail::mdspan_of<Span, const E, R>(view.data(), view.shape(), view.strides());
}
template <strided_mdspan Span, class E, std::size_t R>
  requires(!std::is_const_v<E> && !std::is_const_v<typename Span::element_type>)
Span to_mdspan(const tensor_view<E, R>& view) {
  return detail::mdspan_of<Span, E, R>(view.data(), view.shape(), view.strides());
}

}  // namespace tokenmix::inline TOKENMIX_ABI
