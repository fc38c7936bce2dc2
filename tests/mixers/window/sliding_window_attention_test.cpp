// SPDX-License-Identifier: Apache-2.0
// Sliding windows against the oracle: sides, dilation, first keys, sinks, global tokens with projections of their own.
//
// Budget: the float gate of softmax attention.
#include <mixers/softmax/softmax_cases.hpp>
#include <tokenmix/window.hpp>

namespace {

using cases::index_t;

struct window_case {
  index_t left, right, dilation = 1, first = 0;
  std::vector<index_t> global{};
};

bool sees(const window_case& c, index_t query, index_t key) {
  if (c.right == 0 && key > query) return false;
  if (key < c.first || std::find(c.global.begin(), c.global.end(), key) != c.global.end()) return true;
  if (std::find(c.global.begin(), c.global.end(), query) != c.global.end()) return true;
  const index_t step = key - query;
  return step % c.dilation == 0 && step >= -c.left * c.dilation && step <= c.right * c.dilation;
}

template <class Score = mix::plain_score, class Sequences = mix::whole_sequences>
mix::sliding_window_options<Score, Sequences> options_of(const window_case& c) {
  return {.left = c.left, .right = c.right, .dilation = c.dilation, .first_keys = c.first, .global_tokens = c.global};
}

void check(const window_case& c, index_t T, index_t S, const std::string& label, bool scored = false) {
  cases::operands<> x({2, 4, 2, T, S, 16, 9}, 3);
  auto problem = cases::problem_of(x);
  problem.mask = [&](const mix::index& w) { return sees(c, w.query, w.key); };
  const auto distance = [](auto score, auto where) {
    return score - 0.01f * mix::as_score(score, where.query - where.key);
  };
  if (scored) {
    problem.score = [](auto score, const mix::index& w) {
      return score - static_cast<decltype(score)>(0.01f) * static_cast<decltype(score)>(w.query - w.key);
    };
    auto options = mix::sliding_window_options<decltype(distance)>{.left = c.left,
                                                                   .right = c.right,
                                                                   .dilation = c.dilation,
                                                                   .first_keys = c.first,
                                                                   .global_tokens = c.global,
                                                                   .score = distance,
                                                                   .lse = x.lse};
    mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(), options);
  } else {
    auto options = options_of(c);
    options.lse = x.lse;
    mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(), options);
  }
  const auto expected = reference::softmax_attention(problem);
  cases::expect_within_gate<float, float, float>(x.out, x, expected, label);
  cases::expect_lse_within_gate(x, expected, label);
}

TEST(sliding_window_attention, sides) {
  for (const auto& c : {window_case{0, 0}, {5, 0}, {3, 4}, {63, 0}, {1000, 1000}, {4, 3}})
    check(c, 100, 100, std::to_string(c.left) + " " + std::to_string(c.right));
  check({7, 0}, 5, 90, "the last queries");
  check({7, 2}, 90, 30, "more queries than keys");
  check({9, 0, 1, 4}, 100, 100, "first keys");
  check({9, 3, 1, 4}, 40, 100, "first keys to both sides");
}

TEST(sliding_window_attention, has_the_bits_of_softmax_attention_under_the_mask) {
  cases::operands<> x({1, 2, 1, 300, 300, 16, 8}, 1), y({1, 2, 1, 300, 300, 16, 8}, 1);
  mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(), options_of({50, 0, 1, 3}));
  mix::softmax_attention(y.q, y.k, y.v, y.out.view(),
                         mix::softmax_options{.mask = mix::causal{} & (mix::window{.left = 50} | mix::first_keys{3})});
  cases::expect_same_bits<float, 4>(x.out, y.out, "mask");
  // A lambda has neither runs nor words: all tiles are asked about, pair by pair.
  const auto pair_by_pair = [](const mix::index& w) {
    return w.key <= w.query && (w.key >= w.query - 50 || w.key < 3);
  };
  x.forget_results();
  mix::softmax_attention(x.q, x.k, x.v, x.out.view(),
                         mix::softmax_options<decltype(pair_by_pair)>{.mask = pair_by_pair});
  cases::expect_same_bits<float, 4>(x.out, y.out, "lambda");
  x.forget_results();
  for (index_t t = 0; t < 300; ++t)
    mix::sliding_window_attention(x.q.view().slice(2, t, 1), x.k.view().slice(2, 0, t + 1),
                                  x.v.view().slice(2, 0, t + 1), x.out.view().slice(2, t, 1),
                                  options_of({50, 0, 1, 3}));
  cases::expect_same_bits<float, 4>(x.out, y.out, "token by token");
}

TEST(sliding_window_attention, dilation) {
  for (index_t dilation : {2, 3, 7, 150}) {
    check({5, 0, dilation}, 100, 100, "causal, " + std::to_string(dilation));
    check({2, 3, dilation}, 61, 100, "both sides, " + std::to_string(dilation));
    check({3, 1, dilation, 4}, 30, 20, "first keys, " + std::to_string(dilation));
    check({3, 0, dilation, 5}, 100, 100, "causal, first keys, " + std::to_string(dilation));
  }
}

TEST(sliding_window_attention, global_tokens) {
  check({4, 4, 1, 0, {0, 7, 8, 55}}, 100, 100, "both sides");
  check({4, 0, 1, 2, {1, 7, 99}}, 100, 100, "causal, with first keys");
  check({4, 0, 3, 0, {3, 60}}, 50, 100, "dilated, the last queries");
  check({4, 4, 1, 0, {0, 200}}, 100, 100, "one that no sequence has");
}

TEST(sliding_window_attention, scores_see_positions) {
  check({5, 0}, 100, 100, "window", true);
  check({5, 2, 3, 4}, 61, 100, "dilation", true);
  check({4, 0, 1, 2, {1, 7, 99}}, 100, 100, "global tokens", true);
}

TEST(sliding_window_attention, global_tokens_have_projections_of_their_own) {
  const window_case c{4, 4, 1, 0, {0, 9, 41}};
  cases::operands<> x({2, 2, 1, 60, 60, 16, 8}, 1), other({2, 2, 1, 60, 60, 16, 8}, 2);
  for (index_t t = 0; t < 60; ++t)
    if (std::find(c.global.begin(), c.global.end(), t) == c.global.end()) other.q(0, 0, t, 0) = std::nanf("");
  mix::sliding_window_inputs<float, float> inputs{
      .q = x.q, .k = x.k, .v = x.v, .global_q = other.q, .global_k = other.k, .global_v = other.v};
  mix::sliding_window_attention(inputs, x.out.view(), options_of(c));
  auto local = cases::problem_of(x);
  local.mask = [&](const mix::index& w) { return sees(c, w.query, w.key); };
  const auto expected = reference::softmax_attention(local);
  for (index_t t = 0; t < 60; ++t)
    if (std::find(c.global.begin(), c.global.end(), t) == c.global.end()) other.q(0, 0, t, 0) = 0;
  mix::softmax_attention(other.q, other.k, other.v, other.out.view());
  for (index_t b = 0; b < 2; ++b)
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = 0; t < 60; ++t)
        for (index_t i = 0; i < 8; ++i) {
          const bool global = std::find(c.global.begin(), c.global.end(), t) != c.global.end();
          const double want = global ? static_cast<double>(other.out(b, h, t, i))
                                     : expected.out[static_cast<std::size_t>(((b * 2 + h) * 60 + t) * 8 + i)];
          ASSERT_NEAR(static_cast<double>(x.out(b, h, t, i)), want, 4e-6) << t;
        }
}

TEST(sliding_window_attention, packed_sequences_are_alone) {
  const std::vector<std::int32_t> offsets{0, 23, 23, 90};
  const window_case c{3, 0, 2, 2, {5, 30}};
  cases::operands<> x({1, 2, 2, 90, 90, 16, 8}, 5), alone({1, 2, 2, 67, 67, 16, 8}, 5);
  auto options = options_of<mix::plain_score, mix::packed<std::int32_t>>(c);
  options.sequences = mix::packed<std::int32_t>{offsets};
  mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(), options, cases::delayed_threads{3});
  const auto part = [](auto& tensor) { return tensor.view().slice(2, 23, 67); };
  mix::sliding_window_attention(mix::tensor_view<const float, 4>(part(x.q)),
                                mix::tensor_view<const float, 4>(part(x.k)),
                                mix::tensor_view<const float, 4>(part(x.v)), alone.out.view(), options_of(c));
  cases::expect_same_bits<float, 4>(part(x.out), alone.out, "packed");
}

TEST(sliding_window_attention, errors_name_the_argument) {
  cases::operands<> x({1, 1, 1, 8, 8, 8, 4}, 1);
  const auto with = [&](const window_case& c) -> std::string {
    try {
      mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(), options_of(c));
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(with({-1, 0}), "left is -1, expected 0 or more keys, or tokenmix::unlimited");
  EXPECT_EQ(with({1, -2}), "right is -2, expected 0 or more keys, or tokenmix::unlimited");
  EXPECT_EQ(with({1, 0, 0}), "dilation is 0, expected 1 or more");
  EXPECT_EQ(with({1, 0, 1, -1}), "first_keys is -1, expected 0 or more keys");
  EXPECT_EQ(with({1, 0, 1, 0, {3, 3}}), "global_tokens[1] is 3, expected 4 or more: positions ascend from 0");
}

}  // namespace
