// SPDX-License-Identifier: Apache-2.0
/// @file Eigen's matrices as views, and views as Eigen's maps; no element is copied.
#pragma once

#include <Eigen/Core>
#include <type_traits>

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

// The same 16 bits under two names; other scalars keep theirs.
template <class Scalar>
struct eigen_scalar {
  using ours = Scalar;
  using theirs = Scalar;
};
template <>
struct eigen_scalar<Eigen::bfloat16> {
  using ours = bfloat16;
};
template <>
struct eigen_scalar<Eigen::half> {
  using ours = float16;
};
template <>
struct eigen_scalar<bfloat16> {
  using theirs = Eigen::bfloat16;
};
template <>
struct eigen_scalar<float16> {
  using theirs = Eigen::half;
};
static_assert(sizeof(Eigen::bfloat16) == 2 && sizeof(Eigen::half) == 2);

template <class To, class From>
using with_const_of = std::conditional_t<std::is_const_v<From>, const To, To>;

template <class Scalar>
using from_eigen_t = with_const_of<typename eigen_scalar<std::remove_const_t<Scalar>>::ours, Scalar>;
template <class E>
using to_eigen_t = with_const_of<typename eigen_scalar<std::remove_const_t<E>>::theirs, E>;

// Never a cast between other types: the 16-bit types of ours may alias.
template <class To, class From>
To* renamed(From* p) {
  static_assert(sizeof(To) == sizeof(From));
  return reinterpret_cast<To*>(p);
}

template <class Xpr>
inline constexpr bool is_eigen_dense = std::is_base_of_v<Eigen::DenseBase<Xpr>, Xpr>;
template <class Xpr>
inline constexpr bool has_direct_access =
    (static_cast<unsigned>(Eigen::internal::traits<Xpr>::Flags) & static_cast<unsigned>(Eigen::DirectAccessBit)) != 0u;

// Whether an expression keeps elements inside itself, so that a view of a temporary would dangle.
template <class Xpr>
struct owns_elements : std::is_base_of<Eigen::PlainObjectBase<Xpr>, Xpr> {};
template <class Plain, int Options, class Stride>
struct owns_elements<Eigen::Ref<const Plain, Options, Stride>> : std::true_type {};  // a copy where the strides differ

template <class Matrix>
constexpr void check_eigen_operand() {
  using xpr = std::remove_cvref_t<Matrix>;
  static_assert(is_eigen_dense<xpr>, "tokenmix: this is not a dense Eigen matrix, map, reference or block.");
  static_assert(has_direct_access<xpr>,
                "tokenmix: this Eigen expression has no memory to look at: evaluate it into a matrix first.");
  static_assert(std::is_lvalue_reference_v<Matrix> || !owns_elements<xpr>::value,
                "tokenmix: this matrix is a temporary: its view would dangle. Give it a name first.");
}

}  // namespace detail

/// A matrix, map, reference or block with rows that lie in one piece, as a view (rows, cols).
///
///     Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> q(T, D);
///     eigen_view(q)                      (T, D)
///     eigen_view(q.middleCols(0, D / 2)) (T, D / 2), with q's row stride
///
/// Shapes     (rows, cols); strides as Eigen has them. Elements are const where Eigen's are; Eigen::bfloat16 and
///            Eigen::half become bfloat16 and float16.
/// Errors     does not compile for column-major matrices (unless one extent is 1 by type), expressions without
///            memory, and temporaries. What is meant transposed is written so: eigen_view(m.transpose()) of a
///            column-major (D, T) matrix is (T, D).
template <class Matrix>
auto eigen_view(Matrix&& matrix) {
  detail::check_eigen_operand<Matrix>();
  using xpr = std::remove_cvref_t<Matrix>;
  static_assert(bool(xpr::IsRowMajor) || bool(xpr::IsVectorAtCompileTime),
                "tokenmix: the columns of this matrix are contiguous, its rows are not. Declare it Eigen::RowMajor, or "
                "pass m.transpose() if its columns are the tokens.");
  using E = detail::from_eigen_t<std::remove_pointer_t<decltype(matrix.data())>>;
  return tensor_view<E, 2>(detail::renamed<E>(matrix.data()), {matrix.rows(), matrix.cols()},
                           {matrix.rowStride(), matrix.colStride()});
}

/// A row or column vector (by type) as a view of rank 1.
template <class Vector>
auto eigen_vector_view(Vector&& vector) {
  detail::check_eigen_operand<Vector>();
  static_assert(bool(std::remove_cvref_t<Vector>::IsVectorAtCompileTime),
                "tokenmix: this is a matrix, not a vector: eigen_view(m) is its view.");
  using E = detail::from_eigen_t<std::remove_pointer_t<decltype(vector.data())>>;
  return tensor_view<E, 1>(detail::renamed<E>(vector.data()), {vector.size()}, {vector.innerStride()});
}

/// What eigen_map gives: a row-major map with run-time strides, of const elements where the view's are.
template <class E>
using eigen_matrix_map = Eigen::Map<
    detail::with_const_of<
        Eigen::Matrix<std::remove_const_t<detail::to_eigen_t<E>>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>, E>,
    Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
template <class E>
using eigen_vector_map =
    Eigen::Map<detail::with_const_of<Eigen::Matrix<std::remove_const_t<detail::to_eigen_t<E>>, Eigen::Dynamic, 1>, E>,
               Eigen::Unaligned, Eigen::InnerStride<Eigen::Dynamic>>;

namespace detail {

template <class E, std::size_t R>
void check_eigen_strides(const tensor_view<const E, R>& view) {
  check_view("view", view);
  for (std::size_t axis = 0; axis < R; ++axis) {
    if (view.stride(axis) < 0 && view.extent(axis) > 1) {
      fail_shape("view has stride ", view.stride(axis), " along axis ", axis,
                 ": Eigen's maps take no negative strides");
    }
  }
}

// A stride that is never used may be anything in a view, but not in a map.
inline index_t eigen_stride(index_t extent, index_t stride) { return extent > 1 ? stride : 1; }

template <class E>
eigen_matrix_map<E> map_of_matrix(E* data, const extents<2>& shape, const extents<2>& strides) {
  return {renamed<to_eigen_t<E>>(data), shape[0], shape[1],
          Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(eigen_stride(shape[0], strides[0]),
                                                        eigen_stride(shape[1], strides[1]))};
}
template <class E>
eigen_vector_map<E> map_of_vector(E* data, const extents<1>& shape, const extents<1>& strides) {
  return {renamed<to_eigen_t<E>>(data), shape[0],
          Eigen::InnerStride<Eigen::Dynamic>(eigen_stride(shape[0], strides[0]))};
}

}  // namespace detail

/// A view (rows, cols) as a row-major Eigen map with the same strides: `eigen_map(q.part(b, h)) * w`.
///
/// Errors     shape_error for a negative stride, which Eigen's maps do not take, and for what check_view refuses.
template <class E>
auto eigen_map(const tensor_view<const E, 2>& view) {
  detail::check_eigen_strides(view);
  return detail::map_of_matrix<const E>(view.data(), view.shape(), view.strides());
}
template <class E>
  requires(!std::is_const_v<E>)
auto eigen_map(const tensor_view<E, 2>& view) {
  detail::check_eigen_strides(view);
  return detail::map_of_matrix<E>(view.data(), view.shape(), view.strides());
}

/// A view of rank 1 as a column vector.
template <class E>
auto eigen_map(const tensor_view<const E, 1>& view) {
  detail::check_eigen_strides(view);
  return detail::map_of_vector<const E>(view.data(), view.shape(), view.strides());
}
template <class E>
  requires(!std::is_const_v<E>)
auto eigen_map(const tensor_view<E, 1>& view) {
  detail::check_eigen_strides(view);
  return detail::map_of_vector<E>(view.data(), view.shape(), view.strides());
}

}  // namespace tokenmix::inline TOKENMIX_ABI
