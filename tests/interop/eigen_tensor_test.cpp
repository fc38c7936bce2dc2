// SPDX-License-Identifier: Apache-2.0
// Eigen's tensors as views and back.
#include <tokenmix/interop/eigen_tensor.hpp>

#include <gtest/gtest.h>

#include <type_traits>

#include "reference/random.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor_view;

namespace {

template <class Scalar, int Rank>
using row_tensor = Eigen::Tensor<Scalar, Rank, Eigen::RowMajor>;

TEST(eigen_tensor_view, is_the_same_memory) {
  row_tensor<float, 4> t(2, 3, 4, 5);
  for (index_t i = 0; i < 120; ++i) t.data()[i] = static_cast<float>(i);
  const auto view = mix::eigen_tensor_view(t);
  static_assert(std::is_same_v<decltype(view), const tensor_view<float, 4>>);
  EXPECT_EQ(view.shape(), (mix::extents<4>{2, 3, 4, 5}));
  EXPECT_EQ(&view(1, 2, 3, 4), &t(1, 2, 3, 4));
  EXPECT_EQ(&view(1, 0, 3, 1), &t(1, 0, 3, 1));
  const auto& const_t = t;
  static_assert(std::is_same_v<decltype(mix::eigen_tensor_view(const_t)), tensor_view<const float, 4>>);
  EXPECT_EQ(mix::eigen_tensor_view(const_t)(1, 2, 0, 3), t(1, 2, 0, 3));

  Eigen::TensorMap<row_tensor<float, 3>> map(t.data(), 6, 4, 5);
  EXPECT_EQ(&mix::eigen_tensor_view(map)(5, 3, 4), &t(1, 2, 3, 4));
  Eigen::TensorMap<const row_tensor<float, 3>> const_map(t.data(), 6, 4, 5);
  static_assert(std::is_same_v<decltype(mix::eigen_tensor_view(const_map)), tensor_view<const float, 3>>);
  EXPECT_EQ(mix::eigen_tensor_view(const_map)(5, 3, 4), 119.f);

  row_tensor<Eigen::bfloat16, 2> b(2, 3);
  b(1, 2) = Eigen::bfloat16(0.5f);
  static_assert(std::is_same_v<decltype(mix::eigen_tensor_view(b)), tensor_view<mix::bfloat16, 2>>);
  EXPECT_EQ(static_cast<float>(mix::eigen_tensor_view(b)(1, 2)), 0.5f);
}

TEST(eigen_tensor_map, of_packed_views_only) {
  auto t = mix::reference::uniform<float>({2, 3, 4, 5}, 1);
  auto map = mix::eigen_tensor_map(t);
  static_assert(std::is_same_v<decltype(map), mix::eigen_tensor_map_t<float, 4>>);
  EXPECT_EQ(&map(1, 2, 3, 4), &t(1, 2, 3, 4));
  map(1, 0, 2, 3) = 7.f;
  EXPECT_EQ(t(1, 0, 2, 3), 7.f);
  const auto& const_t = t;
  static_assert(
      std::is_same_v<decltype(mix::eigen_tensor_map(const_t.view())), mix::eigen_tensor_map_t<const float, 4>>);
  EXPECT_EQ(mix::eigen_tensor_map(const_t.view())(1, 0, 2, 3), 7.f);
  EXPECT_EQ(mix::eigen_tensor_map(t.part(1))(0, 2, 3), 7.f);
  EXPECT_EQ(mix::eigen_tensor_map(t.slice(0, 1, 1))(0, 0, 2, 3), 7.f);
  EXPECT_THROW(mix::eigen_tensor_map(t.permuted({0, 2, 1, 3})), mix::shape_error);
  EXPECT_THROW(mix::eigen_tensor_map(t.slice(3, 0, 4)), mix::shape_error);
  EXPECT_EQ(mix::eigen_tensor_map(t.slice(3, 0, 0)).size(), 0);
}

}  // namespace
