// SPDX-License-Identifier: Apache-2.0
// Pairs of numbers apart and together again: every lane a different number, so that no order but the right one passes.
#include <gtest/gtest.h>
#include <tokenmix/simd/pairs.hpp>

namespace simd = tokenmix::simd;
using tokenmix::index_t;

namespace {

template <class T>
class Pairs : public ::testing::Test {};
using numbers = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Pairs, numbers);

TYPED_TEST(Pairs, SeparateAndJoin) {
  using T = TypeParam;
  constexpr index_t L = simd::lanes<T>;
  T memory[static_cast<std::size_t>(2 * L)];
  for (index_t i = 0; i < 2 * L; ++i) memory[i] = static_cast<T>(100 + 3 * i);
  const simd::pairs<T> p = simd::separate(simd::load(memory), simd::load(memory + L));
  T first[static_cast<std::size_t>(L)], second[static_cast<std::size_t>(L)];
  simd::store(first, p.first);
  simd::store(second, p.second);
  for (index_t i = 0; i < L; ++i) {
    EXPECT_EQ(first[i], memory[2 * i]);
    EXPECT_EQ(second[i], memory[2 * i + 1]);
  }
  simd::batch<T> a, b;
  simd::join(p, a, b);
  T joined[static_cast<std::size_t>(2 * L)];
  simd::store(joined, a);
  simd::store(joined + L, b);
  for (index_t i = 0; i < 2 * L; ++i) EXPECT_EQ(joined[i], memory[i]);
}

}  // namespace
