// SPDX-License-Identifier: Apache-2.0
// Score modifiers without tables of pairs through the kernel: ALiBi, softcap, temperature, lambdas, and their order.
//
// Budget: the float gate, with what the modifier adds in S; prefill and its last queries alone have the same bits.
#include <tokenmix/primitives/score/alibi.hpp>
#include <tokenmix/primitives/score/softcap.hpp>
#include <tokenmix/primitives/score/temperature.hpp>

#include <mixers/softmax/score_cases.hpp>

namespace {

using cases::index_t;

const std::vector<float> slopes{0.5f, 0.25f, 0.0625f, 1.5f};

double alibi(double s, const mix::index& w) {
  return s -
         static_cast<double>(slopes[static_cast<std::size_t>(w.head)]) * std::abs(static_cast<double>(w.query - w.key));
}

TEST(attention_score, alibi_then_softcap) {
  for (const cases::shape& size : cases::score_shapes()) {
    const auto modifier = mix::alibi{slopes} | mix::softcap{30.0f};
    cases::check_score(
        size, modifier, [](double s, const mix::index& w) { return 30 * std::tanh(alibi(s, w) / 30); },
        "alibi, softcap");
    cases::check_score_split(size, modifier, "alibi, softcap");
  }
}

TEST(attention_score, softcap_then_temperature) {
  for (const cases::shape& size : cases::score_shapes()) {
    const auto modifier = mix::softcap{2.0f} | mix::temperature{0.5f};
    cases::check_score(
        size, modifier, [](double s, const mix::index&) { return 2 * std::tanh(s / 2) / 0.5; }, "softcap, temperature",
        4);
  }
}

TEST(attention_score, lambda_of_the_plain_index) {
  for (const cases::shape& size : cases::score_shapes()) {
    const auto modifier = [](float s, const mix::index& w) {
      return s * (w.head == 1 ? 0.5f : 1.0f) + static_cast<float>((w.query * 3 + w.key + w.batch) % 4);
    };
    cases::check_score(
        size, modifier,
        [](double s, const mix::index& w) {
          return s * (w.head == 1 ? 0.5 : 1.0) + static_cast<double>((w.query * 3 + w.key + w.batch) % 4);
        },
        "lambda");
    cases::check_score_split(size, modifier, "lambda");
  }
}

TEST(attention_score, generic_lambda) {
  for (const cases::shape& size : cases::score_shapes()) {
    cases::check_score(
        size, [](const auto& s, const auto& w) { return mix::select(w.key * 2 > w.query, s + s, s); },
        [](double s, const mix::index& w) { return w.key * 2 > w.query ? s + s : s; }, "generic lambda");
  }
}

// Differences of thousands between scores (ALiBi at long distances): exp must not overflow, and near keys must win.
TEST(attention_score, biases_of_thousands) {
  for (double sign : {-1.0, 1.0}) {
    cases::operands<> x({1, 2, 1, 20, 2000, 16, 8}, 3);
    const auto formula = [=](double s, const mix::index& w) {
      return s + sign * 4 * static_cast<double>(w.query - w.key);
    };
    mix::softmax_attention(x.q, x.k, x.v, x.out,
                           mix::softmax_options{.score =
                                                    [=](float s, const mix::index& w) {
                                                      return s + static_cast<float>(sign * 4) *
                                                                     static_cast<float>(w.query - w.key);
                                                    },
                                                .lse = x.lse.view()});
    auto problem = problem_of(x);
    problem.score = formula;
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "biases of thousands");
    expect_lse_within_gate(x, expected, "biases of thousands");
  }
}

}  // namespace
