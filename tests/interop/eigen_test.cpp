// SPDX-License-Identifier: Apache-2.0
// Eigen's matrices as views and back: addresses, strides, constness, the 16-bit types, what is refused.
#include <tokenmix/interop/eigen.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <type_traits>

#include "reference/random.hpp"
#include "reference/strided.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor;
using mix::tensor_view;

namespace {

template <class Scalar>
using rows = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class Scalar>
using columns = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;

// Every element has its own value.
template <class Matrix>
Matrix numbered(index_t r, index_t c) {
  Matrix m(r, c);
  for (index_t i = 0; i < r; ++i) {
    for (index_t j = 0; j < c; ++j) m(i, j) = static_cast<typename Matrix::Scalar>(static_cast<float>(100 * i + j));
  }
  return m;
}

template <class View, class Matrix>
void expect_same_elements(const View& view, const Matrix& m) {
  ASSERT_EQ(view.extent(0), m.rows());
  ASSERT_EQ(view.extent(1), m.cols());
  for (index_t i = 0; i < m.rows(); ++i) {
    for (index_t j = 0; j < m.cols(); ++j) {
      ASSERT_EQ(static_cast<const void*>(&view(i, j)), static_cast<const void*>(&m.coeffRef(i, j)));
      ASSERT_EQ(static_cast<float>(view(i, j)), static_cast<float>(m(i, j)));
    }
  }
}

TEST(eigen_view, of_matrix_map_ref_and_block_is_the_same_memory) {
  auto m = numbered<rows<float>>(5, 7);
  const auto& const_m = m;
  static_assert(std::is_same_v<decltype(mix::eigen_view(m)), tensor_view<float, 2>>);
  static_assert(std::is_same_v<decltype(mix::eigen_view(const_m)), tensor_view<const float, 2>>);
  expect_same_elements(mix::eigen_view(m), m);
  expect_same_elements(mix::eigen_view(const_m), m);
  mix::eigen_view(m)(2, 3) = -1.f;
  EXPECT_EQ(m(2, 3), -1.f);

  Eigen::Map<rows<float>> map(m.data(), 5, 7);
  static_assert(std::is_same_v<decltype(mix::eigen_view(map)), tensor_view<float, 2>>);
  static_assert(
      std::is_same_v<decltype(mix::eigen_view(Eigen::Map<rows<float>>(nullptr, 0, 0))), tensor_view<float, 2>>);
  expect_same_elements(mix::eigen_view(map), map);
  Eigen::Map<const rows<float>> const_map(m.data(), 5, 7);
  static_assert(std::is_same_v<decltype(mix::eigen_view(const_map)), tensor_view<const float, 2>>);
  expect_same_elements(mix::eigen_view(const_map), m);

  using strided_map = Eigen::Map<rows<float>, Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  strided_map odd(m.data(), 2, 3, {14, 2});
  EXPECT_EQ(mix::eigen_view(odd).strides(), (mix::extents<2>{14, 2}));
  expect_same_elements(mix::eigen_view(odd), odd);
  EXPECT_FALSE(mix::eigen_view(odd).channels_contiguous());

  Eigen::Ref<rows<float>> ref(m);
  expect_same_elements(mix::eigen_view(ref), m);
  const Eigen::Ref<const rows<float>, 0, Eigen::OuterStride<>> const_ref(m.middleCols(1, 4));
  expect_same_elements(mix::eigen_view(const_ref), m.middleCols(1, 4));
  static_assert(std::is_same_v<decltype(mix::eigen_view(const_ref)), tensor_view<const float, 2>>);

  auto block = m.block(1, 2, 3, 4);
  expect_same_elements(mix::eigen_view(block), block);
  EXPECT_EQ(mix::eigen_view(m.block(1, 2, 3, 4)).strides(), (mix::extents<2>{7, 1}));
}

TEST(eigen_view, columns_are_tokens_where_transpose_says_so) {
  auto m = numbered<columns<float>>(7, 5);  // column-major (D, T)
  const auto view = mix::eigen_view(m.transpose());
  static_assert(std::is_same_v<decltype(view), const tensor_view<float, 2>>);
  EXPECT_EQ(view.shape(), (mix::extents<2>{5, 7}));
  EXPECT_TRUE(view.channels_contiguous());
  expect_same_elements(view, m.transpose());
  const auto& const_m = m;
  static_assert(std::is_same_v<decltype(mix::eigen_view(const_m.transpose())), tensor_view<const float, 2>>);
  expect_same_elements(mix::eigen_view(const_m.transpose()), m.transpose());
}

TEST(eigen_view, of_vectors) {
  Eigen::VectorXf column = Eigen::VectorXf::LinSpaced(6, 0.f, 5.f);
  Eigen::RowVectorXd row = Eigen::RowVectorXd::LinSpaced(6, 0.0, 5.0);
  EXPECT_EQ(mix::eigen_view(column).shape(), (mix::extents<2>{6, 1}));
  EXPECT_EQ(mix::eigen_view(row).shape(), (mix::extents<2>{1, 6}));
  EXPECT_TRUE(mix::eigen_view(column).channels_contiguous());
  expect_same_elements(mix::eigen_view(column), column);
  expect_same_elements(mix::eigen_view(row), row);
  EXPECT_EQ(mix::eigen_vector_view(column)(4), 4.f);
  EXPECT_EQ(mix::eigen_vector_view(row)(4), 4.0);
  auto m = numbered<rows<float>>(5, 7);
  EXPECT_EQ(mix::eigen_vector_view(m.col(3)).stride(0), 7);
  EXPECT_EQ(mix::eigen_vector_view(m.col(3))(2), 203.f);
  EXPECT_EQ(mix::eigen_vector_view(m.row(3))(2), 302.f);
}

TEST(eigen_view, of_eigens_16_bit_types_is_of_ours) {
  auto b = numbered<rows<Eigen::bfloat16>>(2, 3);
  auto h = numbered<rows<Eigen::half>>(2, 3);
  const auto& const_h = h;
  static_assert(std::is_same_v<decltype(mix::eigen_view(b)), tensor_view<mix::bfloat16, 2>>);
  static_assert(std::is_same_v<decltype(mix::eigen_view(const_h)), tensor_view<const mix::float16, 2>>);
  expect_same_elements(mix::eigen_view(b), b);
  expect_same_elements(mix::eigen_view(const_h), h);
  mix::eigen_view(b)(1, 2) = mix::bfloat16(-0.5f);
  EXPECT_EQ(static_cast<float>(b(1, 2)), -0.5f);
}

TEST(eigen_map, is_the_same_memory_in_any_layout) {
  const auto source = mix::reference::uniform<float>({4, 6}, 1);
  for (const auto& l : mix::reference::layouts<2>()) {
    mix::reference::strided<float, 2> copy(source, l);
    if (l.name == "reversed") {
      EXPECT_THROW(mix::eigen_map(copy.view()), mix::shape_error);
      continue;
    }
    auto map = mix::eigen_map(copy.view());
    static_assert(std::is_same_v<decltype(map), mix::eigen_matrix_map<float>>);
    expect_same_elements(copy.view(), map);
    EXPECT_EQ(mix::eigen_view(map).strides(), copy.view().strides());
    map(3, 5) = 8.f;
    EXPECT_EQ(copy.view()(3, 5), 8.f);
  }
  const auto turned = source.permuted({1, 0});
  expect_same_elements(turned, mix::eigen_map(turned));
}

TEST(eigen_map, computes_with_parts_of_a_tensor) {
  const auto x = mix::reference::uniform<double>({2, 3, 4, 5}, 2);  // (B, H, T, D)
  const auto w = mix::reference::uniform<double>({5, 6}, 3);        // (D, Dv)
  tensor<double, 4> y({2, 3, 4, 6});                                // (B, H, T, Dv)
  mix::eigen_map(y.part(1, 2)) = mix::eigen_map(x.part(1, 2)) * mix::eigen_map(w);
  double expected = 0;
  for (index_t d = 0; d < 5; ++d) expected += x(1, 2, 3, d) * w(d, 4);
  EXPECT_NEAR(y(1, 2, 3, 4), expected, 1e-14);  // five terms below 2, in another order: 5 ulp of 4
  EXPECT_EQ(y(1, 1, 3, 4), 0.0);
}

TEST(eigen_map, constness_vectors_and_16_bit_types) {
  tensor<mix::float16, 2> t({3, 4});
  const auto& const_t = t;
  static_assert(std::is_same_v<decltype(mix::eigen_map(t.view())), mix::eigen_matrix_map<mix::float16>>);
  static_assert(std::is_same_v<decltype(mix::eigen_map(const_t.view())), mix::eigen_matrix_map<const mix::float16>>);
  static_assert(std::is_same_v<decltype(mix::eigen_map(t))::Scalar, Eigen::half>);
  mix::eigen_map(t)(2, 3) = Eigen::half(1.5f);
  EXPECT_EQ(static_cast<float>(t(2, 3)), 1.5f);
  EXPECT_EQ(static_cast<float>(mix::eigen_map(const_t.part(2))(3)), 1.5f);
  EXPECT_EQ(mix::eigen_map(t.permuted({1, 0}).part(0)).innerStride(), 4);
  mix::eigen_map(t.permuted({1, 0}).part(0))(2) = Eigen::half(-2.f);
  EXPECT_EQ(static_cast<float>(t(2, 0)), -2.f);
  EXPECT_EQ(mix::eigen_map(tensor_view<const float, 2>(nullptr, {0, 4})).rows(), 0);
  EXPECT_THROW(mix::eigen_map(tensor_view<const float, 2>(nullptr, {1, 4})), mix::value_error);
  float x = 2.f;
  EXPECT_EQ(mix::eigen_map(tensor_view<const float, 2>(&x, {1, 1}, {-5, -3}))(0, 0), 2.f);
}

}  // namespace
