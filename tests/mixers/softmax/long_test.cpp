// SPDX-License-Identifier: Apache-2.0
// A few queries over 2^17 keys: the error does not grow with the number of keys.
//
// Budget: (2 + D / 64) u A (1 + S), the same as for a hundred keys, since leaves of 256 keys are merged in a binary tree; a
// single chain of 2^17 additions of one sign would be off by a hundred u.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

constexpr index_t most_keys = cases::reduced_sweep ? 1 << 13 : 1 << 17;

void check(const cases::shape& size, double amplitude, bool positive_values) {
  cases::operands<> x(size, 1, amplitude);
  if (positive_values)
    for (float& v : x.v) v = 1 + std::abs(v);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
  const auto expected = reference::softmax_attention(problem_of(x));
  cases::gate_record record;
  // Values of one sign: the roundings of a leaf's chain of 256 additions stay, 4 standard deviations of 3.7 u.
  const double slack = positive_values ? 2 : 1;
  const std::string label = size.text() + " amplitude " + std::to_string(amplitude);
  expect_within_gate<float, float, float>(x.out, x, expected, label, slack, &record);
  expect_lse_within_gate(x, expected, label);
  std::printf("%s: worst error %.3f of its gate\n", label.c_str(), record.worst);
}

TEST(long_softmax, error_does_not_grow_with_the_number_of_keys) {
  for (double amplitude : {0.25, 4.0}) {
    check({1, 2, 1, 1, most_keys, 64, 64}, amplitude, false);
    check({1, 1, 1, 17, most_keys, 64, 16}, amplitude, false);
  }
}

TEST(long_softmax, values_of_one_sign) {
  check({1, 1, 1, 1, most_keys, 64, 16}, 1, true);
  check({1, 1, 1, 17, most_keys, 64, 16}, 1, true);
}

// Flat scores and one value everywhere: equal addends are all rounded the same way, up to u / 2 of the partial sum each, so a
// leaf of 256 may be off by 128 u; a chain of all 2^17 would be off by a thousand times that.
TEST(long_softmax, equal_values) {
  for (index_t t : {1, 17}) {
    cases::operands<> x({1, 1, 1, t, most_keys, 8, 4}, 2, 0);
    for (float& v : x.v) v = 0.7f;
    mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
    for (float y : x.out) EXPECT_NEAR(y, 0.7f, 0.7 * 128 * 0x1p-24);
    for (float y : x.lse) EXPECT_NEAR(y, std::log(static_cast<double>(most_keys)), 4 * 0x1p-24 * 12);
  }
}

}  // namespace
