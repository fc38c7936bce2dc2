// SPDX-License-Identifier: Apache-2.0
// Conversions have the bits of the scalar ones in core/dtype.hpp, for every bit pattern, and touch no byte too many.

#include <gtest/gtest.h>
#include <reference/guarded.hpp>
#include <tokenmix/simd/convert.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <type_traits>
#include <vector>

namespace {

using namespace tokenmix;
using reference::flush;
using reference::guarded_buffer;

template <class T>
auto bits_of(T value) {
  if constexpr (sizeof(T) == 8) {
    return std::bit_cast<std::uint64_t>(value);
  } else if constexpr (sizeof(T) == 4) {
    return std::bit_cast<std::uint32_t>(value);
  } else if constexpr (sizeof(T) == 2) {
    return std::bit_cast<std::uint16_t>(value);
  } else {
    return std::bit_cast<std::uint8_t>(value);
  }
}

template <class E>
class conversion : public testing::Test {};
using storage_types = testing::Types<float, double, bfloat16, float16, std::int8_t>;
TYPED_TEST_SUITE(conversion, storage_types);

// Distinct elements, among them every kind of number that E has.
template <class E>
std::vector<E> samples(index_t n) {
  std::vector<E> values(static_cast<std::size_t>(n));
  std::uint64_t state = 12345;
  for (E& value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    if constexpr (std::is_floating_point_v<E>) {
      value = static_cast<E>(static_cast<double>(static_cast<std::int64_t>(state)) * 0x1p-40);
    } else if constexpr (sizeof(E) == 2) {
      value = E::from_bits(static_cast<std::uint16_t>((state >> 40) & 0x7bffu));  // finite
    } else {
      value = static_cast<E>(static_cast<std::int64_t>(state) >> 56);
    }
  }
  return values;
}

TYPED_TEST(conversion, partial_registers_are_exact_in_reach_and_value) {
  using E = TypeParam;
  using T = simd::computed_t<E>;
  constexpr index_t width = simd::lanes<T>;
  const std::vector<E> values = samples<E>(width);
  for (flush side : {flush::end, flush::start}) {
    for (index_t n = 0; n <= width; ++n) {
      const guarded_buffer<E> from(values.data(), n, side);
      T lanes[static_cast<std::size_t>(width)];
      simd::store(lanes, simd::load_as_n<T>(from.data(), n));
      for (index_t i = 0; i < width; ++i) {
        const T expected = i < n ? static_cast<T>(values[static_cast<std::size_t>(i)]) : T(0);
        EXPECT_EQ(bits_of(lanes[i]), bits_of(expected)) << "n = " << n << ", lane " << i;
      }
      // More lanes hold numbers than are stored, so a store of too many shows even inside the page.
      for (index_t i = 0; i < width; ++i) lanes[i] = static_cast<T>(values[static_cast<std::size_t>(i)]);
      guarded_buffer<E> to(n, side);
      simd::store_as_n(to.data(), simd::load(lanes), n);
      for (index_t i = 0; i < n; ++i) EXPECT_EQ(bits_of(to[i]), bits_of(values[static_cast<std::size_t>(i)]));
      guarded_buffer<E> wide(width, side);
      simd::store_as_n(wide.data(), simd::load(lanes), n);
      for (index_t i = n; i < width; ++i) {
        const auto* byte = reinterpret_cast<const unsigned char*>(wide.data() + i);
        EXPECT_EQ(*byte, 0xff) << "n = " << n << ", element " << i << " was written";
      }
    }
    const guarded_buffer<E> from(values.data(), width, side);
    guarded_buffer<E> to(width, side);
    simd::store_as(to.data(), simd::load_as<T>(from.data()));
    for (index_t i = 0; i < width; ++i) EXPECT_EQ(bits_of(to[i]), bits_of(from[i]));
  }
}

TYPED_TEST(conversion, rows_of_every_length) {
  using E = TypeParam;
  using T = simd::computed_t<E>;
  const std::vector<E> values = samples<E>(70);
  for (flush side : {flush::end, flush::start}) {
    for (index_t n = 0; n <= 70; ++n) {
      const guarded_buffer<E> from(values.data(), n, side);
      guarded_buffer<T> wide(n, side);
      guarded_buffer<E> back(n, side);
      simd::convert_row(from.data(), wide.data(), n);
      simd::convert_row(static_cast<const T*>(wide.data()), back.data(), n);
      for (index_t i = 0; i < n; ++i) {
        EXPECT_EQ(bits_of(wide[i]), bits_of(static_cast<T>(from[i])));
        EXPECT_EQ(bits_of(back[i]), bits_of(from[i]));
      }
    }
  }
}

template <class E>
void expect_every_half_widens_exactly() {
  constexpr index_t width = simd::lanes<float>;
  for (std::uint32_t first = 0; first < 0x10000u; first += static_cast<std::uint32_t>(width)) {
    E from[static_cast<std::size_t>(width)];
    float to[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i)
      from[i] = E::from_bits(static_cast<std::uint16_t>(first + static_cast<std::uint32_t>(i)));
    simd::store(to, simd::load_as<float>(from));
    for (index_t i = 0; i < width; ++i) {
      // A signalling bfloat16 NaN stays as it is: widening only appends zeros.
      ASSERT_EQ(bits_of(to[i]), bits_of(static_cast<float>(from[i]))) << "pattern " << from[i].bits;
    }
  }
}

TEST(widening, every_bfloat16) { expect_every_half_widens_exactly<bfloat16>(); }
TEST(widening, every_float16) { expect_every_half_widens_exactly<float16>(); }

// Independent of dtype.hpp: the values of some patterns as the formats define them.
TEST(widening, known_values) {
  EXPECT_EQ(static_cast<float>(float16::from_bits(0x3c00)), 1.0f);
  EXPECT_EQ(static_cast<float>(float16::from_bits(0x0001)), 0x1p-24f);
  EXPECT_EQ(static_cast<float>(float16::from_bits(0x03ff)), 1023 * 0x1p-24f);
  EXPECT_EQ(static_cast<float>(float16::from_bits(0x7bff)), 65504.0f);
  EXPECT_EQ(static_cast<float>(float16::from_bits(0xfc00)), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(static_cast<float>(bfloat16::from_bits(0xc049)), -3.140625f);
}

template <class E>
void expect_narrowing_like_the_scalar_one() {
  constexpr index_t width = simd::lanes<float>;
  // An odd step meets every residue of the rounded bits; the whole range is 2^32 patterns.
  const std::uint64_t step = std::getenv("TOKENMIX_EXHAUSTIVE") != nullptr ? 1 : 251;
  std::uint64_t pattern = 0;
  while (pattern < 0x100000000u) {
    float from[static_cast<std::size_t>(width)];
    E to[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i) {
      from[i] = std::bit_cast<float>(static_cast<std::uint32_t>(pattern));
      pattern += step;
    }
    simd::store_as(to, simd::load(from));
    for (index_t i = 0; i < width; ++i) {
      ASSERT_EQ(bits_of(to[i]), bits_of(simd::to<E>(from[i]))) << std::hex << "pattern " << bits_of(from[i]);
    }
  }
}

TEST(narrowing, to_bfloat16_like_the_scalar_one) { expect_narrowing_like_the_scalar_one<bfloat16>(); }
TEST(narrowing, to_float16_like_the_scalar_one) { expect_narrowing_like_the_scalar_one<float16>(); }
TEST(narrowing, to_int8_like_the_scalar_one) { expect_narrowing_like_the_scalar_one<std::int8_t>(); }

// Independent of dtype.hpp: halfway between two neighbours the even one wins, just beside it the nearer.
template <class E>
void expect_ties_to_even() {
  for (std::uint32_t pattern = 0; pattern + 1 < 0x7c00u; ++pattern) {
    const auto below = static_cast<float>(E::from_bits(static_cast<std::uint16_t>(pattern)));
    const auto above = static_cast<float>(E::from_bits(static_cast<std::uint16_t>(pattern + 1)));
    if (std::isinf(above) || std::isnan(above)) break;
    const float middle = below / 2 + above / 2;
    if (middle == below || middle == above || middle < 0x1p-125f)
      continue;  // bfloat16's subnormals have no middle here
    const float inputs[3] = {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 0x1p127f)};
    const std::uint32_t expected[3] = {pattern, pattern + (pattern & 1u), pattern + 1};
    E to[3];
    simd::store_as_n(to, simd::load_n(inputs, 3), 3);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(to[i].bits, expected[i]) << std::hex << pattern << " input " << i;
  }
}

TEST(narrowing, ties_to_even_in_bfloat16) { expect_ties_to_even<bfloat16>(); }
TEST(narrowing, ties_to_even_in_float16) { expect_ties_to_even<float16>(); }

TEST(narrowing, int8_rounds_saturates_and_has_no_nan) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inputs[] = {0.5f,     1.5f,  -0.5f,     -1.5f,  126.5f, 127.5f, -128.5f, -129.0f,
                          infinity, 1e30f, -infinity, -1e30f, nan,    -nan,   2.5f,    -2.500001f};
  const int expected[] = {0, 2, 0, -2, 126, 127, -128, -128, 127, 127, -128, -128, 0, 0, 2, -3};
  std::int8_t to[16];
  simd::convert_row(inputs, to, 16);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(int{to[i]}, expected[i]) << inputs[i];
    EXPECT_EQ(int{simd::to<std::int8_t>(inputs[i])}, expected[i]) << inputs[i];
  }
}

}  // namespace
