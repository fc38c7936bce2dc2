// SPDX-License-Identifier: Apache-2.0
/// @file What a scan reads and writes: one tensor, or a struct of tensors for values of several components.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A struct of views, one per component of a value:
///
///     template <class X> using fields;                      a struct of the components, X in place of each
///     static constexpr std::array names{"a", "b"};          for error messages
///     std::array<tensor_view<E, R>, n> views() const;       the components, in that order
///
/// The last component has the shape of the scan; the others may have extent 1 along any axis, which repeats them.
template <class Operand>
concept component_views = requires(const Operand& operand) {
  typename Operand::template fields<float>;
  { operand.views()[0].stride(0) } -> std::same_as<index_t>;
  { Operand::names[0] } -> std::convertible_to<const char*>;
};

namespace detail {

/// A tensor as an operand of one component.
template <class E, std::size_t R>
struct plain_operand {
  template <class X>
  using fields = X;
  static constexpr std::array<const char*, 1> names{""};

  tensor_view<E, R> view;

  constexpr std::array<tensor_view<E, R>, 1> views() const { return {view}; }
};

template <class E, std::size_t R>
constexpr plain_operand<const E, R> as_input(const tensor_view<const E, R>& view) {
  return {view};
}
template <class E, std::size_t R>
constexpr plain_operand<E, R> as_output(const tensor_view<E, R>& view) {
  static_assert(!std::is_const_v<E>, "what a scan writes must be writable");
  return {view};
}
template <component_views Operand>
constexpr const Operand& as_input(const Operand& operand) {
  return operand;
}
template <component_views Operand>
constexpr const Operand& as_output(const Operand& operand) {
  using view = typename decltype(operand.views())::value_type;
  static_assert(!std::is_const_v<typename view::element_type>, "what a scan writes must be writable");
  return operand;
}

template <class Operand>
using view_of_operand = typename decltype(std::declval<const Operand&>().views())::value_type;

/// The element type, const or not, the number of axes and the number of components.
template <class Operand>
using element_of_operand = typename view_of_operand<Operand>::element_type;
template <class Operand>
inline constexpr std::size_t rank_of_operand = view_of_operand<Operand>::rank;
template <class Operand>
inline constexpr std::size_t components_of_operand =
    std::tuple_size_v<decltype(std::declval<const Operand&>().views())>;

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
