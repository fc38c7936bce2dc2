// SPDX-License-Identifier: Apache-2.0
// Sine and cosine against the library's in a wider type, over the angles that they are made for.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <tokenmix/simd/trigonometric.hpp>

namespace {

namespace simd = tokenmix::simd;
using tokenmix::index_t;

template <class T>
void expect_sines(double bound) {
  constexpr index_t L = simd::lanes<T>;
  const auto u = static_cast<long double>(std::numeric_limits<T>::epsilon() / 2);
  long double worst = 0, worst_turn = 0;
  for (double scale : {1e-3, 1.0, 3.2, 100.0, 1e4}) {
    for (int n = -2000; n <= 2000; ++n) {
      T x[static_cast<std::size_t>(L)], s[static_cast<std::size_t>(L)], c[static_cast<std::size_t>(L)],
          turned[static_cast<std::size_t>(L)];
      for (index_t i = 0; i < L; ++i)
        x[i] = static_cast<T>(scale * (n + static_cast<double>(i) / static_cast<double>(L)) / 2000);
      simd::batch<T> sine, cosine;
      simd::sine_cosine<T>(simd::load(x), sine, cosine);
      simd::store(s, sine);
      simd::store(c, cosine);
      simd::store(turned, simd::in_one_turn<T>(simd::load(x)));
      for (index_t i = 0; i < L; ++i) {
        const long double exact = static_cast<long double>(x[i]);
        worst = std::max({worst, std::abs(static_cast<long double>(s[i]) - std::sin(exact)) / u,
                          std::abs(static_cast<long double>(c[i]) - std::cos(exact)) / u});
        const long double r = std::remainder(exact, 2 * 3.14159265358979323846264338328L);
        if (std::abs(r) < 3.14L)
          worst_turn = std::max(worst_turn, std::abs(static_cast<long double>(turned[i]) - r) / u);
        EXPECT_LE(std::abs(turned[i]),
                  T(3.1416) + std::abs(x[i]) * T(0x1p-23));  // without fma a product is rounded first
      }
    }
  }
  EXPECT_LE(static_cast<double>(worst), bound);
  EXPECT_LE(static_cast<double>(worst_turn), 4.1);
}

TEST(trigonometric, float_lanes) { expect_sines<float>(1.5); }
TEST(trigonometric, double_lanes) { expect_sines<double>(1.5); }

TEST(trigonometric, special) {
  simd::batch<float> sine, cosine;
  for (float x : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    simd::sine_cosine<float>(simd::batch<float>(x), sine, cosine);
    float s[static_cast<std::size_t>(simd::lanes<float>)], c[static_cast<std::size_t>(simd::lanes<float>)];
    simd::store(s, sine);
    simd::store(c, cosine);
    EXPECT_TRUE(std::isnan(s[0]));
    EXPECT_TRUE(std::isnan(c[0]));
  }
  simd::sine_cosine<float>(simd::batch<float>(0.0f), sine, cosine);
  float s[static_cast<std::size_t>(simd::lanes<float>)], c[static_cast<std::size_t>(simd::lanes<float>)];
  simd::store(s, sine);
  simd::store(c, cosine);
  EXPECT_EQ(s[0], 0.0f);
  EXPECT_EQ(c[0], 1.0f);
}

}  // namespace
