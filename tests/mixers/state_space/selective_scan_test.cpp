// SPDX-License-Identifier: Apache-2.0
// The selective scan against its recurrence, over shapes, rates and types.
//
// Budget: 8 u A + 2 u A1: products and sums of a token, and per distance an exponential, its exponent and a product.
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

// Memories of a million tokens beside ones that end at once: the same budget, and the same scratch memory as for a thousand.
TEST(selective_scan, a_million_tokens) {
  const index_t tokens = cases::reduced_sweep ? 1 << 16 : 1 << 20;
  mix::scratch& scratch = mix::scratch::of_this_thread();
  scratch.release();
  cases::selective_operands<float, float>({1, 1000, 3, 1, 2}, 11).result();
  const std::size_t few = scratch.capacity();
  cases::selective_operands<float, float> o({1, tokens, 3, 1, 2}, 12, 1e-3);
  o.A(0, 0) = -1e-6f;
  o.A(2, 1) = -1e4f;
  o.expect_oracle();
  EXPECT_EQ(scratch.capacity(), few);
}

TEST(selective_scan, a_million_tokens_without_input_never_enlarge_a_state) {
  const index_t piece = 1 << 16, pieces = cases::reduced_sweep ? 2 : 16;
  cases::selective_operands<float, float> o({1, piece, 16, 1, 4}, 13, 1e-6, false);
  for (float& e : o.x) e = 0;
  for (float& e : o.delta) e = std::min(e, 1.0f);
  o.A(3, 1) = 0;
  o.A(5, 2) = -1e4f;
  const float kept = o.initial(0, 3, 1);
  for (index_t i = 0; i < pieces; ++i) {
    o.result();
    for (index_t n = 0; n < o.final.size(); ++n)
      ASSERT_LE(std::abs(o.final.data()[n]), std::abs(o.initial.data()[n])) << i << ' ' << n;
    o.initial = o.final;
  }
  EXPECT_EQ(o.final(0, 3, 1), kept);
  EXPECT_EQ(o.final(0, 5, 2), 0);
}

}  // namespace
