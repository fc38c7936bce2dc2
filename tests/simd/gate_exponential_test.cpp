// SPDX-License-Identifier: Apache-2.0
// Exponentials of gates against libm in the next wider type, relative to the result, and at their edges.
//
// Budgets are those of the documentation blocks: 1.9e-7 (double 2.6e-16) for 2^x, and |x| times as much for e^-x in one step;
// 1.7e-7 + 2.8e-9 |x| where x is reduced first (without fma and in double: a unit in the last place); 1.8e-7 (4e-16) for a power
// and for its rest.
#include <gtest/gtest.h>
#include <tokenmix/simd/gate_exponential.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace {

using namespace tokenmix;

template <class T>
struct gate_exponential : testing::Test {
  using wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;
  static constexpr bool is_float = std::is_same_v<T, float>;

  /// The largest of |got - want| / want over its budget, for sizes from 2^-40 to `largest`, below zero and, unless `negative`, above it.
  template <class F, class Reference, class Budget>
  static double worst(double largest, bool negative, F&& f, Reference&& reference, Budget&& budget) {
    constexpr index_t width = simd::lanes<T>;
    std::mt19937_64 random(31);
    double most = 0;
    for (int round = 0; round < 1000000 / static_cast<int>(width); ++round) {
      T x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)];
      for (index_t i = 0; i < width; ++i) {
        const double unit = static_cast<double>(random() >> 11) * 0x1p-53,
                     sign = negative || random() % 2 == 0 ? -1 : 1;
        const double scales[] = {1, 10, largest, std::ldexp(1.0, -static_cast<int>(random() % 40))};
        x[i] = static_cast<T>(sign * unit * scales[round % 4]);
      }
      simd::store(y, f(simd::batch<T>(simd::load(x))));
      for (index_t i = 0; i < width; ++i) {
        const wide exact = reference(static_cast<wide>(x[i]));
        const double error = static_cast<double>(std::abs(static_cast<wide>(y[i]) - exact) / exact);
        if (exact > wide(0)) most = std::max(most, error / budget(std::abs(static_cast<double>(x[i]))));
      }
    }
    return most;
  }
  template <class F>
  static T at(T x, F&& f) {
    T lanes[static_cast<std::size_t>(simd::lanes<T>)];
    simd::store(lanes, f(simd::batch<T>(x)));
    return lanes[0];
  }
};
using both = testing::Types<float, double>;
TYPED_TEST_SUITE(gate_exponential, both);

TYPED_TEST(gate_exponential, errors) {
  using T = TypeParam;
  using fixture = gate_exponential<T>;
  constexpr bool floats = fixture::is_float;
  const double unit = floats ? 1.9e-7 : 2.6e-16, last = floats ? 0x1p-23 : 0x1p-52;
  const double range = floats ? 86 : 706;
  EXPECT_LE(fixture::worst(
                floats ? 125 : 1020, false, [](auto x) { return simd::exp2_either_sign<T>(x); },
                [](auto x) { return std::exp2(x); }, [=](double) { return unit; }),
            1);
  EXPECT_LE(fixture::worst(
                range, false, [](auto x) { return simd::exp_of_minus<T>(x); }, [](auto x) { return std::exp(-x); },
                [=](double x) { return unit * (1 + x); }),
            1);
  EXPECT_LE(
      fixture::worst(
          range, false, [](auto x) { return simd::exp_of_minus_reduced<T>(x); }, [](auto x) { return std::exp(-x); },
          [=](double x) { return floats && simd::detail::has_fma ? 1.7e-7 + 2.8e-9 * x : 1.02 * last; }),
      1);
  const double parts = floats ? 1.8e-7 : 4e-16;
  EXPECT_LE(fixture::worst(
                floats ? 125 : 1020, true, [](auto x) { return simd::exp2_and_rest<T>(x).value; },
                [](auto x) { return std::exp2(x); }, [=](double) { return parts; }),
            1);
  EXPECT_LE(fixture::worst(
                floats ? 125 : 1020, true, [](auto x) { return simd::exp2_and_rest<T>(x).rest; },
                [](auto x) { return -std::expm1(x * std::log(decltype(x)(2))); }, [=](double) { return parts; }),
            1);
}

TYPED_TEST(gate_exponential, edges) {
  using T = TypeParam;
  using fixture = gate_exponential<T>;
  const T infinity = std::numeric_limits<T>::infinity(), greatest = std::numeric_limits<T>::max();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const auto exp2 = [](auto x) { return simd::exp2_either_sign<T>(x); };
  const auto step = [](auto x) { return simd::exp_of_minus<T>(x); };
  const auto reduced = [](auto x) { return simd::exp_of_minus_reduced<T>(x); };
  const auto value = [](auto x) { return simd::exp2_and_rest<T>(x).value; };
  const auto rest = [](auto x) { return simd::exp2_and_rest<T>(x).rest; };
  for (const T zero : {T(0), T(-0.0)}) {
    for (const T one :
         {fixture::at(zero, exp2), fixture::at(zero, step), fixture::at(zero, reduced), fixture::at(zero, value)})
      EXPECT_EQ(one, T(1));
    EXPECT_EQ(fixture::at(zero, rest), T(0));
  }
  for (const T far : {T(2000), T(1e30), greatest, infinity}) {
    for (const T none :
         {fixture::at(-far, exp2), fixture::at(far, step), fixture::at(far, reduced), fixture::at(-far, value)})
      EXPECT_TRUE(none == T(0) && !std::signbit(none)) << far;
    EXPECT_EQ(fixture::at(-far, rest), T(1)) << far;
    for (const T all : {fixture::at(far, exp2), fixture::at(-far, step), fixture::at(-far, reduced)})
      EXPECT_EQ(all, infinity) << far;
  }
  for (const T unknown : {fixture::at(nan, exp2), fixture::at(nan, step), fixture::at(nan, reduced),
                          fixture::at(nan, value), fixture::at(nan, rest), fixture::at(-nan, reduced)})
    EXPECT_TRUE(std::isnan(unknown));
  // Nothing in between leaves the range: just beyond the finite powers, and where results are subnormal.
  const T edge = fixture::is_float ? T(128) : T(1024), ln2 = std::log(T(2));
  for (T x = edge - 2; x < edge + 4; x += T(0.03125)) {
    EXPECT_GE(fixture::at(x, exp2), std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 2));
    EXPECT_GE(fixture::at(-x * ln2, step), std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 3));
    EXPECT_GE(fixture::at(-x * ln2, reduced), std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 3));
    for (const T small :
         {fixture::at(-x, exp2), fixture::at(x * ln2, step), fixture::at(x * ln2, reduced), fixture::at(-x, value)})
      EXPECT_TRUE(small >= T(0) && small <= 2 * std::numeric_limits<T>::min()) << x;
  }
}

TYPED_TEST(gate_exponential, integers_and_their_powers) {
  using T = TypeParam;
  using fixture = gate_exponential<T>;
  const auto nearest = [](auto x) { return simd::nearest_integer<T>(x); };
  for (int i = -70; i <= 70; ++i)
    EXPECT_EQ(fixture::at(T(0.3) * static_cast<T>(i), nearest), std::nearbyint(T(0.3) * static_cast<T>(i)));
  for (const T large : {T(3e9), T(-7e12), T(1e30)}) {
    const T near = fixture::at(large, nearest);
    EXPECT_LE(std::abs(near - large), std::abs(large) * std::numeric_limits<T>::epsilon());
  }
  const auto power = [](auto x) { return simd::power_of_two<T>(x); };
  for (int n = 0; n > std::numeric_limits<T>::min_exponent - 1; --n)
    EXPECT_EQ(fixture::at(static_cast<T>(n), power), std::ldexp(T(1), n));
  for (const T far : {T(-5000), T(-1e30), -std::numeric_limits<T>::infinity()})
    EXPECT_EQ(fixture::at(far, power), T(0));
}

}  // namespace
