// SPDX-License-Identifier: Apache-2.0
// ALiBi against its formula, and the paper's slopes.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/alibi.hpp>

#include <array>
#include <span>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

template <class T>
void sweep() {
  for (const shape& s : shapes) {
    std::vector<float> slopes;
    for (index_t h = 0; h < s.heads; ++h) slopes.push_back(0.37f + 0.11f * static_cast<float>(h));
    const auto expected = [&](double score, const mix::index& w) {
      return score - static_cast<double>(slopes[static_cast<std::size_t>(w.head)]) *
                         std::abs(static_cast<double>(w.query - w.key));
    };
    // One rounding with fma, of a result that is at most |score| + |bias|; without, the product's as well.
    expect_everywhere<T>(mix::alibi{slopes}, s, 2.0, expected);
    expect_everywhere<T>(mix::alibi{std::span<const float>(slopes)}, s, 2.0, expected);
    expect_everywhere<T>(mix::alibi{.slopes = mix::tensor_view<const float, 1>(slopes.data(), {s.heads})}, s, 2.0,
                         expected);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Alibi, Float) { sweep<float>(); }
TEST(Alibi, Double) { sweep<double>(); }

TEST(Alibi, FarPositionsAreExact) {
  // Distances up to 2^24 are floats; the score is 0, so the result is the product, rounded once.
  const mix::alibi m{std::array<float, 1>{0.5f}};
  const index_t far = (index_t{1} << 24) - 1;
  const index_t keys = (index_t{1} << 40);
  EXPECT_EQ(mix::score_at(m, 0.0f, mix::index{0, 0, keys - 1, keys - 1 - far, 1, keys}),
            -0.5f * static_cast<float>(far));
  const mix::query_lanes_index<float> where{
      0, 0, mix::simd::positions<float>::consecutive(keys - 100), keys - 100 - far, 100, keys};
  alignas(64) float result[static_cast<std::size_t>(mix::simd::lanes<float>)];
  mix::simd::store(result, mix::score_at(m, mix::simd::batch<float>(0.0f), where));
  EXPECT_EQ(result[0], -0.5f * static_cast<float>(far));
  EXPECT_EQ(result[1], -0.5f * static_cast<float>(far + 1));
}

TEST(Alibi, SlopesOfThePaper) {
  // Eight heads: 1/2, 1/4, ..., 1/256 (section 3). Sixteen: 1/sqrt(2), 1/2, 1/(2 sqrt(2)), ...
  const auto eight = mix::alibi_slopes(8);
  const auto sixteen = mix::alibi_slopes(16);
  ASSERT_EQ(eight.size(), 8u);
  ASSERT_EQ(sixteen.size(), 16u);
  for (std::size_t h = 0; h < 8; ++h) EXPECT_EQ(eight[h], std::ldexp(1.0, -static_cast<int>(h) - 1));
  for (std::size_t h = 0; h < 16; ++h) EXPECT_DOUBLE_EQ(sixteen[h], std::pow(2.0, -0.5 * static_cast<double>(h + 1)));
  // Twelve, as the authors' code gives them: those of eight, then the first, third, ... of sixteen.
  const auto twelve = mix::alibi_slopes(12);
  ASSERT_EQ(twelve.size(), 12u);
  for (std::size_t h = 0; h < 8; ++h) EXPECT_EQ(twelve[h], eight[h]);
  for (std::size_t h = 0; h < 4; ++h) EXPECT_EQ(twelve[8 + h], sixteen[2 * h]);
  EXPECT_EQ(mix::alibi_slopes(1), std::vector<double>{1.0 / 256});
  EXPECT_EQ(mix::alibi_slopes(3), (std::vector<double>{1.0 / 16, 1.0 / 256, 1.0 / 4}));
  EXPECT_TRUE(mix::alibi_slopes(0).empty());
  expect_error<mix::value_error>([] { (void)mix::alibi_slopes(-1); }, "heads is -1");
}

TEST(Alibi, Errors) {
  const mix::alibi m{mix::alibi_slopes(4)};
  m.check(1, 4, 1, 1);
  expect_error<mix::shape_error>([&] { m.check(1, 5, 1, 1); }, "alibi.slopes has 4 numbers, q has 5 heads");
}

}  // namespace
