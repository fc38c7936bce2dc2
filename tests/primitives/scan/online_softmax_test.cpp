// SPDX-License-Identifier: Apache-2.0
// Softmax-weighted means of all tokens so far: unseen tokens, states, merged states.
//
// Budget: (8 + log2 n) u of the magnitudes.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

constexpr float infinity = std::numeric_limits<float>::infinity();
const float nan = std::numeric_limits<float>::quiet_NaN();

TEST(online_softmax, means_and_states) {
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

}  // namespace
