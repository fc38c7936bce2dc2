// SPDX-License-Identifier: Apache-2.0
// 16-bit types against Eigen's, bit for bit, and against the definition of rounding, from float and from double.
#include <tokenmix/core/dtype.hpp>

#include <gtest/gtest.h>

#include <Eigen/Core>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace mix = tokenmix;

namespace {

std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

template <class E>
struct traits;
template <>
struct traits<mix::bfloat16> {
  using eigen = Eigen::bfloat16;
  static constexpr std::uint16_t infinity = 0x7f80;
  static constexpr std::uint16_t quiet = 0x40;
  static constexpr double above_largest = 0x1p128;  // what would follow the largest finite value
  static eigen from_eigen(float x) { return eigen(x); }
  static std::uint16_t bits(eigen x) { return x.value; }
  static eigen eigen_of(std::uint16_t bits) { return Eigen::bfloat16_impl::raw_uint16_to_bfloat16(bits); }
  static constexpr bool eigen_keeps_nan_payload = false;
};
template <>
struct traits<mix::float16> {
  using eigen = Eigen::half;
  static constexpr std::uint16_t infinity = 0x7c00;
  static constexpr std::uint16_t quiet = 0x200;
  static constexpr double above_largest = 65536.0;
  static eigen from_eigen(float x) { return eigen(x); }
  static std::uint16_t bits(eigen x) { return std::bit_cast<std::uint16_t>(x); }
  static eigen eigen_of(std::uint16_t bits) { return Eigen::half_impl::raw_uint16_to_half(bits); }
#if defined(EIGEN_HAS_FP16_C)
  static constexpr bool eigen_keeps_nan_payload = true;  // vcvtps2ph does
#else
  static constexpr bool eigen_keeps_nan_payload = false;
#endif
};

template <class E>
class dtype : public testing::Test {};
using storage_types = testing::Types<mix::bfloat16, mix::float16>;
TYPED_TEST_SUITE(dtype, storage_types);

TYPED_TEST(dtype, every_value_widens_to_what_eigen_widens_it_to_and_comes_back) {
  using E = TypeParam;
  for (std::uint32_t i = 0; i < 0x10000u; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const auto value = static_cast<float>(E::from_bits(bits));
    const auto expected = static_cast<float>(traits<E>::eigen_of(bits));
    const bool is_nan = (bits & 0x7fffu) > traits<E>::infinity;
    ASSERT_EQ(std::isnan(value), is_nan) << i;
    if (!is_nan) {
      ASSERT_EQ(bits_of(value), bits_of(expected)) << i;
      ASSERT_EQ(E(value).bits, bits) << i;
    } else {
      ASSERT_TRUE(std::isnan(expected));
      ASSERT_EQ(std::signbit(value), (bits & 0x8000u) != 0u) << i;
      ASSERT_EQ(E(value).bits, bits | traits<E>::quiet) << i;  // payload and sign survive, signalling becomes quiet
    }
    if (!is_nan) {
      ASSERT_EQ(static_cast<double>(E::from_bits(bits)), static_cast<double>(value)) << i;
    }
  }
}

template <class E>
void expect_as_eigen(std::uint32_t float_bits) {
  const float x = float_of(float_bits);
  const std::uint16_t bits = E(x).bits;
  const std::uint16_t expected = traits<E>::bits(traits<E>::from_eigen(x));
  if (std::isnan(x)) {
    ASSERT_GT(bits & 0x7fffu, traits<E>::infinity);
    ASSERT_NE(bits & traits<E>::quiet, 0);
    ASSERT_EQ(bits & 0x8000u, (float_bits >> 16) & 0x8000u);
    ASSERT_GT(expected & 0x7fffu, traits<E>::infinity);
    if (traits<E>::eigen_keeps_nan_payload) {
      ASSERT_EQ(bits, expected) << std::hex << float_bits;
    }
  } else {
    ASSERT_EQ(bits, expected) << std::hex << float_bits;
  }
}

TYPED_TEST(dtype, floats_round_as_eigen_rounds_them) {
  // A step that is a large prime: all exponents, all kinds of low bits. TOKENMIX_ALL_FLOATS visits every one.
#if defined(TOKENMIX_ALL_FLOATS)
  constexpr std::uint64_t step = 1;
#elif defined(TOKENMIX_REDUCED_SWEEP)
  constexpr std::uint64_t step = 8191;
#else
  constexpr std::uint64_t step = 509;
#endif
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += step) {
    expect_as_eigen<TypeParam>(static_cast<std::uint32_t>(bits));
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(dtype, ties_and_their_neighbours_round_as_eigen_rounds_them) {
  using E = TypeParam;
  for (std::uint32_t i = 0; i < 0x10000u; ++i) {
    const auto low = static_cast<float>(E::from_bits(static_cast<std::uint16_t>(i)));
    const auto high = static_cast<float>(E::from_bits(static_cast<std::uint16_t>(i + 1u)));
    const float middle = low + (high - low) / 2.f;  // exact: both have at most 11 bits
    for (std::uint32_t near = bits_of(middle) - 2u; near != bits_of(middle) + 3u; ++near) {
      expect_as_eigen<E>(near);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  for (std::uint32_t bits : {0u, 1u, 0x007fffffu, 0x00800000u, 0x7f7fffffu, 0x7f800000u, 0x7f800001u, 0x7fc00000u,
                             0x477fefffu, 0x477ff000u, 0x477fffffu, 0x33000000u, 0x33000001u, 0x387fffffu}) {
    expect_as_eigen<E>(bits);
    expect_as_eigen<E>(bits | 0x80000000u);
  }
}

// Rounded to float first, the values below would become the tie, and the tie would go to the even neighbour.
TYPED_TEST(dtype, doubles_round_once) {
  using E = TypeParam;
  for (std::uint32_t i = 0; i < traits<E>::infinity; ++i) {
    const auto low_bits = static_cast<std::uint16_t>(i);
    const auto high_bits = static_cast<std::uint16_t>(i + 1u);
    const double low = static_cast<double>(E::from_bits(low_bits));
    const double high =
        high_bits == traits<E>::infinity ? traits<E>::above_largest : static_cast<double>(E::from_bits(high_bits));
    const double middle = (low + high) / 2.0;
    const std::uint16_t even = (low_bits & 1u) == 0u ? low_bits : high_bits;
    ASSERT_EQ(E(middle).bits, even) << i;
    ASSERT_EQ(E(std::nextafter(middle, 0.0)).bits, low_bits) << i;
    ASSERT_EQ(E(std::nextafter(middle, 1e300)).bits, high_bits) << i;
    ASSERT_EQ(E(-middle).bits, even | 0x8000u) << i;
    ASSERT_EQ(E(std::nextafter(-middle, 0.0)).bits, low_bits | 0x8000u) << i;
    ASSERT_EQ(E(std::nextafter(-middle, -1e300)).bits, high_bits | 0x8000u) << i;
    ASSERT_EQ(E(low).bits, low_bits) << i;
  }
  for (double x : {1e300, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(E(x).bits, traits<E>::infinity);
    EXPECT_EQ(E(-x).bits, traits<E>::infinity | 0x8000u);
  }
  for (double x : {0.0, 5e-324, 1e-300}) {
    EXPECT_EQ(E(x).bits, 0);
    EXPECT_EQ(E(-x).bits, 0x8000u);
  }
  EXPECT_TRUE(std::isnan(static_cast<float>(E(std::numeric_limits<double>::quiet_NaN()))));
}

TYPED_TEST(dtype, integers_convert_and_nothing_converts_by_itself) {
  using E = TypeParam;
  EXPECT_EQ(static_cast<float>(E(3)), 3.f);
  EXPECT_EQ(static_cast<float>(E(-2L)), -2.f);
  EXPECT_EQ(static_cast<float>(E(1u)), 1.f);
  static_assert(!std::is_convertible_v<float, E> && !std::is_convertible_v<double, E>);
  static_assert(!std::is_convertible_v<E, float> && !std::is_convertible_v<E, double>);
  static_assert(std::is_trivially_default_constructible_v<E> && alignof(E) == 2);
  EXPECT_EQ(E{}.bits, 0);
}

// Memory that another library wrote through its own type: without may_alias a compiler may read before the write.
template <class E, class Other>
__attribute__((noinline)) float read_after_write(E* ours, Other* theirs, Other value) {
  ours->bits = 0;
  *theirs = value;
  return static_cast<float>(*ours);
}

TYPED_TEST(dtype, memory_of_another_type_is_read_in_place) {
  using E = TypeParam;
  using Eigen = typename traits<E>::eigen;
  Eigen memory = Eigen(1.f);
  EXPECT_EQ(read_after_write(reinterpret_cast<E*>(&memory), &memory, Eigen(2.5f)), 2.5f);
  struct word {
    unsigned short value;
  } plain{0};
  EXPECT_EQ(read_after_write(reinterpret_cast<E*>(&plain), &plain, word{E(-3.f).bits}), -3.f);
}

static_assert(mix::bfloat16(1.f).bits == 0x3f80 && mix::float16(1.f).bits == 0x3c00);
static_assert(mix::bfloat16(1.00390625f).bits == 0x3f80 && mix::bfloat16(1.01171875f).bits == 0x3f82);
static_assert(static_cast<float>(mix::float16::from_bits(1)) == 0x1p-24f);
static_assert(static_cast<double>(mix::float16(65504.0)) == 65504.0);

static_assert(std::is_same_v<mix::accumulator_t<float>, float>);
static_assert(std::is_same_v<mix::accumulator_t<const double>, double>);
static_assert(std::is_same_v<mix::accumulator_t<mix::bfloat16>, float>);
static_assert(std::is_same_v<mix::accumulator_t<const mix::float16>, float>);
static_assert(mix::element<float> && mix::element<const mix::bfloat16> && !mix::element<int> && !mix::element<bool>);

}  // namespace
