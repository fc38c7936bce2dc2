// SPDX-License-Identifier: Apache-2.0
// The weights of softmax attention, of all rows, of selected rows, and as a mean over heads.
//
// Budget: per weight (2 + D / 64) u p (1 + S + its own logit mass), 4 in place of 2 + D / 64 below D = 64, not less than 8 u p; and
// zero exactly where a key is not visible. What is below 2^-126 may be zero.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

/// weights (H rows of each batch element, chosen) against the oracle, whose row of the problem stands at rows[r].
void expect_weights(const mix::tensor_view<const float, 4>& got, const cases::shape& size,
                    const reference::softmax_problem<double>& problem, const std::vector<index_t>& rows,
                    const std::string& label) {
  const double u = 0x1p-24;
  index_t failures = 0;
  for (index_t b = 0; b < size.batch; ++b)
    for (index_t h = 0; h < size.heads; ++h)
      for (std::size_t r = 0; r < rows.size(); ++r) {
        const auto row = reference::softmax_row_of(problem, {b, b, 0, size.queries, 0, size.keys}, h, rows[r]);
        double mean = 0;
        for (std::size_t s = 0; s < row.weight.size(); ++s) mean += row.weight[s] * row.mass[s];
        for (index_t s = 0; s < size.keys; ++s) {
          const auto j = static_cast<std::size_t>(s);
          const double want = row.weight[j], weight = static_cast<double>(got(b, h, static_cast<index_t>(r), s));
          const double gate =
              u * want * std::max(8.0, cases::gate_factor(size.width) * (1 + mean + row.mass[j])) + 0x1p-126;
          if (row.visible[j] ? !(std::abs(weight - want) <= gate) : !(weight == 0)) {
            if (++failures <= 3)
              ADD_FAILURE() << label << ": weight (" << b << ", " << h << ", " << r << ", " << s << ") is " << weight
                            << ", expected " << want;
          }
        }
      }
  EXPECT_EQ(failures, 0) << label;
}

std::vector<index_t> all_rows(index_t n) {
  std::vector<index_t> rows;
  for (index_t i = 0; i < n; ++i) rows.push_back(i);
  return rows;
}

std::vector<cases::shape> shapes() {
  if (cases::reduced_sweep) return {{1, 4, 2, 1, 40, 16, 8}, {1, 4, 2, 33, 20, 16, 8}};
  return {{2, 4, 2, 1, 300, 16, 8}, {1, 3, 1, 3, 65, 64, 8}, {2, 4, 2, 70, 70, 16, 8}, {1, 2, 1, 130, 520, 20, 8},
          {1, 4, 4, 60, 33, 16, 8}, {1, 2, 1, 5, 0, 8, 8},   {1, 2, 1, 0, 5, 8, 8}};
}

TEST(weights, all_rows_under_a_causal_mask) {
  for (const cases::shape& size : shapes()) {
    const cases::operands<> x(size, 1);
    auto problem = problem_of(x);
    problem.mask = [](const mix::index& w) { return w.key <= w.query; };
    mix::tensor<float, 4> weights({size.batch, size.heads, size.queries, size.keys}, cases::untouched<float>());
    mix::softmax_attention_weights(x.q, x.k, weights, mix::softmax_options{.mask = mix::causal{}});
    expect_weights(weights, size, problem, all_rows(size.queries), size.text());
    mix::tensor<float, 4> threaded = weights;
    for (float& w : threaded) w = 0;
    mix::softmax_attention_weights(x.q, x.k, threaded, mix::softmax_options{.mask = mix::causal{}},
                                   cases::delayed_threads{3});
    cases::expect_same_bits<float, 4>(threaded, weights, "on threads");
  }
}

TEST(weights, selected_rows) {
  const cases::shape size{2, 4, 2, 150, 300, 16, 8};
  const cases::operands<> x(size, 2);
  auto problem = problem_of(x);
  problem.mask = [](const mix::index& w) { return w.key <= w.query; };
  mix::tensor<float, 4> all({2, 4, 150, 300});
  mix::softmax_attention_weights(x.q, x.k, all, mix::softmax_options{.mask = mix::causal{}});
  cases::random_numbers random(3);
  std::vector<index_t> many;
  for (index_t i = 0; i < 200; ++i) many.push_back(random.integer(0, 149));
  for (const std::vector<index_t>& rows :
       {std::vector<index_t>{149}, {0, 1, 2, 3}, {7, 3, 3, 149, 0}, {10, 11, 12, 40, 41, 5}, many}) {
    const auto n = static_cast<index_t>(rows.size());
    mix::tensor<float, 4> weights({2, 4, n, 300}, cases::untouched<float>());
    const auto options = mix::softmax_options{.mask = mix::causal{}, .rows = rows};
    mix::softmax_attention_weights(x.q, x.k, weights, options);
    expect_weights(weights, size, problem, rows, "rows");
    for (index_t r = 0; r < n; ++r)  // a row is the same whoever is beside it
      cases::expect_same_bits<float, 4>(weights.slice(2, r, 1), all.slice(2, rows[static_cast<std::size_t>(r)], 1),
                                        "row " + std::to_string(r));

    mix::tensor<float, 3> mean({2, n, 300}, cases::untouched<float>());
    mix::softmax_attention_weights(x.q, x.k, mean, options);
    index_t failures = 0;
    for (index_t b = 0; b < 2; ++b)
      for (index_t r = 0; r < n; ++r)
        for (index_t s = 0; s < 300; ++s) {
          double want = 0;
          for (index_t h = 0; h < 4; ++h) want += static_cast<double>(weights(b, h, r, s)) / 4;
          failures +=
              !(std::abs(static_cast<double>(mean(b, r, s)) - want) <= 4 * 0x1p-24 * want);  // 3 additions, 1 product
        }
    EXPECT_EQ(failures, 0) << "mean over heads";
  }
}

// Weights times values are the output, and rows sum to 1: within the roundings of S additions.
TEST(weights, sum_to_one_and_give_the_output) {
  cases::operands<> x({1, 2, 1, 40, 90, 16, 8}, 4);
  mix::tensor<float, 4> weights({1, 2, 40, 90});
  mix::softmax_attention_weights(x.q, x.k, weights);
  mix::softmax_attention(x.q, x.k, x.v, x.out);
  for (index_t h = 0; h < 2; ++h)
    for (index_t t = 0; t < 40; ++t) {
      double sum = 0;
      for (index_t s = 0; s < 90; ++s) sum += static_cast<double>(weights(0, h, t, s));
      EXPECT_NEAR(sum, 1, 90 * 0x1p-24);
      for (index_t i = 0; i < 8; ++i) {
        double value = 0;
        for (index_t s = 0; s < 90; ++s)
          value += static_cast<double>(weights(0, h, t, s)) * static_cast<double>(x.v(0, 0, s, i));
        EXPECT_NEAR(value, static_cast<double>(x.out(0, h, t, i)), 2e-6);
      }
    }
}

TEST(weights, sinks_take_their_share_and_storage_types_round) {
  const cases::shape size{1, 2, 2, 20, 50, 16, 8};
  const cases::operands<mix::bfloat16> x(size, 5);
  auto problem = problem_of(x);
  problem.sinks = {1.5, -2};
  mix::tensor<float, 1> sinks({2});
  sinks(0) = 1.5f, sinks(1) = -2;
  mix::tensor<float, 4> weights({1, 2, 20, 50});
  mix::softmax_attention_weights(mix::softmax_inputs<mix::bfloat16, mix::bfloat16>{.q = x.q, .k = x.k, .sinks = sinks},
                                 weights, mix::softmax_options<>{});
  expect_weights(weights, size, problem, all_rows(20), "bfloat16 with sinks");
}

}  // namespace
