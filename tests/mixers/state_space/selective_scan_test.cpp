// SPDX-License-Identifier: Apache-2.0
// The selective scan against its recurrence, over shapes, rates and types.
//
// Budget: 8 u A + 8 u A1: products and sums of a token, and per distance an exponential, its exponent and a product.
#include <mixers/state_space/selective_cases.hpp>

namespace {

using cases::index_t;

TEST(selective_scan, sizes) {
  cases::gate_record worst;
  std::uint64_t seed = 0;
  for (const index_t tokens : {0, 1, 63, 65}) {
    for (const index_t channels : {1, 16, 19, 300}) {
      for (const index_t states : {0, 1, 5, 16, 22}) {
        if (cases::reduced_sweep && states == 5) continue;
        for (const bool full : {false, true}) {
          const index_t groups = channels == 300 ? 3 : 1;
          cases::selective_operands<float, float>({2, tokens, channels, groups, states}, ++seed, 1, full)
              .expect_oracle(mix::order::forward, &worst);
        }
      }
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(selective_scan, reversed_and_constant) {
  for (const bool constant : {false, true}) {
    cases::selective_operands<float, float> o({2, 70, 21, 3, 17}, 5);
    o.constant = constant;
    o.expect_oracle(mix::order::reverse);
    o.expect_oracle();
  }
}

TEST(selective_scan, rates_of_any_size) {
  for (const double rates : {1e-6, 1e-3, 30.0, 1e4}) {
    cases::selective_operands<float, float>({1, 500, 19, 1, 16}, 7, rates).expect_oracle();
    cases::selective_operands<float, float>({1, 500, 19, 1, 16}, 7, rates, false).expect_oracle();
  }
}

TEST(selective_scan, double_and_storage_types) {
  cases::selective_operands<double, double>({1, 67, 19, 1, 9}, 1).expect_oracle();
  cases::selective_operands<mix::bfloat16, float>({1, 67, 19, 1, 17}, 2).expect_oracle();
}

}  // namespace
