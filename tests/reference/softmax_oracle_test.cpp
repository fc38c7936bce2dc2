// SPDX-License-Identifier: Apache-2.0
// The oracle against a second one that was written independently, and against cases that can be computed by hand.
//
// Budget: 1e-13 relative to A: two orders of summation in double over a few hundred terms. A NaN in an oracle is a failure.
#include <gtest/gtest-spi.h>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

TEST(softmax_oracle, two_forms_agree) {
  cases::random_numbers random(1);
  for (int n = 0; n < 200; ++n) {
    cases::shape size;
    size.batch = random.integer(1, 3);
    size.kv_heads = random.integer(1, 3);
    size.heads = size.kv_heads * random.integer(1, 3);
    size.queries = random.integer(0, 12);
    size.keys = random.integer(0, 60);
    size.width = random.integer(1, 20);
    size.value_width = random.integer(1, 6);
    auto p = problem_of(
        cases::operands<>(size, static_cast<std::uint64_t>(n), random.one_of(std::vector<double>{0.1, 1, 10})));
    const index_t modulus = random.integer(1, 5);
    if (n % 2 == 0) p.mask = [=](const mix::index& w) { return w.key <= w.query && (w.key + w.head) % modulus == 0; };
    if (n % 3 == 0)
      p.score = [](double s, const mix::index& w) { return s - 0.1 * static_cast<double>(w.query - w.key); };
    if (n % 5 == 0)
      for (index_t h = 0; h < size.heads; ++h) p.sinks.push_back(random.gaussian());
    if (n % 7 == 0) p.weights = reference::weighting::softmax_off_by_one;
    if (n % 4 == 1) {
      p.extra = random.integer(1, 5);
      p.extra_batch = n % 8 == 1 ? 1 : size.batch;
      p.extra_k.resize(static_cast<std::size_t>(p.extra_batch * p.kv_heads * p.extra * p.width));
      p.extra_v.resize(static_cast<std::size_t>(p.extra_batch * p.kv_heads * p.extra * p.value_width));
      for (double& x : p.extra_k) x = random.gaussian();
      for (double& x : p.extra_v) x = random.gaussian();
    }
    if (n % 6 == 2) {
      for (index_t b = 0; b < size.batch; ++b)
        p.sequences.push_back({b, b, 0, random.integer(0, size.queries), 0, random.integer(0, size.keys)});
    }
    const auto first = reference::softmax_attention(p);
    std::vector<double> out, lse;
    reference::online_softmax_attention(p, out, lse);
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_TRUE(std::isfinite(first.out[i]));
      ASSERT_NEAR(first.out[i], out[i], 1e-13 * (first.magnitude[i] + 1e-300)) << size.text() << " case " << n;
    }
    for (std::size_t i = 0; i < lse.size(); ++i) {
      if (std::isinf(lse[i])) {
        ASSERT_EQ(first.lse[i], lse[i]);
      } else {
        ASSERT_NEAR(first.lse[i], lse[i], 1e-12 * (1 + std::abs(lse[i])));
      }
    }
  }
}

// Two keys with logits 0 and ln 3 have weights 1/4 and 3/4.
TEST(softmax_oracle, weights_of_two_keys) {
  reference::softmax_problem<double> p;
  p.batch = p.heads = p.kv_heads = p.queries = p.width = p.value_width = 1;
  p.keys = 2;
  p.q = {1};
  p.k = {0, std::log(3.0)};
  p.v = {8, 16};
  const auto answer = reference::softmax_attention(p, true);
  EXPECT_NEAR(answer.out[0], 14, 1e-14);
  EXPECT_NEAR(answer.lse[0], std::log(4.0), 1e-15);
  EXPECT_NEAR(answer.weights[0], 0.25, 1e-15);
  EXPECT_NEAR(answer.logit_mass[0], 0.75 * std::log(3.0), 1e-15);
  p.sinks = {std::log(4.0)};  // takes half
  EXPECT_NEAR(reference::softmax_attention(p).out[0], 7, 1e-14);
  p.sinks.clear();
  p.weights = reference::weighting::softmax_off_by_one;  // 1 + 1 + 3
  EXPECT_NEAR(reference::softmax_attention(p).out[0], (8 + 3 * 16) / 5.0, 1e-14);
  p.weights = reference::weighting::sigmoid;
  EXPECT_NEAR(reference::softmax_attention(p).out[0], 8 * 0.5 + 16 * 0.75, 1e-14);
  p.weights = reference::weighting::relu_squared;
  p.parameter = 0.5;
  EXPECT_NEAR(reference::softmax_attention(p).out[0], 16 * 0.5 * std::log(3.0) * std::log(3.0), 1e-14);
  p.weights = reference::weighting::laplace;
  p.parameter = std::log(3.0), p.deviation = 2;
  EXPECT_NEAR(reference::softmax_attention(p).out[0],
              8 * 0.5 * (1 + std::erf(-std::log(3.0) / (2 * std::sqrt(2.0)))) + 16 * 0.5, 1e-14);
  p.weights = reference::weighting::score;
  EXPECT_NEAR(reference::softmax_attention(p).out[0], 16 * std::log(3.0), 1e-14);
}

TEST(softmax_oracle, positions_are_aligned_to_the_end) {
  reference::softmax_problem<double> p;
  p.batch = p.heads = p.kv_heads = p.width = p.value_width = 1;
  p.queries = 2;
  p.keys = 4;
  p.q = {0, 0};
  p.k = {0, 0, 0, 0};
  p.v = {1, 10, 100, 1000};
  p.mask = [](const mix::index& w) { return w.key == w.query; };
  EXPECT_EQ(reference::softmax_attention(p).out, (std::vector<double>{100, 1000}));
  p.extra = 1;
  p.extra_k = {0};
  p.extra_v = {7};
  p.mask = [](const mix::index& w) { return w.key == 0 && w.keys == 5 && w.query == 3 + w.query_row(); };
  EXPECT_EQ(reference::softmax_attention(p).out, (std::vector<double>{7, 7}));
}

// The gates themselves: one that nothing can violate, or that rejects the truth, is no test.
TEST(softmax_oracle, gates_reject_small_mistakes_and_accept_rounding) {
  cases::operands<> x({1, 1, 1, 4, 50, 64, 8}, 3);
  const auto expected = reference::softmax_attention(problem_of(x));
  for (index_t i = 0; i < x.out.size(); ++i)
    x.out.data()[i] = static_cast<float>(expected.out[static_cast<std::size_t>(i)]);
  expect_within_gate<float, float, float>(x.out, x, expected, "rounded truth");
  cases::gate_record record;
  for (index_t i = 0; i < x.out.size(); ++i) x.out.data()[i] += 5e-6f;
  testing::TestPartResultArray failures;
  {
    const testing::ScopedFakeTestPartResultReporter catcher(
        testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    expect_within_gate<float, float, float>(x.out, x, expected, "5e-6 off", 1, &record);
  }
  EXPECT_GT(failures.size(), 0);
  EXPECT_GT(record.worst, 1);
}

TEST(softmax_oracle, ulps_of_storage_types) {
  EXPECT_EQ(reference::element_ulp<float>(1.0), 0x1p-23);
  EXPECT_EQ(reference::element_ulp<mix::bfloat16>(1.5), 0x1p-7);
  EXPECT_EQ(reference::element_ulp<mix::float16>(-2.0), 0x1p-9);
  EXPECT_EQ(reference::element_ulp<mix::float16>(1e-7), 0x1p-24);
  EXPECT_EQ(reference::element_ulp<double>(1.0), 0x1p-52);
}

}  // namespace
