// SPDX-License-Identifier: Apache-2.0
/// @file Eigen's (unsupported) tensors as views, and packed views as Eigen's tensor maps; no element is copied.
#pragma once

#include <array>
#include <type_traits>

#include <unsupported/Eigen/CXX11/Tensor>

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/interop/eigen.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

template <class T>
inline constexpr bool is_eigen_tensor = false;
template <class Scalar, int Rank, int Options, class Index>
inline constexpr bool is_eigen_tensor<Eigen::Tensor<Scalar, Rank, Options, Index>> = true;
template <class Plain, int Options, template <class> class Pointer>
inline constexpr bool is_eigen_tensor<Eigen::TensorMap<Plain, Options, Pointer>> = true;

template <class T>
inline constexpr bool is_eigen_tensor_map = false;
template <class Plain, int Options, template <class> class Pointer>
inline constexpr bool is_eigen_tensor_map<Eigen::TensorMap<Plain, Options, Pointer>> = true;

}  // namespace detail

/// An Eigen::Tensor or Eigen::TensorMap, row-major, as a view of the same rank and extents.
///
/// Errors     does not compile for column-major tensors (Eigen's default), whose last axis is not contiguous, for
///            expressions, and for temporary tensors.
template <class Tensor>
auto eigen_tensor_view(Tensor&& tensor) {
  using type = std::remove_cvref_t<Tensor>;
  static_assert(detail::is_eigen_tensor<type>,
                "tokenmix: this is no Eigen::Tensor or Eigen::TensorMap: evaluate it into a tensor first.");
  static_assert(int(type::Layout) == int(Eigen::RowMajor),
                "tokenmix: the first axis of this tensor is the contiguous one. Declare it Eigen::RowMajor.");
  static_assert(std::is_lvalue_reference_v<Tensor> || detail::is_eigen_tensor_map<type>,
                "tokenmix: this tensor is a temporary: its view would dangle. Give it a name first.");
  using E = detail::from_eigen_t<std::remove_pointer_t<decltype(tensor.data())>>;
  constexpr auto R = static_cast<std::size_t>(type::NumDimensions);
  extents<R> shape{};
  for (std::size_t axis = 0; axis < R; ++axis) shape[axis] = static_cast<index_t>(tensor.dimensions()[axis]);
  return tensor_view<E, R>(detail::renamed<E>(tensor.data()), shape);
}

/// What eigen_tensor_map gives: a row-major tensor map, of const elements where the view's are.
template <class E, std::size_t R>
using eigen_tensor_map_t = Eigen::TensorMap<detail::with_const_of<
    Eigen::Tensor<std::remove_const_t<detail::to_eigen_t<E>>, static_cast<int>(R), Eigen::RowMajor, index_t>, E>>;

namespace detail {

template <class E, std::size_t R>
eigen_tensor_map_t<E, R> packed_tensor_map(E* data, const tensor_view<const std::remove_const_t<E>, R>& view) {
  check_view("view", view);
  const extents<R> packed = packed_strides<R>(view.shape());
  for (std::size_t axis = 0; axis < R && !view.empty(); ++axis) {
    if (view.extent(axis) > 1 && view.stride(axis) != packed[axis]) {
      fail_shape("view is ", shape_text<R>(view.shape()), " with strides ", shape_text<R>(view.strides()),
                 ": Eigen's tensor maps have no strides, it must be packed");
    }
  }
  return {renamed<to_eigen_t<E>>(data), view.shape()};
}

}  // namespace detail

/// A packed view as a row-major Eigen::TensorMap.
///
/// Errors     shape_error if the view has gaps or other than row-major strides: tensor maps have none.
template <class E, std::size_t R>
auto eigen_tensor_map(const tensor_view<const E, R>& view) {
  return detail::packed_tensor_map<const E, R>(view.data(), view);
}
template <class E, std::size_t R>
  requires(!std::is_const_v<E>)
auto eigen_tensor_map(const tensor_view<E, R>& view) {
  return detail::packed_tensor_map<E, R>(view.data(), view);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
