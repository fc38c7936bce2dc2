// SPDX-License-Identifier: Apache-2.0
// Softmax attention with queries, keys and output of different types against the oracle, which takes inputs as the exact values that were stored.
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

TEST(attention_mixed_types, float_queries_over_bfloat16_keys) { sweep_types<float, bfloat16, float>(); }
TEST(attention_mixed_types, bfloat16_queries_over_float16_keys_to_float) { sweep_types<bfloat16, float16, float>(); }
TEST(attention_mixed_types, float16_queries_over_float_keys_to_bfloat16) { sweep_types<float16, float, bfloat16>(); }

}  // namespace
