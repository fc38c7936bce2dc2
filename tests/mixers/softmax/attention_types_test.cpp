// SPDX-License-Identifier: Apache-2.0
// Softmax attention in one element type against the oracle, which takes inputs as the exact values that were stored.
//
// Budget: that of float, plus half a unit in the last place of the output's type (times 1.02: float's own error moves the
// result before it is rounded). double has the same gate with its own unit round-off, against an oracle in long double.
// Relative root mean square: 2e-6 float, 4e-15 double, 2e-3 bfloat16, 2.5e-4 float16: rounding of the output alone
// gives 1.7e-3 and 2.1e-4 there.
#include <mixers/softmax/type_cases.hpp>

namespace {

using cases::sweep_types;
using mix::bfloat16;
using mix::float16;

TEST(attention_types, doubles) { sweep_types<double, double, double>(); }
TEST(attention_types, bfloat16_everywhere) { sweep_types<bfloat16, bfloat16, bfloat16>(); }
TEST(attention_types, float16_everywhere) { sweep_types<float16, float16, float16>(); }

// Values at the ends of float16's range: the largest finite, subnormals, and means that round to them.
TEST(attention_types, float16_values_at_the_ends_of_the_range) {
  for (float size : {65504.0f, 6e-8f, 6e-5f}) {
    cases::operands<float16> x({1, 1, 1, 18, 33, 16, 16}, 5);
    cases::random_numbers random(6);
    for (float16& y : x.v) y = float16(size * static_cast<float>(random.uniform(-1, 1)));
    mix::softmax_attention(x.q, x.k, x.v, x.out);
    const auto expected = reference::softmax_attention(problem_of(x));
    expect_within_gate<float16, float16, float16>(x.out, x, expected, "values up to " + std::to_string(size));
  }
}

}  // namespace
