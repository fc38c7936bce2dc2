// SPDX-License-Identifier: Apache-2.0
// Registers: partial loads and stores between forbidden pages, masks and their bits, NaN, fma, reductions; rows of positions.

#include <gtest/gtest.h>
#include <reference/guarded.hpp>
#include <tokenmix/simd/lanes.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace {

using namespace tokenmix;
using reference::flush;
using reference::guarded_buffer;

template <class T>
class registers : public testing::Test {};
using computing_types = testing::Types<float, double>;
TYPED_TEST_SUITE(registers, computing_types);

TYPED_TEST(registers, partial_loads_and_stores) {
  using T = TypeParam;
  constexpr index_t width = simd::lanes<T>;
  for (flush side : {flush::end, flush::start}) {
    for (index_t n = 0; n <= width; ++n) {
      guarded_buffer<T> from(n, side);
      for (index_t i = 0; i < n; ++i) from[i] = static_cast<T>(3 * i + 1);
      T lanes[static_cast<std::size_t>(width)];
      const simd::batch<T> loaded = simd::load_n(static_cast<const T*>(from.data()), n);
      simd::store(lanes, loaded);
      for (index_t i = 0; i < width; ++i) EXPECT_EQ(lanes[i], i < n ? static_cast<T>(3 * i + 1) : T(0));
      guarded_buffer<T> to(n, side);
      simd::store_n(to.data(), loaded, n);
      for (index_t i = 0; i < n; ++i) EXPECT_EQ(to[i], from[i]);
      guarded_buffer<T> wide(width, side);
      simd::store_n(wide.data(), loaded, n);
      for (index_t i = n; i < width; ++i) EXPECT_TRUE(std::isnan(wide[i])) << "element " << i << " was written";
    }
  }
}

TYPED_TEST(registers, masks_and_their_bits) {
  using T = TypeParam;
  constexpr index_t width = simd::lanes<T>;
  const std::uint32_t all = width == 32 ? ~0u : (1u << width) - 1u;
  for (std::uint32_t word = 0; word <= all; word += 1 + word / 37) {
    const simd::mask<T> m = simd::from_bits<T>(word);
    EXPECT_EQ(simd::bits<T>(m), word);
    EXPECT_EQ(simd::bits<T>(~m), ~word & all);
    const std::uint32_t other = (word * 2654435761u >> 7) & all;
    const simd::lane_mask<T> a{m}, b{simd::from_bits<T>(other)};
    EXPECT_EQ(simd::bits<T>((a && b).value), word & other);
    EXPECT_EQ(simd::bits<T>((a || b).value), word | other);
    EXPECT_EQ(simd::bits<T>((!a).value), ~word & all);
    EXPECT_EQ(simd::bits<T>((a && true).value), word);
    EXPECT_EQ(simd::bits<T>((false && a).value), 0u);
    EXPECT_EQ(simd::bits<T>((a || true).value), all);
    EXPECT_EQ(simd::bits<T>((false || a).value), word);
    T lanes[static_cast<std::size_t>(width)];
    simd::store(lanes, simd::select(m, simd::iota<T>(), simd::broadcast(std::numeric_limits<T>::quiet_NaN())));
    for (index_t i = 0; i < width; ++i) {
      if ((word >> i) & 1u) {
        EXPECT_EQ(lanes[i], static_cast<T>(i));
      } else {
        EXPECT_TRUE(std::isnan(lanes[i]));
      }
    }
  }
  for (index_t n = 0; n <= width; ++n) EXPECT_EQ(simd::bits<T>(simd::first_lanes<T>(n)), (std::uint64_t{1} << n) - 1u);
}

TYPED_TEST(registers, nan_and_fma) {
  using T = TypeParam;
  const T nan_value = std::numeric_limits<T>::quiet_NaN();
  const simd::batch<T> nan(nan_value), one(T(1));
  EXPECT_EQ(simd::bits<T>(nan == nan), 0u);
  EXPECT_NE(simd::bits<T>(~(nan == nan)), 0u);
  EXPECT_EQ(simd::bits<T>(simd::max_or_second(nan, one) == one), simd::bits<T>(one == one));
  EXPECT_EQ(simd::bits<T>(simd::max_or_second(one, nan) == one), 0u);
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
  // (1 + e)(1 - e) - 1 = -e^2: zero if the product were rounded first.
  T lanes[static_cast<std::size_t>(simd::lanes<T>)];
  simd::store(lanes, simd::fma(simd::batch<T>(1 + std::numeric_limits<T>::epsilon()),
                               simd::batch<T>(1 - std::numeric_limits<T>::epsilon()), simd::batch<T>(T(-1))));
  EXPECT_EQ(lanes[0], -std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon());
#endif
}

// Bit for bit what the language has: AArch64's estimates would be off by a unit, and NaN at infinity.
TYPED_TEST(registers, quotients_and_roots_are_correctly_rounded) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const T numbers[] = {T(0), T(1), T(2), T(3), T(0.1), T(7e-30), T(3e30), infinity};
  T lanes[static_cast<std::size_t>(simd::lanes<T>)];
  for (const T a : numbers) {
    for (const T b : numbers) {
      volatile T divisor = b;
      simd::store(lanes, simd::divide(simd::broadcast(a), simd::broadcast(b)));
      const T expected = a / divisor;
      EXPECT_TRUE(lanes[0] == expected || (std::isnan(lanes[0]) && std::isnan(expected))) << a << " / " << b;
    }
    simd::store(lanes, simd::sqrt(simd::broadcast(a)));
    EXPECT_EQ(lanes[0], std::sqrt(a)) << a;
  }
}

TYPED_TEST(registers, reductions) {
  using T = TypeParam;
  constexpr index_t width = simd::lanes<T>;
  const T nan = std::numeric_limits<T>::quiet_NaN();
  T numbers[static_cast<std::size_t>(width)];
  T sum = 0;
  for (index_t i = 0; i < width; ++i) sum += numbers[i] = static_cast<T>(1 << i);  // exact in any order
  EXPECT_EQ(simd::reduce_add(simd::load(numbers)), sum);
  for (index_t at = 0; at < width; ++at) {
    for (index_t i = 0; i < width; ++i) numbers[i] = static_cast<T>(-10 - (i * 7) % width);
    numbers[at] = T(-2);
    EXPECT_EQ(simd::reduce_max(simd::load(numbers)), T(-2));
    numbers[(at + 1) % width] = nan;
    EXPECT_EQ(simd::reduce_max(simd::load(numbers)), T(-2));
  }
  EXPECT_TRUE(std::isnan(simd::reduce_max(simd::batch<T>(nan))));
}

TYPED_TEST(registers, positions_compare_like_integers) {
  using T = TypeParam;
  constexpr index_t width = simd::lanes<T>;
  const index_t far = index_t{1} << 40;
  for (index_t first : {index_t{0}, index_t{5}, far, -far}) {
    const auto row = simd::positions<T>::consecutive(first);
    const index_t marks[] = {first - far,       first - 1,     first,          first + 1,
                             first + width - 1, first + width, first + 3 * far};
    for (index_t b : marks) {
      for (index_t i = 0; i < width; ++i) {
        const index_t p = first + i;
        EXPECT_EQ(row[i], p);
        const auto lane = [i](simd::lane_mask<T> m) { return ((simd::bits<T>(m.value) >> i) & 1u) != 0; };
        EXPECT_EQ(lane(row < b), p < b);
        EXPECT_EQ(lane(row <= b), p <= b);
        EXPECT_EQ(lane(row > b), p > b);
        EXPECT_EQ(lane(row >= b), p >= b);
        EXPECT_EQ(lane(row == b), p == b);
        EXPECT_EQ(lane(row != b), p != b);
        EXPECT_EQ(lane(b < row), b < p);
        EXPECT_EQ(lane(b >= row), b >= p);
        EXPECT_EQ((row - b)[i], p - b);
        EXPECT_EQ((b - row)[i], b - p);
        EXPECT_EQ((row + row)[i], 2 * p);
        EXPECT_EQ((-row)[i], -p);
        EXPECT_EQ((row % 3)[i], p % 3);
        EXPECT_EQ((row / 3)[i], p / 3);
        EXPECT_EQ(abs(row)[i], p < 0 ? -p : p);
      }
    }
  }
}

}  // namespace
