// SPDX-License-Identifier: Apache-2.0
// Swin's windows against the oracle under a mask written from the definition: roll, cut, and keep to one side of the border.
//
// Budget: the float gate of softmax attention.
#include <mixers/softmax/softmax_cases.hpp>
#include <tokenmix/window.hpp>

namespace {

using cases::index_t;

struct window_case {
  index_t rows, columns, Wh, Ww, down = 0, right = 0, heads = 2, kv_heads = 2, width = 8;
  bool biased = false;
};

// Where a token of one axis stands after rolling: the window, the place in it, and the part of the border it came from.
struct place {
  index_t window, at, part;
};
place rolled(index_t i, index_t size, index_t window, index_t shift) {
  const index_t to = ((i - shift) % size + size) % size;
  const index_t part = shift == 0 || to < size - window ? 0 : to < size - shift ? 1 : 2;
  return {to / window, to % window, part};
}

void check(const window_case& c, const std::string& label, std::uint64_t seed) {
  const index_t T = c.rows * c.columns;
  cases::operands<> x({2, c.heads, c.kv_heads, T, T, c.width, 5}, seed);
  auto problem = cases::problem_of(x);
  const auto y = [&](index_t t) { return rolled(t / c.columns, c.rows, c.Wh, c.down); };
  const auto z = [&](index_t t) { return rolled(t % c.columns, c.columns, c.Ww, c.right); };
  problem.mask = [&](const mix::index& w) {
    return y(w.query).window == y(w.key).window && z(w.query).window == z(w.key).window &&
           y(w.query).part == y(w.key).part && z(w.query).part == z(w.key).part;
  };
  mix::tensor<float, 2> bias({(2 * c.Wh - 1) * (2 * c.Ww - 1), c.heads});
  cases::random_numbers random(seed + 1);
  cases::fill_random(bias.view(), random);
  if (c.biased) {
    problem.score = [&](auto score, const mix::index& w) {
      const index_t dy = y(w.query).at - y(w.key).at + c.Wh - 1, dx = z(w.query).at - z(w.key).at + c.Ww - 1;
      return score + static_cast<decltype(score)>(bias(dy * (2 * c.Ww - 1) + dx, w.head));
    };
  }
  mix::shifted_window_inputs<float, float> inputs{.q = x.q, .k = x.k, .v = x.v};
  if (c.biased) inputs.bias = bias;
  const mix::shifted_window_options<> options{
      .grid = {c.rows, c.columns}, .window = {c.Wh, c.Ww}, .shift = {c.down, c.right}, .lse = x.lse};
  mix::shifted_window_attention(inputs, x.out.view(), options);
  const auto expected = reference::softmax_attention(problem);
  cases::expect_within_gate<float, float, float>(x.out, x, expected, label);
  cases::expect_lse_within_gate(x, expected, label);

  const mix::tensor<float, 4> alone = x.out;
  x.forget_results();
  mix::shifted_window_attention(inputs, x.out.view(), options, cases::delayed_threads{3});
  cases::expect_same_bits<float, 4>(x.out, alone, label + " on threads");
}

TEST(shifted_window_attention, windows_without_a_shift) {
  check({6, 8, 3, 4}, "3 x 4", 1);
  check({14, 14, 7, 7, 0, 0, 4, 2, 33}, "7 x 7", 2);
  check({5, 5, 1, 1}, "one token", 3);
}

TEST(shifted_window_attention, shifts) {
  check({6, 8, 3, 4, 1, 2}, "both axes", 1);
  check({6, 8, 3, 4, 0, 3}, "columns", 2);
  check({14, 21, 7, 7, 3, 3}, "7 x 7", 3);
  check({4, 4, 4, 4, 2, 2}, "one window", 4);
  check({24, 12, 12, 12, 6, 6}, "144 tokens", 5);
}

TEST(shifted_window_attention, relative_position_bias) {
  check({6, 8, 3, 4, 1, 2, 3, 3, 8, true}, "3 x 4", 1);
  check({14, 14, 7, 7, 3, 3, 2, 1, 16, true}, "7 x 7", 2);
}

TEST(shifted_window_attention, without_a_shift_a_window_has_the_bits_of_an_attention_of_its_own) {
  cases::operands<> x({1, 2, 2, 98, 98, 16, 8}, 1), part({1, 2, 2, 49, 49, 16, 8}, 1);
  mix::shifted_window_attention(x.q, x.k, x.v, x.out.view(),
                                mix::shifted_window_options<>{.grid = {7, 14}, .window = {7, 7}});
  for (index_t window : {0, 1}) {
    const auto row = [&](index_t i) { return i / 7 * 14 + window * 7 + i % 7; };
    for (index_t h = 0; h < 2; ++h)
      for (index_t i = 0; i < 49; ++i) {
        for (index_t d = 0; d < 16; ++d) part.q(0, h, i, d) = x.q(0, h, row(i), d);
        for (index_t d = 0; d < 16; ++d) part.k(0, h, i, d) = x.k(0, h, row(i), d);
        for (index_t d = 0; d < 8; ++d) part.v(0, h, i, d) = x.v(0, h, row(i), d);
      }
    mix::softmax_attention(part.q, part.k, part.v, part.out.view());
    for (index_t h = 0; h < 2; ++h)
      for (index_t i = 0; i < 49; ++i)
        for (index_t d = 0; d < 8; ++d) ASSERT_TRUE(cases::same_bits(x.out(0, h, row(i), d), part.out(0, h, i, d)));
  }
}

TEST(shifted_window_attention, errors_name_the_argument) {
  cases::operands<> x({1, 1, 1, 24, 24, 8, 4}, 1);
  const auto with = [&](const mix::shifted_window_options<>& options) -> std::string {
    try {
      mix::shifted_window_attention(x.q, x.k, x.v, x.out.view(), options);
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(with({.grid = {24}, .window = {2, 2}}), "grid has 1 values, expected rows and columns");
  EXPECT_EQ(with({.grid = {4, 5}, .window = {2, 5}}), "grid is 4 x 5 tokens, q has 24");
  EXPECT_EQ(with({.grid = {4, 6}, .window = {3, 3}}),
            "grid[0] is 4, expected a multiple of window[0] = 3: pad the grid first");
  EXPECT_EQ(with({.grid = {4, 6}, .window = {2, 3}, .shift = {0, 3}}), "shift[1] is 3, expected 0 to 2");
  EXPECT_EQ(with({.grid = {4, 6}, .window = {0, 3}}), "window[0] is 0, expected 1 or more tokens");
}

}  // namespace
