// SPDX-License-Identifier: Apache-2.0
// Elementary functions against libm in the next wider type, in units of the last place of the result, and at their edges.
//
// Floats: every 256th bit pattern and its neighbourhood of lanes, all 2^32 with TOKENMIX_EXHAUSTIVE set. The bounds are those of
// the documentation blocks; the reference's own error (below 1e-8 ULP for floats, 0.001 for doubles) is inside them.

#include <gtest/gtest.h>
#include <tokenmix/simd/math.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

namespace {

using namespace tokenmix;

#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif

// Above any bound: what one gets for a NaN, an infinity or a sign that should not be there.
constexpr double wrong = 1e9;

template <class T, class Wide>
double ulps(T got, Wide expected, bool flushes) {
  if (std::isnan(expected)) return std::isnan(got) ? 0 : wrong;
  const T rounded = static_cast<T>(expected);
  if (std::isnan(got) || std::isinf(rounded) || std::isinf(got)) return got == rounded ? 0 : wrong;
  if (expected == 0) return got == 0 ? 0 : wrong;
  constexpr T least = std::numeric_limits<T>::min();
  if (std::abs(expected) < static_cast<Wide>(least)) {
    if (flushes) return got == 0 && !std::signbit(got) ? 0 : wrong;
    if (got == 0) return 0;  // subnormal results may be flushed elsewhere
  }
  int exponent = 0;
  std::frexp(std::abs(expected) < static_cast<Wide>(least) ? static_cast<Wide>(least) : expected, &exponent);
  const Wide unit = std::ldexp(Wide(1), exponent - std::numeric_limits<T>::digits);
  return static_cast<double>(std::abs(static_cast<Wide>(got) - expected) / unit);
}

template <class F, class Reference>
void check_floats(const char* name, double bound, bool flushes, F&& f, Reference&& reference) {
  constexpr index_t width = simd::lanes<float>;
  const bool all = std::getenv("TOKENMIX_EXHAUSTIVE") != nullptr;
  const std::uint64_t step = all ? 1 : 257;  // odd: meets every residue of the last bits
  double worst = 0;
  float worst_at = 0;
  for (std::uint64_t pattern = 0; pattern < 0x100000000u;) {
    float x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i, pattern += step)
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(pattern));
    simd::store(y, f(simd::load(x)));
    for (index_t i = 0; i < width; ++i) {
      const double error = ulps(y[i], reference(static_cast<double>(x[i])), flushes);
      if (error > worst) {
        worst = error;
        worst_at = x[i];
      }
    }
  }
  testing::Test::RecordProperty(std::string(name) + "_float_ulps", std::to_string(worst));
  EXPECT_LE(worst, bound) << name << " at " << std::hexfloat << worst_at;
}

template <class F, class Reference>
void check_doubles(const char* name, double bound, bool flushes, F&& f, Reference&& reference) {
  constexpr index_t width = simd::lanes<double>;
  std::mt19937_64 random(2718);
  double worst = 0;
  double worst_at = 0;
  for (int round = 0; round < 20000; ++round) {
    double x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i) {
      const std::uint64_t word = random();
      const double unit = static_cast<double>(static_cast<std::int64_t>(word)) * 0x1p-63;
      const double scales[] = {1, 3, 30, 760, std::ldexp(1.0, -static_cast<int>(word % 70))};
      x[i] = round % 6 == 5 ? std::bit_cast<double>(word) : unit * scales[round % 6];
    }
    simd::store(y, f(simd::load(x)));
    for (index_t i = 0; i < width; ++i) {
      const double error = ulps(y[i], reference(static_cast<long double>(x[i])), flushes);
      if (error > worst) {
        worst = error;
        worst_at = x[i];
      }
    }
  }
  testing::Test::RecordProperty(std::string(name) + "_double_ulps", std::to_string(worst));
  EXPECT_LE(worst, bound) << name << " at " << std::hexfloat << worst_at;
}

// One function over both types; without fma the sums of double round twice and have a wider bound.
#define TOKENMIX_CHECK(function, flushes, float_bound, double_bound, double_bound_without_fma, reference) \
  TEST(math, function) {                                                                                  \
    const auto of = [](auto x) { return simd::function(x); };                                             \
    const auto exact = [](auto x) { return reference; };                                                  \
    check_floats(#function, float_bound, flushes, of, exact);                                             \
    check_doubles(#function, has_fma ? double_bound : double_bound_without_fma, flushes, of, exact);      \
  }

template <class X>
X reference_sigmoid(X x) {
  return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}
template <class X>
X reference_softplus(X x) {
  return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
}

TOKENMIX_CHECK(exp, true, 0.96, 1.0, 1.0, std::exp(x))
TOKENMIX_CHECK(exp2, true, 1.0, 1.1, 1.4, std::exp2(x))
TOKENMIX_CHECK(expm1, false, 0.53, 1.1, 1.1, std::expm1(x))
TOKENMIX_CHECK(log, false, 0.53, 0.8, 0.9, std::log(x))
TOKENMIX_CHECK(log1p, false, 0.53, 0.8, 0.9, std::log1p(x))
TOKENMIX_CHECK(sigmoid, false, 0.53, 1.5, 2.1, reference_sigmoid(x))
TOKENMIX_CHECK(softplus, false, 0.53, 1.7, 1.8, reference_softplus(x))
TOKENMIX_CHECK(tanh, false, 0.53, 1.5, 2.1, std::tanh(x))
TOKENMIX_CHECK(erf, false, 0.53, 1.1, 1.3, std::erf(x))
TOKENMIX_CHECK(rsqrt, false, has_fma ? 0.53 : 1.0, 0.53, 1.0, 1 / std::sqrt(x))

template <class T>
class edges : public testing::Test {};
using computing_types = testing::Types<float, double>;
TYPED_TEST_SUITE(edges, computing_types);

template <class T, class F>
T at(T x, F&& f) {
  T y[static_cast<std::size_t>(simd::lanes<T>)];
  simd::store(y, f(simd::batch<T>(x)));
  for (index_t i = 1; i < simd::lanes<T>; ++i) {
    EXPECT_TRUE(y[i] == y[0] || (std::isnan(y[i]) && std::isnan(y[0]))) << "lane " << i;
  }
  return y[0];
}

TYPED_TEST(edges, exponentials) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const auto exp = [](auto x) { return simd::exp(x); };
  const auto exp2 = [](auto x) { return simd::exp2(x); };
  const auto cheap = [](auto x) { return simd::exp_nonpositive(x); };
  for (T zero : {T(0), T(-0.0)}) {
    EXPECT_EQ(at(zero, exp), T(1));
    EXPECT_EQ(at(zero, exp2), T(1));
    EXPECT_EQ(at(zero, cheap), T(1));
    EXPECT_EQ(std::signbit(at(zero, [](auto x) { return simd::expm1(x); })), std::signbit(zero));
    EXPECT_EQ(std::signbit(at(zero, [](auto x) { return simd::log1p(x); })), std::signbit(zero));
    EXPECT_EQ(std::signbit(at(zero, [](auto x) { return simd::tanh(x); })), std::signbit(zero));
    EXPECT_EQ(std::signbit(at(zero, [](auto x) { return simd::erf(x); })), std::signbit(zero));
  }
  EXPECT_EQ(at(infinity, exp), infinity);
  EXPECT_EQ(at(infinity, exp2), infinity);
  const T below[] = {std::nextafter(std::log(std::numeric_limits<T>::min()), -infinity) - T(1e-3), T(-1e4),
                     std::numeric_limits<T>::lowest(), -infinity};
  for (T x : below) {
    for (T zero : {at(x, exp), at(x, cheap), at(2 * x, exp2)}) {
      EXPECT_EQ(zero, T(0)) << x;
      EXPECT_FALSE(std::signbit(zero)) << x;
    }
  }
  const index_t exponents = std::numeric_limits<T>::max_exponent;
  for (index_t n = 2 - exponents; n < exponents; ++n) {
    EXPECT_EQ(at(static_cast<T>(n), exp2), std::ldexp(T(1), static_cast<int>(n)));
  }
  // Every payload: a sum of exponent bits must not turn a NaN into a number.
  for (int bit = 0; bit < std::numeric_limits<T>::digits - 1; ++bit) {
    using I = simd::integer_of<T>;
    for (T payload : {std::bit_cast<T>(std::bit_cast<I>(nan) | (I(1) << bit)),
                      std::bit_cast<T>(std::bit_cast<I>(-nan) | (I(1) << bit))}) {
      EXPECT_TRUE(std::isnan(at(payload, exp)));
      EXPECT_TRUE(std::isnan(at(payload, exp2)));
      EXPECT_TRUE(std::isnan(at(payload, cheap)));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::expm1(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::log(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::log1p(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::sigmoid(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::softplus(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::tanh(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::erf(x); })));
      EXPECT_TRUE(std::isnan(at(payload, [](auto x) { return simd::rsqrt(x); })));
    }
  }
}

// The weights of a softmax: absolute error, never above 1, exactly +0 below the normal numbers, one value per number.
TYPED_TEST(edges, exponential_of_softmax) {
  using T = TypeParam;
  constexpr index_t width = simd::lanes<T>;
  constexpr bool is_float = sizeof(T) == 4;
  const double absolute = is_float ? 1.6e-7 : 2.6e-16;
  const double relative = is_float ? 1.6e-7 : 2.6e-16;
  const double normal = std::log(static_cast<double>(std::numeric_limits<T>::min()));
  std::mt19937_64 random(31);
  double worst_absolute = 0, worst_relative = 0;
  for (int round = 0; round < (is_float ? 2000000 : 500000) / static_cast<int>(width); ++round) {
    T x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i) {
      const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
      const double scales[] = {1, 10, -1.1 * normal, std::ldexp(1.0, -static_cast<int>(random() % 40))};
      x[i] = static_cast<T>(-unit * scales[round % 4]);
    }
    simd::store(y, simd::exp_nonpositive(simd::load(x)));
    for (index_t i = 0; i < width; ++i) {
      using Wide = std::conditional_t<is_float, double, long double>;
      const Wide exact = std::exp(static_cast<Wide>(x[i]));
      const double error = static_cast<double>(std::abs(static_cast<Wide>(y[i]) - exact));
      worst_absolute = std::max(worst_absolute, error);
      ASSERT_LE(y[i], T(1)) << x[i];
      if (static_cast<double>(x[i]) < normal) {
        ASSERT_EQ(std::bit_cast<simd::integer_of<T>>(y[i]), 0) << x[i];
      } else if (static_cast<double>(x[i]) > normal + 0.7) {
        worst_relative =
            std::max(worst_relative, error / static_cast<double>(exact) / (1 + std::abs(static_cast<double>(x[i]))));
      }
    }
  }
  EXPECT_LE(worst_absolute, absolute);
  EXPECT_LE(worst_relative, relative);
  this->RecordProperty("absolute", std::to_string(worst_absolute * 1e9));
}

// The decays of a scan: relative error, 1 at 0 and never above, exactly +0 below the normal numbers; and that times a state.
TYPED_TEST(edges, exponential_of_decays) {
  using T = TypeParam;
  using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
  constexpr index_t width = simd::lanes<T>;
#if defined(__AVX512F__)
  constexpr double bound = sizeof(T) == 4 ? 1.65e-7 : 2.6e-16, bound_of_slow = sizeof(T) == 4 ? 1.2e-7 : bound;
#else
  constexpr double bound = sizeof(T) == 8 ? 2.6e-16 : has_fma ? 1.6e-7 : 1.8e-7, bound_of_slow = bound;
#endif
  const T infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  constexpr auto normal = static_cast<T>(std::numeric_limits<T>::min_exponent - 1);
  const auto power = [](auto x) { return simd::exp2_nonpositive(x); };
  std::mt19937_64 random(32);
  double worst = 0, worst_of_slow = 0;
  for (int round = 0; round < (sizeof(T) == 4 ? 4000000 : 500000) / static_cast<int>(width); ++round) {
    T x[static_cast<std::size_t>(width)], y[static_cast<std::size_t>(width)], z[static_cast<std::size_t>(width)];
    for (index_t i = 0; i < width; ++i) {
      const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
      const double scales[] = {1, 10, -1.1 * static_cast<double>(normal),
                               std::ldexp(1.0, -static_cast<int>(random() % 40))};
      x[i] = static_cast<T>(-unit * scales[round % 4]);
    }
    const simd::batch<T> h(T(1.75)), add(T(-0.625));
    simd::store(y, simd::exp2_nonpositive(simd::load(x)));
    simd::store(z, simd::decayed(simd::load(x), h, add));
    for (index_t i = 0; i < width; ++i) {
      const Wide exact = std::exp2(static_cast<Wide>(x[i]));
      const double error = static_cast<double>(std::abs(static_cast<Wide>(y[i]) - exact) / exact);
      ASSERT_LE(y[i], T(1)) << x[i];
      if (x[i] < normal) {
        ASSERT_EQ(std::bit_cast<simd::integer_of<T>>(y[i]), 0) << x[i];
      } else if (x[i] > normal + T(0.5)) {
        worst = std::max(worst, error);
        if (x[i] > T(-1) / 64) worst_of_slow = std::max(worst_of_slow, error);
      }
      T once[static_cast<std::size_t>(width)];
      simd::store(once, simd::fma(simd::batch<T>(y[i]), h, add));
      ASSERT_EQ(z[i], once[0]) << x[i];
    }
  }
  EXPECT_LE(worst, bound);
  EXPECT_LE(worst_of_slow, bound_of_slow);
  EXPECT_GT(worst, bound / 3);
  this->RecordProperty("relative", std::to_string(worst * (sizeof(T) == 4 ? 1e9 : 1e18)));

  for (T zero : {T(0), T(-0.0)}) EXPECT_EQ(at(zero, power), T(1));
  for (T n = -1; n > normal; n -= 1) EXPECT_EQ(at(n, power), std::ldexp(T(1), static_cast<int>(n)));
  for (T x : {std::nextafter(normal, -infinity), normal - 1, normal - 24, T(-1e4), T(-1e9),
              std::numeric_limits<T>::lowest(), -infinity}) {
    EXPECT_EQ(std::bit_cast<simd::integer_of<T>>(at(x, power)), 0) << x;
    for (T h : {T(1), infinity, nan}) {
      const auto state = [&](auto e) { return simd::decayed(e, simd::batch<T>(h), simd::batch<T>(T(3))); };
      EXPECT_EQ(at(x, state), T(3)) << x << ' ' << h;
    }
  }
  EXPECT_TRUE(std::isnan(at(nan, power)));
  const auto of_nan = [](auto x) { return simd::decayed(x, simd::batch<T>(T(1)), simd::batch<T>(T(3))); };
  EXPECT_TRUE(std::isnan(at(nan, of_nan)));
}

TYPED_TEST(edges, logarithms_and_saturation) {
  using T = TypeParam;
  const T infinity = std::numeric_limits<T>::infinity();
  const auto log = [](auto x) { return simd::log(x); };
  const auto log1p = [](auto x) { return simd::log1p(x); };
  EXPECT_EQ(at(T(0), log), -infinity);
  EXPECT_EQ(at(T(-0.0), log), -infinity);
  EXPECT_EQ(at(infinity, log), infinity);
  EXPECT_TRUE(std::isnan(at(T(-1), log)));
  EXPECT_TRUE(std::isnan(at(-infinity, log)));
  EXPECT_EQ(at(T(1), log), T(0));
  EXPECT_EQ(at(T(-1), log1p), -infinity);
  EXPECT_EQ(at(infinity, log1p), infinity);
  EXPECT_TRUE(std::isnan(at(T(-1.5), log1p)));
  EXPECT_EQ(at(infinity, [](auto x) { return simd::sigmoid(x); }), T(1));
  EXPECT_EQ(at(-infinity, [](auto x) { return simd::sigmoid(x); }), T(0));
  EXPECT_EQ(at(T(0), [](auto x) { return simd::sigmoid(x); }), T(0.5));
  EXPECT_EQ(at(infinity, [](auto x) { return simd::softplus(x); }), infinity);
  EXPECT_EQ(at(-infinity, [](auto x) { return simd::softplus(x); }), T(0));
  EXPECT_EQ(at(infinity, [](auto x) { return simd::tanh(x); }), T(1));
  EXPECT_EQ(at(-infinity, [](auto x) { return simd::tanh(x); }), T(-1));
  EXPECT_EQ(at(infinity, [](auto x) { return simd::erf(x); }), T(1));
  EXPECT_EQ(at(-infinity, [](auto x) { return simd::erf(x); }), T(-1));
  EXPECT_EQ(at(infinity, [](auto x) { return simd::expm1(x); }), infinity);
  EXPECT_EQ(at(-infinity, [](auto x) { return simd::expm1(x); }), T(-1));
  EXPECT_EQ(at(T(0), [](auto x) { return simd::rsqrt(x); }), infinity);
  EXPECT_EQ(at(infinity, [](auto x) { return simd::rsqrt(x); }), T(0));
  EXPECT_TRUE(std::isnan(at(T(-1), [](auto x) { return simd::rsqrt(x); })));
  EXPECT_EQ(at(T(0.25), [](auto x) { return simd::rsqrt(x); }), T(2));
}

}  // namespace
