// SPDX-License-Identifier: Apache-2.0
// Views: what deduces from what, indices, strides, parts. Tensors: ownership, copies, sizes that cannot be.
#include <tokenmix/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>

#include <tokenmix/core/dtype.hpp>

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor;
using mix::tensor_view;

namespace {

constexpr index_t huge = index_t{1} << 40;

// --- What a call deduces (design: a function that takes a const view takes all three) ----------------------------------

template <class E, std::size_t R>
constexpr std::size_t takes_const(tensor_view<const E, R>) {
  static_assert(!std::is_const_v<E>);
  return R;
}
template <class E>
void takes_both(tensor_view<const E, 4>, tensor_view<E, 4> out) {  // (B, H, T, D)
  out(0, 0, 0, 0) = E(1);
}
template <class E, std::size_t R>
void takes_mutable(tensor_view<E, R>) {
  static_assert(!std::is_const_v<E>);
}

TEST(tensor_view, const_view_deduces_from_const_view_view_and_tensor) {
  tensor<float, 4> owner({1, 2, 3, 4});
  const tensor<float, 4>& const_owner = owner;
  const tensor_view<float, 4> view = owner.view();
  const tensor_view<const float, 4> const_view = owner;
  EXPECT_EQ(takes_const(owner) + takes_const(const_owner) + takes_const(view) + takes_const(const_view), 16u);
  EXPECT_EQ(takes_const(owner.view()) + takes_const(const_owner.view()), 8u);
  EXPECT_EQ(takes_const(tensor<double, 2>({1, 1})) + takes_const(tensor<mix::bfloat16, 1>({1})), 3u);
}

TEST(tensor_view, one_element_type_deduces_from_input_and_output) {
  tensor<float, 4> in({1, 1, 1, 1});
  tensor<float, 4> out({1, 1, 1, 1});
  const tensor_view<const float, 4> const_in = in;
  takes_both(in, out);
  takes_both(in.view(), out.view());
  takes_both(const_in, out.view());
  takes_both(const_in, out);
  takes_both(std::as_const(in), out);
  takes_both(out, out);
  takes_mutable(out);
  takes_mutable(out.view());
  EXPECT_EQ(out(0, 0, 0, 0), 1.f);
}

static_assert(std::is_convertible_v<tensor_view<float, 2>, tensor_view<const float, 2>>);
static_assert(!std::is_convertible_v<tensor_view<const float, 2>, tensor_view<float, 2>>);
static_assert(!std::is_convertible_v<tensor_view<float, 2>, tensor_view<float, 3>>);
static_assert(!std::is_convertible_v<tensor_view<double, 2>, tensor_view<const float, 2>>);
static_assert(std::is_trivially_copyable_v<tensor_view<float, 4>>);
static_assert(std::is_trivially_copyable_v<tensor_view<const float, 4>>);
static_assert(sizeof(tensor_view<float, 4>) == 9 * 8);

// A const view gives const elements, a view gives elements, and a const tensor gives const elements.
template <class View>
using data_of = decltype(std::declval<View>().data());
static_assert(std::is_same_v<data_of<tensor_view<const float, 1>>, const float*>);
static_assert(std::is_same_v<data_of<const tensor_view<float, 1>>, float*>);
static_assert(std::is_same_v<data_of<tensor<float, 1>&>, float*>);
static_assert(std::is_same_v<data_of<const tensor<float, 1>&>, const float*>);
static_assert(std::is_same_v<decltype(std::declval<const tensor<float, 2>&>()(0, 0)), const float&>);
static_assert(std::is_same_v<decltype(std::declval<const tensor<float, 2>&>().row(0)), const float*>);
static_assert(std::is_same_v<decltype(std::declval<const tensor<float, 2>&>().view()), tensor_view<const float, 2>>);
static_assert(std::is_same_v<decltype(std::declval<const tensor<float, 2>&>().part(0)), tensor_view<const float, 1>>);
static_assert(std::is_same_v<decltype(std::declval<tensor<float, 2>&>().part(0)), tensor_view<float, 1>>);
static_assert(std::is_same_v<decltype(std::declval<const tensor<float, 1>&>().begin()), const float*>);

// --- Views ----------------------------------------------------------------------------------------------------------

TEST(tensor_view, indices_go_through_strides) {
  float memory[60];
  std::iota(memory, memory + 60, 0.f);
  const tensor_view<float, 3> packed(memory, {3, 4, 5});
  EXPECT_EQ(packed.strides(), (mix::extents<3>{20, 5, 1}));
  EXPECT_EQ(packed(2, 1, 3), 48.f);
  EXPECT_EQ(packed.offset(2, 1), 45);
  EXPECT_EQ(*packed.row(2, 1), 45.f);
  EXPECT_EQ(*packed.row(), 0.f);
  EXPECT_EQ(packed.size(), 60);

  const tensor_view<const float, 2> odd(memory + 59, {3, 2}, {-20, 0});
  EXPECT_EQ(odd(0, 0), 59.f);
  EXPECT_EQ(odd(2, 1), 19.f);
  EXPECT_FALSE(odd.channels_contiguous());

  packed(1, 2, 3) = -1.f;
  EXPECT_EQ(memory[33], -1.f);
}

TEST(tensor_view, permuted_slice_and_part_agree_with_indices) {
  tensor<int, 4> t({2, 3, 4, 5});
  std::iota(t.begin(), t.end(), 0);
  const auto p = t.permuted({0, 2, 1, 3});
  const auto s = p.slice(1, 1, 2).slice(3, 2, 3);
  EXPECT_EQ(p.shape(), (mix::extents<4>{2, 4, 3, 5}));
  EXPECT_EQ(s.shape(), (mix::extents<4>{2, 2, 3, 3}));
  for (index_t b = 0; b < 2; ++b) {
    for (index_t i = 0; i < 2; ++i) {
      for (index_t h = 0; h < 3; ++h) {
        for (index_t d = 0; d < 3; ++d) {
          const int expected = t(b, h, i + 1, d + 2);
          EXPECT_EQ(s(b, i, h, d), expected);
          EXPECT_EQ(s.part(b)(i, h, d), expected);
          EXPECT_EQ(s.part(b, i)(h, d), expected);
          EXPECT_EQ(s.part(b, i, h, d)(), expected);
          EXPECT_EQ((tensor_view<const int, 4>(s).part(b, i)(h, d)), expected);
        }
      }
    }
  }
  s(1, 1, 2, 2) = -7;
  EXPECT_EQ(t(1, 2, 2, 4), -7);
  EXPECT_EQ(t.part(1, 2)(2, 4), -7);
}

TEST(tensor_view, channels_are_contiguous_or_too_few_to_tell) {
  float x = 0;
  EXPECT_TRUE((tensor_view<float, 2>(&x, {4, 3}, {3, 1}).channels_contiguous()));
  EXPECT_FALSE((tensor_view<float, 2>(&x, {4, 3}, {1, 4}).channels_contiguous()));
  EXPECT_FALSE((tensor_view<float, 2>(&x, {4, 3}, {3, -1}).channels_contiguous()));
  EXPECT_TRUE((tensor_view<float, 2>(&x, {4, 1}, {3, 7}).channels_contiguous()));
  EXPECT_TRUE((tensor_view<float, 2>(&x, {4, 0}, {3, 7}).channels_contiguous()));
  EXPECT_TRUE((tensor_view<float, 0>(&x, {}).channels_contiguous()));
}

TEST(tensor_view, empty_and_scalar) {
  const tensor_view<float, 4> none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.data(), nullptr);
  float x = 3.f;
  const tensor_view<float, 0> scalar(&x, {});
  EXPECT_EQ(scalar.size(), 1);
  EXPECT_EQ(scalar(), 3.f);
  EXPECT_EQ(scalar.part()(), 3.f);
}

TEST(tensor_view, extents_of_an_empty_view_may_be_larger_than_any_memory) {
  const tensor_view<float, 3> none(nullptr, {huge, huge, 0});  // an undefined-behaviour sanitizer watches the products
  EXPECT_TRUE(none.empty());
  const tensor_view<float, 3> also_none(nullptr, {0, huge, huge});
  EXPECT_TRUE(also_none.empty());
}

static_assert([] {
  int memory[6] = {0, 1, 2, 3, 4, 5};
  const tensor_view<int, 2> v(memory, {2, 3});
  v(1, 2) = 9;
  return v.permuted({1, 0})(2, 1) == 9 && v.slice(1, 1, 2)(1, 1) == 9 && v.part(1)(2) == 9;
}());

// --- Tensors --------------------------------------------------------------------------------------------------------

template <class E>
class tensor_of : public testing::Test {};
using element_types =
    testing::Types<float, double, mix::bfloat16, mix::float16, bool, std::int8_t, std::int64_t, index_t>;
TYPED_TEST_SUITE(tensor_of, element_types);

TYPED_TEST(tensor_of, is_zero_at_the_start_aligned_and_packed) {
  using E = TypeParam;
  const tensor<E, 3> t({3, 5, 7});
  EXPECT_EQ(t.end() - t.begin(), 105);
  EXPECT_EQ(t.strides(), (mix::extents<3>{35, 7, 1}));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.data()) % 64, 0u);
  const auto* bytes = reinterpret_cast<const unsigned char*>(t.data());
  for (std::size_t i = 0; i < 105 * sizeof(E); ++i) ASSERT_EQ(bytes[i], 0);
  static_assert(std::is_same_v<decltype(t.data()), const E*>);
}

TEST(tensor, of_bool_is_made_of_bools) {
  tensor<bool, 2> mask({3, 70}, true);  // (T, S)
  bool* memory = mask.data();
  memory[69] = false;
  EXPECT_FALSE(mask(0, 69));
  EXPECT_TRUE(mask(1, 0));
  bool& element = mask(2, 69);
  element = false;
  EXPECT_FALSE(memory[3 * 70 - 1]);
  const tensor_view<const bool, 2> view = mask;
  EXPECT_EQ(view.data(), memory);
}

TEST(tensor, copies_are_deep_and_moves_take_the_memory) {
  tensor<float, 2> a({2, 3}, 1.5f);
  tensor<float, 2> b = a;
  b(1, 2) = 9.f;
  EXPECT_EQ(a(1, 2), 1.5f);
  EXPECT_NE(a.data(), b.data());

  const float* memory = b.data();
  tensor<float, 2> c = std::move(b);
  EXPECT_EQ(c.data(), memory);
  EXPECT_EQ(c(1, 2), 9.f);
  EXPECT_TRUE(b.empty());  // NOLINT: a moved-from tensor is empty, that is a promise
  EXPECT_EQ(b.data(), nullptr);

  a = c;
  EXPECT_EQ(a(1, 2), 9.f);
  EXPECT_NE(a.data(), c.data());
  const tensor<float, 2>& itself = a;
  a = itself;
  EXPECT_EQ(a(1, 2), 9.f);
  a = tensor<float, 2>({1, 1}, 4.f);
  EXPECT_EQ(a.shape(), (mix::extents<2>{1, 1}));
  EXPECT_EQ(a(0, 0), 4.f);
  swap(a, c);
  EXPECT_EQ(a(1, 2), 9.f);
  EXPECT_EQ(c(0, 0), 4.f);
}

TEST(tensor, default_is_empty_and_rank_zero_is_one_element) {
  const tensor<float, 4> none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.begin(), none.end());
  tensor<float, 0> scalar;
  EXPECT_EQ(scalar.size(), 1);
  EXPECT_EQ(scalar(), 0.f);
  tensor<float, 0> copy = scalar;
  copy() = 2.f;
  EXPECT_EQ(scalar(), 0.f);
  EXPECT_TRUE((tensor<double, 3>({huge, huge, 0}).empty()));
}

TEST(tensor, sizes_that_cannot_be_are_errors) {
  constexpr index_t most = std::numeric_limits<index_t>::max();
  EXPECT_THROW((tensor<float, 2>({-1, 3})), mix::shape_error);
  EXPECT_THROW((tensor<float, 2>({0, -3})), mix::shape_error);
  EXPECT_THROW((tensor<float, 2>({std::numeric_limits<index_t>::min(), 2})), mix::shape_error);
  EXPECT_THROW((tensor<char, 2>({huge, huge})), mix::shape_error);
  EXPECT_THROW((tensor<char, 3>({huge, huge, huge})), mix::shape_error);
  EXPECT_THROW((tensor<char, 4>({index_t{1} << 32, index_t{1} << 32, 1, 1})), mix::shape_error);  // 2^64 wraps to 0
  EXPECT_THROW((tensor<float, 1>({most / 2})), mix::shape_error);  // fits, its bytes do not
  EXPECT_THROW((tensor<float, 1>({most / 2}, 1.f)), mix::shape_error);
  try {
    tensor<float, 2> t({3, -4});
    FAIL();
  } catch (const mix::shape_error& error) {
    EXPECT_STREQ(error.what(), "shape has extent -4 at axis 1: extents are not negative");
  }
}

}  // namespace
