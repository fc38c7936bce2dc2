// SPDX-License-Identifier: Apache-2.0
// The helpers that tests of any strides rely on: a layout holds the same elements, poison around them, and is seen to.
#include "reference/strided.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>

#include "reference/random.hpp"

namespace mix = tokenmix;
using mix::index_t;
using namespace mix::reference;  // NOLINT: what is tested here

namespace {

template <class E, std::size_t R>
void expect_same_elements_amid_poison(const mix::extents<R>& shape) {
  const auto source = uniform<E>(shape, 5);
  std::set<std::string> names;
  for (const layout<R>& l : layouts<R>()) {
    SCOPED_TRACE(l.name);
    EXPECT_TRUE(names.insert(l.name).second);
    const strided<E, R> copy(source, l);
    EXPECT_TRUE(same_bits(source, copy.view()));
    EXPECT_TRUE(same_bits(source, packed_copy(copy.view())));
    EXPECT_TRUE(copy.view().channels_contiguous());
    EXPECT_NO_THROW(mix::detail::check_output("copy", copy.view()));
    EXPECT_TRUE(copy.gaps_untouched());
  }
}

TEST(strided, layouts_hold_the_same_elements) {
  expect_same_elements_amid_poison<float, 4>({2, 3, 5, 7});
  expect_same_elements_amid_poison<mix::bfloat16, 4>({1, 1, 1, 1});
  expect_same_elements_amid_poison<double, 3>({2, 3, 4});
  expect_same_elements_amid_poison<float, 2>({6, 1});
  expect_same_elements_amid_poison<float, 1>({9});
  expect_same_elements_amid_poison<float, 4>({0, 3, 5, 7});
  expect_same_elements_amid_poison<float, 4>({2, 3, 0, 7});
  expect_same_elements_amid_poison<float, 4>({2, 3, 5, 0});
}

TEST(strided, layouts_are_what_their_names_say) {
  const auto all = layouts<4>();
  const mix::extents<4> shape{2, 3, 4, 5};
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ((strided<float, 4>(shape, all[0]).view().strides()), (mix::extents<4>{60, 20, 5, 1}));
  EXPECT_GT((strided<float, 4>(shape, all[1]).view().stride(2)), 5);
  EXPECT_EQ((strided<float, 4>(shape, all[2]).view().strides()), (mix::extents<4>{-60, -20, -5, 1}));
  EXPECT_EQ((strided<float, 4>(shape, all[3]).view().strides()), (mix::extents<4>{60, 5, 15, 1}));
  EXPECT_LT((strided<float, 4>(shape, all[4]).view().stride(0)), 0);
}

TEST(strided, poison_is_nan_and_a_write_into_it_is_seen) {
  for (const layout<2>& l : layouts<2>()) {
    if (l.name != "sliced") continue;
    strided<float, 2> copy(uniform<float>({3, 4}, 1), l);
    float* behind_a_row = copy.view().row(0) + 4;
    EXPECT_TRUE(std::isnan(*behind_a_row));
    EXPECT_TRUE(std::isnan(copy.view().row(0)[-1]));
    copy.view()(1, 1) = 7.f;
    EXPECT_TRUE(copy.gaps_untouched());
    *behind_a_row = 0.f;
    EXPECT_FALSE(copy.gaps_untouched());
  }
}

TEST(strided, broadcast_repeats) {
  const auto source = uniform<float>({1, 3, 4}, 2);
  const auto repeated = broadcast(source, 0, 5);
  EXPECT_EQ(repeated.shape(), (mix::extents<3>{5, 3, 4}));
  const auto copy = packed_copy(repeated);
  for (index_t b = 0; b < 5; ++b) EXPECT_TRUE(same_bits(copy.part(b), source.part(0)));
}

TEST(same_bits, finds_one_bit_and_says_where) {
  auto a = uniform<float>({2, 3, 4}, 3);
  auto b = a;
  EXPECT_TRUE(same_bits(a, b));
  a(1, 0, 2) = 0.f;
  b(1, 0, 2) = -0.f;
  const auto result = same_bits(a, b);
  EXPECT_FALSE(result);
  EXPECT_STREQ(result.message(), "first difference at (1, 0, 2): 0 and -0");
  EXPECT_FALSE(same_bits(a, a.slice(0, 0, 1)));
  a(1, 0, 2) = b(1, 0, 2) = std::nanf("");
  EXPECT_TRUE(same_bits(a, b));
}

TEST(random, depends_on_the_seed_and_on_nothing_else) {
  EXPECT_TRUE(same_bits(uniform<float>({3, 4}, 1), uniform<float>({3, 4}, 1)));
  EXPECT_FALSE(same_bits(uniform<float>({3, 4}, 1), uniform<float>({3, 4}, 2)));
  EXPECT_FALSE(same_bits(normal<float>({3, 4}, 1), uniform<float>({3, 4}, 1)));
  const auto expected = uniform<float>({2, 3, 5, 7}, 9);
  for (const layout<4>& l : layouts<4>()) {
    strided<float, 4> filled(expected.shape(), l);
    fill_uniform(filled.view(), 9);
    EXPECT_TRUE(same_bits(filled.view(), expected)) << l.name;
  }
  // Known values: a change of the generator would change every test's data.
  random_source random(1);
  EXPECT_EQ(random.bits(), 15916886550466581944u);
  EXPECT_EQ(random.bits(), 6791897765849424158u);
}

TEST(random, has_the_moments_it_says) {
  const auto u = uniform<double>({100000}, 4);
  const auto n = normal<double>({100000}, 4, 0.25, 2.0);
  double low = 1e9, high = -1e9, sum = 0, normal_sum = 0, normal_squares = 0;
  for (double x : u) {
    low = std::fmin(low, x);
    high = std::fmax(high, x);
    sum += x;
  }
  for (double x : n) {
    normal_sum += x;
    normal_squares += (x - 0.25) * (x - 0.25);
  }
  EXPECT_GE(low, -0.7);
  EXPECT_LT(high, 1.3);
  EXPECT_LT(low, -0.69);
  EXPECT_GT(high, 1.29);
  // Five standard deviations of the means of 10^5 numbers: 5 sigma / sqrt(10^5).
  EXPECT_NEAR(sum / 1e5, 0.3, 5 * 0.578 / 316);
  EXPECT_NEAR(normal_sum / 1e5, 0.25, 5 * 2.0 / 316);
  EXPECT_NEAR(normal_squares / 1e5, 4.0, 5 * 4.0 * 1.415 / 316);
  random_source random(6);
  std::set<index_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(random.integer(-2, 3));
  EXPECT_EQ(seen, (std::set<index_t>{-2, -1, 0, 1, 2, 3}));
}

}  // namespace
