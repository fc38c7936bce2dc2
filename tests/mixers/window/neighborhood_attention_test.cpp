// SPDX-License-Identifier: Apache-2.0
// Neighbourhood attention against the oracle under a mask written from NATTEN's rule, token by token and axis by axis.
//
// Budget: the float gate of softmax attention. Tokens that nobody sees hold NaN.
#include <mixers/softmax/mask_cases.hpp>
#include <mixers/softmax/sequence_cases.hpp>
#include <tokenmix/window.hpp>

namespace {

using cases::index_t;
using axes = mix::axes<index_t>;

struct grid_case {
  axes grid, window, dilation{}, stride{};
  mix::axes<mix::neighbors> neighbors{};
  index_t heads = 2, kv_heads = 1, width = 8;
  bool biased = false;
};

index_t tokens_of(const axes& grid) {
  index_t n = 1;
  for (index_t a = 0; a < grid.rank(); ++a) n *= grid[a];
  return n;
}

// Where a token stands along an axis.
index_t coordinate(const axes& grid, index_t token, index_t axis) {
  for (index_t a = grid.rank() - 1; a > axis; --a) token /= grid[a];
  return token % grid[axis];
}

// The rule along one axis: steps away from the token in its class, and whether it is seen.
bool sees_along(const grid_case& c, index_t axis, index_t query, index_t key) {
  const index_t d = c.dilation.rank() == 0 ? 1 : c.dilation[axis], s = c.stride.rank() == 0 ? 1 : c.stride[axis];
  if (query % d != key % d) return false;
  const index_t n = (c.grid[axis] - query % d + d - 1) / d, W = c.window[axis], q = query / d, k = key / d;
  if (c.neighbors.rank() != 0 && c.neighbors[axis] == mix::neighbors::causal) {
    index_t last_of_group = q;
    while (last_of_group + 1 < n && (last_of_group + 1) % s != 0) ++last_of_group;
    return k <= q && k > last_of_group - W;
  }
  index_t center = q - q % s + s / 2;
  if (center > n - 1) center = n - 1;
  index_t start = center - W / 2;
  if (start + W > n) start = n - W;
  if (start < 0) start = 0;
  return k >= start && k < start + W;
}

bool sees(const grid_case& c, index_t query, index_t key) {
  for (index_t a = 0; a < c.grid.rank(); ++a)
    if (!sees_along(c, a, coordinate(c.grid, query, a), coordinate(c.grid, key, a))) return false;
  return true;
}

index_t bias_entry(const grid_case& c, index_t query, index_t key) {
  index_t entry = 0;
  for (index_t a = 0; a < c.grid.rank(); ++a) {
    const index_t d = c.dilation.rank() == 0 ? 1 : c.dilation[a], W = c.window[a];
    entry = entry * (2 * W - 1) + (coordinate(c.grid, key, a) - coordinate(c.grid, query, a)) / d + W - 1;
  }
  return entry;
}

void check(const grid_case& c, const std::string& label, std::uint64_t seed) {
  const index_t T = tokens_of(c.grid);
  cases::operands<> x({2, c.heads, c.kv_heads, T, T, c.width, 5}, seed);
  auto problem = cases::problem_of(x);
  problem.mask = [&](const mix::index& w) { return sees(c, w.query, w.key); };
  index_t entries = 1;
  for (index_t a = 0; a < c.grid.rank(); ++a) entries *= 2 * c.window[a] - 1;
  mix::tensor<float, 2> bias({c.heads, entries});
  cases::random_numbers random(seed + 1);
  cases::fill_random(bias.view(), random);
  if (c.biased) {
    problem.score = [&](auto score, const mix::index& w) {
      return score + static_cast<decltype(score)>(bias(w.head, bias_entry(c, w.query, w.key)));
    };
  }
  mix::neighborhood_inputs<float, float> inputs{.q = x.q, .k = x.k, .v = x.v};
  if (c.biased) inputs.bias = bias;
  mix::neighborhood_attention(inputs, x.out.view(),
                              mix::neighborhood_options<>{.grid = c.grid,
                                                          .window = c.window,
                                                          .dilation = c.dilation,
                                                          .stride = c.stride,
                                                          .neighbors = c.neighbors,
                                                          .lse = x.lse});
  const auto expected = reference::softmax_attention(problem);
  cases::expect_within_gate<float, float, float>(x.out, x, expected, label);
  cases::expect_lse_within_gate(x, expected, label);
}

TEST(neighborhood_attention, one_dimension) {
  for (const index_t n : {1, 2, 7, 16, 17, 40})
    for (const index_t window : {1, 2, 3, 7, 8})
      if (window <= n) check({{n}, {window}}, "n " + std::to_string(n) + " W " + std::to_string(window), 3);
}

TEST(neighborhood_attention, two_dimensions) {
  check({{1, 1}, {1, 1}}, "one token", 1);
  check({{7, 9}, {3, 5}}, "odd windows", 2);
  check({{8, 10}, {4, 2}}, "even windows", 3);
  check({{5, 6}, {5, 6}}, "a window as large as the grid", 4);
  check({{9, 13}, {7, 7}, {}, {}, {}, 4, 2, 33}, "groups of heads", 5);
}

TEST(neighborhood_attention, three_dimensions) { check({{3, 5, 6}, {2, 3, 3}}, "grid of 3 x 5 x 6", 1); }

TEST(neighborhood_attention, dilation) {
  check({{23}, {3}, {5}}, "one dimension", 1);
  check({{7, 11}, {2, 3}, {3, 2}}, "two dimensions", 2);
  check({{4, 5, 6}, {2, 2, 2}, {2, 1, 3}}, "three dimensions", 3);
}

TEST(neighborhood_attention, stride) {
  for (const index_t stride : {2, 3, 5}) check({{24}, {5}, {}, {stride}}, "stride " + std::to_string(stride), 1);
  check({{9, 10}, {4, 5}, {2, 1}, {3, 2}}, "with dilation", 2);
}

TEST(neighborhood_attention, causal_along_some_axes) {
  using mix::neighbors;
  check({{20}, {4}, {}, {}, {neighbors::causal}}, "one dimension", 1);
  check({{20}, {40}, {}, {}, {neighbors::causal}}, "a window longer than the grid", 2);
  check({{6, 8}, {3, 4}, {1, 2}, {}, {neighbors::causal, neighbors::around}}, "rows", 3);
  check({{20}, {6}, {}, {4}, {neighbors::causal}}, "stride", 4);
}

TEST(neighborhood_attention, relative_position_bias) {
  check({{17}, {4}, {}, {}, {}, 3, 3, 8, true}, "one dimension", 1);
  check({{9, 8}, {5, 3}, {1, 2}, {}, {}, 4, 2, 8, true}, "two dimensions", 2);
  check({{3, 4, 5}, {2, 3, 3}, {}, {}, {}, 2, 2, 8, true}, "three dimensions", 3);
}

TEST(neighborhood_attention, extra_keys_are_seen_by_all) {
  const grid_case c{{7, 9}, {3, 3}};
  cases::operands<> x({2, 2, 1, 63, 63, 8, 5}, 1);
  mix::tensor<float, 4> extra_k({1, 1, 3, 8}), extra_v({1, 1, 3, 5});
  cases::random_numbers random(7);
  cases::fill_random(extra_k.view(), random);
  cases::fill_random(extra_v.view(), random);
  auto problem = cases::problem_of(x);
  problem.extra = 3;
  problem.extra_k = reference::exact_values<double, float, 4>(extra_k);
  problem.extra_v = reference::exact_values<double, float, 4>(extra_v);
  problem.mask = [&](const mix::index& w) { return w.key < 3 || sees(c, w.query - 3, w.key - 3); };
  mix::neighborhood_attention(
      mix::neighborhood_inputs<float, float>{.q = x.q, .k = x.k, .v = x.v, .extra_k = extra_k, .extra_v = extra_v},
      x.out.view(), mix::neighborhood_options<>{.grid = c.grid, .window = c.window, .lse = x.lse});
  const auto expected = reference::softmax_attention(problem);
  cases::expect_within_gate<float, float, float>(x.out, x, expected, "extra keys");
  cases::expect_lse_within_gate(x, expected, "extra keys");
}

TEST(neighborhood_attention, a_nan_reaches_the_tokens_that_see_it) {
  const grid_case c{{9, 9}, {3, 3}};
  cases::operands<> x({1, 1, 1, 81, 81, 8, 4}, 1);
  const index_t bad = 40;
  for (index_t i = 0; i < 4; ++i) x.v(0, 0, bad, i) = std::numeric_limits<float>::quiet_NaN();
  x.k(0, 0, bad, 0) = std::numeric_limits<float>::quiet_NaN();
  mix::neighborhood_attention(x.q, x.k, x.v, x.out.view(),
                              mix::neighborhood_options<>{.grid = c.grid, .window = c.window});
  for (index_t t = 0; t < 81; ++t) EXPECT_EQ(std::isnan(x.out(0, 0, t, 0)), sees(c, t, bad)) << t;
}

TEST(neighborhood_attention, the_same_bits_for_any_executor_and_strides) {
  const mix::neighborhood_options<> options{.grid = {11, 13}, .window = {5, 4}, .dilation = {1, 2}};
  cases::operands<> x({2, 2, 2, 143, 143, 16, 8}, 1);
  mix::neighborhood_attention(x.q, x.k, x.v, x.out.view(), options);
  mix::tensor<float, 4> by_token({2, 143, 2, 8}), q({2, 143, 2, 16});
  for (index_t b = 0; b < 2; ++b)
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = 0; t < 143; ++t)
        for (index_t i = 0; i < 16; ++i) q(b, t, h, i) = x.q(b, h, t, i);
  const auto out = by_token.view().permuted({0, 2, 1, 3});
  mix::neighborhood_attention(mix::tensor_view<const float, 4>(q.view().permuted({0, 2, 1, 3})), x.k, x.v, out, options,
                              cases::delayed_threads{3});
  for (index_t b = 0; b < 2; ++b)
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = 0; t < 143; ++t)
        for (index_t i = 0; i < 8; ++i) ASSERT_TRUE(cases::same_bits(out(b, h, t, i), x.out(b, h, t, i)));
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST(neighborhood_attention, errors_name_the_argument) {
  cases::operands<> x({1, 1, 1, 12, 12, 8, 4}, 1);
  const auto with = [&](const mix::neighborhood_options<>& options) {
    return message_of([&] { mix::neighborhood_attention(x.q, x.k, x.v, x.out.view(), options); });
  };
  EXPECT_EQ(with({.grid = {}, .window = {3}}), "grid has no axes, expected one to three");
  EXPECT_EQ(with({.grid = {3, 4}, .window = {3}}), "window has 1 values, expected 2: grid has that many axes");
  EXPECT_EQ(with({.grid = {3, 5}, .window = {3, 3}}), "grid has 15 tokens, q has 12");
  EXPECT_EQ(with({.grid = {3, 4}, .window = {3, 5}}), "window[1] is 5: with dilation 1 the grid's 4 tokens hold 4");
  EXPECT_EQ(with({.grid = {12}, .window = {5}, .dilation = {3}}),
            "window[0] is 5: with dilation 3 the grid's 12 tokens hold 4");
  EXPECT_EQ(with({.grid = {12}, .window = {0}}), "window[0] is 0, expected 1 or more keys");
  EXPECT_EQ(with({.grid = {12}, .window = {3}, .stride = {4}}), "stride[0] is 4, expected 1 to window[0] = 3");
  EXPECT_EQ(with({.grid = {12}, .window = {3}, .dilation = {0}}), "dilation[0] is 0, expected 1 or more");
  mix::tensor<float, 2> bias({1, 4});
  EXPECT_EQ(message_of([&] {
              mix::neighborhood_attention(
                  mix::neighborhood_inputs<float, float>{.q = x.q, .k = x.k, .v = x.v, .bias = bias}, x.out.view(),
                  mix::neighborhood_options<>{.grid = {12}, .window = {3}});
            }),
            "bias has 4 entries, expected 5: 2 window - 1 along every axis");
}

}  // namespace
