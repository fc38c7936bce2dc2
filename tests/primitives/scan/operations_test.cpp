// SPDX-License-Identifier: Apache-2.0
// Maxima, minima and logarithms of sums of exponentials.
//
// Budget: maxima and minima are exact; log_sum_exp (8 + log2 n) u + 2 u |result|.
#include <primitives/scan/scan_cases.hpp>

#include <algorithm>

namespace {

using namespace cases;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

TEST(operations, maxima_and_minima) {
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    const mix::extents<2> shape = axis == 0 ? mix::extents<2>{300, 21} : mix::extents<2>{21, 300};
    auto x = reference::normal<float>(shape, 3);
    x.data()[40] = -infinity;
    x.data()[1000] = nan;
    const index_t line = axis == 0 ? 1000 % 21 : 1000 / 300;
    const index_t from = axis == 0 ? 1000 / 21 : 1000 % 300;
    mix::tensor<float, 2> largest(shape), smallest(shape);
    const mix::scan_options options{.axis = static_cast<index_t>(axis)};
    mix::inclusive_scan(mix::maximum<float>{}, x, largest, options);
    mix::exclusive_scan(mix::minimum<float>{}, x, smallest, options);
    for (index_t i = 0; i < 21; ++i) {
      float high = -infinity, low = infinity;
      for (index_t t = 0; t < 300; ++t) {
        const auto at = [&](const mix::tensor<float, 2>& y) { return axis == 0 ? y(t, i) : y(i, t); };
        if (i == line && t > from) {
          ASSERT_TRUE(std::isnan(at(smallest)));
        } else {
          ASSERT_EQ(at(smallest), low);
        }
        high = std::max(high, at(x));
        low = std::min(low, at(x));
        if (i == line && t >= from) {
          ASSERT_TRUE(std::isnan(at(largest)));
        } else {
          ASSERT_EQ(at(largest), high);
        }
      }
    }
  }
}

TEST(operations, log_sum_exp) {
  for (const double spread : {1.0, 30.0, 3000.0}) {
    auto x = reference::normal<float>({17, 700}, 5, 2.0, spread);
    for (index_t t = 0; t < 10; ++t) x(3, t) = -infinity;
    x(4, 600) = infinity;
    x(5, 600) = nan;
    mix::tensor<float, 2> out({17, 700});
    mix::inclusive_scan(mix::log_sum_exp<float>{}, x, out, mix::scan_options{.axis = 1});
    for (index_t i = 0; i < 17; ++i) {
      long double m = number(-infinity), l = 0;
      for (index_t t = 0; t < 700; ++t) {
        const long double v = number(x(i, t));
        if ((i == 4 || i == 5) && t >= 600) {
          ASSERT_TRUE(i == 4 ? out(i, t) == infinity : std::isnan(out(i, t)));
          continue;
        }
        if (v > m) {
          l = (m > number(-infinity) ? l * std::exp(m - v) : 0) + 1;
          m = v;
        } else if (v > number(-infinity)) {
          l += std::exp(v - m);
        }
        if (l == 0) {
          ASSERT_EQ(out(i, t), -infinity);
          continue;
        }
        const long double expected = m + std::log(l);
        const long double gate =
            unit<float> * (8 + std::log2(static_cast<long double>(t + 1)) + 2 * std::abs(expected));
        ASSERT_LE(std::abs(number(out(i, t)) - expected), gate) << spread << " " << i << " " << t;
      }
    }
  }
}

}  // namespace
