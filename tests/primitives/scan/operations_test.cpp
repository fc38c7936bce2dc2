// SPDX-License-Identifier: Apache-2.0
// The named operations beside sums and recurrences.
//
// Budget: maxima and minima are exact; log_sum_exp (8 + log2 n) u + 2 u |result|; online_softmax and matrix_decay (8
// + log2 n) u of the magnitudes, plus what exponents of the given size lose.
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

TEST(operations, online_softmax) {
  const index_t T = 300, D = 19;
  auto scores = reference::normal<float>({2, T, 1}, 6, 0.0, 3.0);
  auto values = reference::normal<float>({2, T, D}, 7);
  for (index_t t = 0; t < 5; ++t) {
    scores(0, t, 0) = -infinity;
    values(0, t, 3) = nan;  // of tokens that are not seen
  }
  scores(1, 50, 0) = -infinity;
  values(1, 50, 0) = infinity;
  mix::tensor<float, 3> out({2, T, D}), m({2, T, D}), l({2, T, D}), acc({2, T, D});
  const mix::scored_view tokens{.score = scores, .value = values};
  mix::inclusive_scan(mix::online_softmax<float>{}, tokens, out);
  mix::inclusive_scan(mix::online_softmax<float>{}, tokens,
                      mix::online_softmax_view{.m = m.view(), .l = l.view(), .acc = acc.view()});
  for (index_t b = 0; b < 2; ++b) {
    for (index_t d = 0; d < D; ++d) {
      for (index_t t = 0; t < T; ++t) {
        long double sum = 0, weighted = 0, magnitude = 0;
        for (index_t s = 0; s <= t; ++s) {
          const long double weight = std::exp(number(scores(b, s, 0)));
          if (weight == 0) continue;
          sum += weight;
          weighted += weight * number(values(b, s, d));
          magnitude += weight * std::abs(number(values(b, s, d)));
        }
        const long double expected = sum == 0 ? 0 : weighted / sum;
        const long double gate = unit<float> * (8 + std::log2(static_cast<long double>(t + 1))) *
                                 (sum == 0 ? 0 : magnitude / sum + std::abs(expected));
        ASSERT_LE(std::abs(number(out(b, t, d)) - expected), gate) << b << " " << d << " " << t;
        ASSERT_EQ(out(b, t, d), sum > 0 ? acc(b, t, d) / l(b, t, d) : 0.0f);
      }
    }
  }
  // States merge as tokens do: a scan of the two last states of halves ends with the whole's.
  mix::tensor<float, 3> m2({2, 2, D}), l2({2, 2, D}), acc2({2, 2, D}), merged({2, 2, D});
  for (const index_t first : {0, 150}) {
    const mix::scored_view part{.score = scores.slice(1, first, 150), .value = values.slice(1, first, 150)};
    const mix::online_softmax_view state{
        .m = m2.slice(1, first / 150, 1), .l = l2.slice(1, first / 150, 1), .acc = acc2.slice(1, first / 150, 1)};
    mix::tensor<float, 3> ignored({2, 150, D});
    mix::inclusive_scan(mix::online_softmax<float>{}, part, ignored, mix::scan_options{.final_state = state});
  }
  mix::inclusive_scan(mix::online_softmax<float>{},
                      mix::online_softmax_view{.m = m2.view(), .l = l2.view(), .acc = acc2.view()}, merged);
  for (index_t d = 0; d < D; ++d) EXPECT_NEAR(merged(1, 1, d), out(1, T - 1, d), 1e-6);
}

TEST(operations, matrix_decay) {
  const index_t T = 200, D = 3, Dv = 10;
  for (const double strength : {-1e-6, -0.05, -1.0, -20.0, -200.0}) {
    auto log_decay = reference::uniform<float>({2, T, D, 1}, 8, 2.0 * strength, 0.0);
    auto matrix = reference::normal<float>({2, T, D, Dv}, 9);
    const auto initial = reference::normal<float>({2, 1, D, Dv}, 10);
    log_decay(1, 130, 2, 0) = -infinity;
    matrix(1, 129, 2, 4) = nan;  // forgotten in the next step
    mix::tensor<float, 4> out({2, T, D, Dv});
    mix::inclusive_scan(mix::matrix_decay<float>{}, mix::matrix_decay_view{.log_decay = log_decay, .matrix = matrix},
                        out, mix::scan_options{.axis = 1, .initial = initial.view()});
    for (index_t b = 0; b < 2; ++b) {
      for (index_t i = 0; i < D; ++i) {
        for (index_t j = 0; j < Dv; ++j) {
          long double state = number(initial(b, 0, i, j)), magnitude = std::abs(state);
          for (index_t t = 0; t < T; ++t) {
            const long double g = number(log_decay(b, t, i, 0)), added = number(matrix(b, t, i, j));
            const bool reset = g == number(-infinity);
            state = (reset ? 0 : std::exp(g) * state) + added;
            magnitude = (reset ? 0 : std::exp(g) * (magnitude + std::abs(g) * std::abs(state))) + std::abs(added);
            if (std::isnan(state)) {
              ASSERT_TRUE(std::isnan(out(b, t, i, j)));
              continue;
            }
            const long double gate = unit<float> * (8 + std::log2(static_cast<long double>(t + 1))) * magnitude;
            ASSERT_LE(std::abs(number(out(b, t, i, j)) - state), gate) << strength << " " << b << i << j << " " << t;
          }
        }
      }
    }
  }
}

}  // namespace
