// SPDX-License-Identifier: Apache-2.0
// Matrices that decay by exp(g), from weak to strong decays, with resets.
//
// Budget: (8 + log2 n) u of the magnitudes, which grow by |g| with every exponential.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

TEST(matrix_decay, states_and_resets) {
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
