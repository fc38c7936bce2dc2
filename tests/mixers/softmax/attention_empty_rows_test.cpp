// SPDX-License-Identifier: Apache-2.0
// Rows that see nothing, leaves that see nothing, and scores far below any number that could stand for "masked".
//
// Budget: exact zeros and exact -inf for rows that see nothing, the float gate elsewhere.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Keys of one logit, with a little variety, in a row that sees all but a run of them.
///
/// Scores are one product, exact but for the jitter, so the gate's S is |logit|, which would hide everything: S is taken
/// as that of the jitter instead.
void run_masked(float logit, index_t first, index_t last, index_t keys, index_t queries) {
  cases::operands<> x({1, 1, 1, queries, keys, 2, 4}, static_cast<std::uint64_t>(first * 7 + last));
  cases::random_numbers random(1);
  for (index_t t = 0; t < queries; ++t) {
    x.q(0, 0, t, 0) = 1;
    x.q(0, 0, t, 1) = 0;
  }
  const float step =
      std::max(1.0f, std::abs(logit)) * 0x1p-23f;  // differences of a few units that exp feels, or does not
  for (index_t s = 0; s < keys; ++s) {
    const bool hidden = s >= first && s < last;
    x.k(0, 0, s, 0) = logit + step * static_cast<float>(random.integer(-2, 2));
    x.k(0, 0, s, 1) = hidden ? 0.0f : 1.0f;
    if (hidden)
      for (index_t i = 0; i < 4; ++i) x.v(0, 0, s, i) = i % 2 == 0 ? 3e38f : -3e38f;
  }
  auto problem = problem_of(x);
  problem.scale = 1;
  problem.mask = [=](const mix::index& w) { return !(w.key >= first && w.key < last); };
  mix::softmax_attention(
      x.q, x.k, x.v, x.out,
      mix::softmax_options{
          .mask = [=](const auto& w) { return !(w.key >= first && w.key < last); }, .scale = 1.0, .lse = x.lse.view()});
  auto expected = reference::softmax_attention(problem);
  for (double& mass : expected.logit_mass) mass = 1;  // the products 1 * k are exact: only differences are rounded
  const std::string label = "logit " + std::to_string(logit) + ", keys " + std::to_string(first) + " to " +
                            std::to_string(last) + " of " + std::to_string(keys) + " masked";
  expect_within_gate<float, float, float>(x.out, x, expected, label, 3);  // 3: a chain of equal signs inside a leaf
  expect_lse_within_gate(x, expected, label);
}

TEST(attention_empty_rows, leaves_fully_masked_beside_very_negative_scores) {
  const index_t n = cases::leaf;
  for (float logit : {-50.0f, -1e4f, -2e4f, -6e4f, -1e31f, -1.7e38f, -3e38f}) {
    for (const index_t keys : std::vector<index_t>{3 * n, 3 * n + 1, 4 * n - 1, 65, 17}) {
      const index_t border = keys > n ? n : keys / 2;
      for (const auto& [first, last] : std::vector<std::array<index_t, 2>>{{0, border},
                                                                           {0, border + 1},
                                                                           {0, border - 1},
                                                                           {border, 2 * border},
                                                                           {border - 1, 2 * border},
                                                                           {border + 1, 2 * border - 1},
                                                                           {2 * border, keys},
                                                                           {2 * border - 1, keys},
                                                                           {1, keys},
                                                                           {0, keys - 1},
                                                                           {0, keys},
                                                                           {0, 0},
                                                                           {16, 32},
                                                                           {64, 128}}) {
        run_masked(logit, std::min(first, keys), std::min(last, keys), keys, 3);
        run_masked(logit, std::min(first, keys), std::min(last, keys), keys, 20);
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// A bias of -inf is how many models write a mask: such a key takes no weight, and a row of them alone is a row of zeros.
TEST(attention_empty_rows, scores_of_minus_infinity) {
  for (index_t t : {6, 20}) {
    cases::operands<> x({1, 2, 2, t, 40, 8, 8}, 3);
    const auto hidden = [](const mix::index& w) { return (w.key + w.query) % 3 == 0 || w.query_row() == 4; };
    mix::softmax_attention(
        x.q, x.k, x.v, x.out,
        mix::softmax_options{.score = [=](float s, const mix::index& w) { return hidden(w) ? -infinity : s; },
                             .lse = x.lse.view()});
    auto problem = problem_of(x);
    problem.mask = [=](const mix::index& w) { return !hidden(w); };
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "scores of -inf");
    expect_lse_within_gate(x, expected, "scores of -inf");
  }
}

// One query of a tile sees nothing, its neighbours in the same registers do.
TEST(attention_empty_rows, single_empty_rows_in_a_tile) {
  for (index_t empty = 0; empty < 35; ++empty) {
    cases::operands<> x({1, 1, 1, 35, 300, 8, 8}, 4);
    auto problem = problem_of(x);
    problem.mask = [=](const mix::index& w) { return w.query_row() != empty; };
    mix::softmax_attention(
        x.q, x.k, x.v, x.out,
        mix::softmax_options{.mask = [=](const auto& w) { return w.query_row() != empty; }, .lse = x.lse.view()});
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "empty row " + std::to_string(empty));
    expect_lse_within_gate(x, expected, "empty row " + std::to_string(empty));
    for (index_t i = 0; i < 8; ++i) EXPECT_TRUE(cases::same_bits(x.out(0, 0, empty, i), 0.0f));
  }
}

}  // namespace
