// SPDX-License-Identifier: Apache-2.0
// Mixture of block attention and native sparse attention beside their formulas in float64.
//
// Budget: the float gate of softmax attention, for the gated sum three of them. The choice of blocks is made in float64 here; the
// cases have no two scores so close that float decides otherwise (a wrong block is far outside the gate).
#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <limits>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

using table = std::vector<std::vector<char>>;  // (B H T) of (blocks)

std::vector<char> best_blocks(const std::vector<double>& score, index_t count) {
  std::vector<index_t> order(score.size());
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<index_t>(j);
  std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    const double x = score[static_cast<std::size_t>(a)], y = score[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  std::vector<char> in(score.size(), 0);
  for (std::size_t i = 0; i < order.size() && i < static_cast<std::size_t>(count); ++i)
    in[static_cast<std::size_t>(order[i])] = 1;
  return in;
}

TEST(mixture_of_blocks, is_attention_over_the_blocks_chosen) {
  for (const cases::shape& size : {cases::shape{1, 2, 1, 50, 50, 16, 8},
                                   {2, 2, 2, 7, 90, 8, 3},
                                   {1, 1, 1, 20, 9, 8, 8},
                                   {1, 1, 1, 1, 64, 8, 8},
                                   {1, 2, 1, 0, 9, 8, 8},
                                   {1, 1, 1, 4, 0, 8, 8}}) {
    for (const index_t block : {1, 8, 16}) {
      for (const index_t blocks : {1, 3, 100}) {
        cases::operands<> x(size, 21);
        const index_t T = size.queries, S = size.keys, group = size.heads / size.kv_heads;
        table seen;
        for (index_t b = 0; b < size.batch; ++b)
          for (index_t h = 0; h < size.heads; ++h)
            for (index_t t = 0; t < T; ++t) {
              const index_t at = t + S - T;
              std::vector<double> score;
              for (index_t j = 0; at >= 0 && j < at / block; ++j) {
                double sum = 0;
                for (index_t s = j * block; s < (j + 1) * block; ++s)
                  for (index_t d = 0; d < size.width; ++d)
                    sum += static_cast<double>(x.q(b, h, t, d)) * static_cast<double>(x.k(b, h / group, s, d));
                score.push_back(sum);
              }
              seen.push_back(best_blocks(score, blocks - 1));
              seen.back().push_back(1);
            }
        auto p = cases::problem_of(x);
        p.mask = [&](const mix::index& w) {
          const auto& row = seen[static_cast<std::size_t>((w.batch * size.heads + w.head) * T + w.query_row())];
          return w.key <= w.query && row[static_cast<std::size_t>(w.key / block)] != 0;
        };
        const auto expected = reference::softmax_attention(p);
        using options = mix::mixture_of_block_options<>;
        mix::mixture_of_block_attention(x.q, x.k, x.v, x.out,
                                        options{.block = block, .blocks = blocks, .lse = x.lse.view()});
        const std::string name = size.text() + " block " + std::to_string(block) + " of " + std::to_string(blocks);
        cases::expect_within_gate<float, float, float>(x.out, x, expected, name);
        cases::expect_lse_within_gate(x, expected, name);
        mix::tensor<float, 4> again(x.out.shape());
        mix::mixture_of_block_attention(x.q, x.k, x.v, again, options{.block = block, .blocks = blocks},
                                        cases::backwards{});
        cases::expect_same_bits<float, 4>(again, x.out, name + ", another executor");
      }
    }
  }
}

TEST(native_sparse, is_the_gated_sum_of_three) {
  for (const cases::shape& size : {cases::shape{1, 4, 2, 70, 70, 16, 8},
                                   {2, 2, 2, 5, 90, 8, 3},
                                   {1, 2, 1, 40, 21, 8, 8},
                                   {1, 2, 1, 1, 64, 8, 8},
                                   {1, 2, 1, 0, 9, 8, 8},
                                   {1, 1, 1, 4, 0, 8, 8}}) {
    constexpr index_t block = 8, blocks = 4, window = 10;
    cases::operands<> x(size, 22);
    const index_t T = size.queries, S = size.keys, group = size.heads / size.kv_heads, whole = S / block;
    mix::tensor<float, 4> ck({size.batch, size.kv_heads, whole, size.width}),
        cv({size.batch, size.kv_heads, whole, size.value_width}), gate({size.batch, size.heads, T, 3});
    cases::random_numbers random(23);
    cases::fill_random(ck.view(), random);
    cases::fill_random(cv.view(), random);
    cases::fill_random(gate.view(), random);
    const mix::native_sparse_attention_inputs<float, float> inputs{
        .q = x.q, .k = x.k, .v = x.v, .compressed_k = ck, .compressed_v = cv, .gate = gate};
    const mix::native_sparse_attention_options<> options{
        .block = block, .blocks = blocks, .first = 1, .local = 1, .window = window};
    mix::native_sparse_attention(inputs, x.out.view(), options);
    mix::tensor<float, 4> again(x.out.shape());
    mix::native_sparse_attention(inputs, again.view(), options, cases::backwards{});
    cases::expect_same_bits<float, 4>(again, x.out, "another executor");

    // The branches by the oracle: compressed keys as a problem of their own, whose mask counts whole blocks.
    auto compressed = cases::problem_of(x);
    compressed.keys = whole;
    compressed.k = reference::exact_values<reference::oracle_real<float>, float, 4>(ck);
    compressed.v = reference::exact_values<reference::oracle_real<float>, float, 4>(cv);
    compressed.mask = [&](const mix::index& w) { return (w.key + 1) * block - 1 <= w.query_row() + S - T; };
    const auto first = reference::softmax_attention(compressed, true);
    const auto weight = [&](index_t b, index_t h, index_t t, index_t j) {
      return static_cast<double>(first.weights[static_cast<std::size_t>(((b * size.heads + h) * T + t) * whole + j)]);
    };
    table seen;
    for (index_t b = 0; b < size.batch; ++b)
      for (index_t h = 0; h < size.heads; ++h)
        for (index_t t = 0; t < T; ++t) {
          const index_t at = t + S - T;
          std::vector<double> score;
          for (index_t j = 0; at >= 0 && j < at / block; ++j) {
            double sum = j == 0 ? 1e9 : 0;
            for (index_t other = 0; other < group; ++other) sum += weight(b, h / group * group + other, t, j);
            score.push_back(sum);
          }
          seen.push_back(best_blocks(score, blocks - 1));
          seen.back().push_back(1);
        }
    auto selected = cases::problem_of(x), near = cases::problem_of(x);
    selected.mask = [&](const mix::index& w) {
      const auto& row = seen[static_cast<std::size_t>((w.batch * size.heads + w.head) * T + w.query_row())];
      return w.key <= w.query && row[static_cast<std::size_t>(w.key / block)] != 0;
    };
    near.mask = [&](const mix::index& w) { return w.key <= w.query && w.key > w.query - window; };
    const auto second = reference::softmax_attention(selected), third = reference::softmax_attention(near);
    for (index_t row = 0; row < size.batch * size.heads * T; ++row) {
      for (index_t d = 0; d < size.value_width; ++d) {
        const auto e = static_cast<std::size_t>(row * size.value_width + d);
        double want = 0, gate_sum = 0;
        const reference::softmax_answer<reference::oracle_real<float>>* answers[] = {&first, &second, &third};
        for (index_t i = 0; i < 3; ++i) {
          const double g = static_cast<double>(gate.data()[row * 3 + i]);
          const auto& answer = *answers[i];
          want += g * static_cast<double>(answer.out[e]);
          gate_sum +=
              std::abs(g) *
                  std::max(8.0, 4 * (1 + static_cast<double>(answer.logit_mass[static_cast<std::size_t>(row)]))) *
                  static_cast<double>(answer.magnitude[e]) +
              std::abs(g) * 4 * static_cast<double>(answer.sensitivity[e]);
        }
        ASSERT_NEAR(static_cast<double>(x.out.data()[e]), want, gate_sum * 6e-8 + 1e-37)
            << size.text() << " row " << row;
      }
    }
  }
}

TEST(block_selection, errors) {
  cases::operands<> x({1, 1, 1, 5, 40, 8, 8}, 12);
  using options = mix::mixture_of_block_options<>;
  cases::expect_refused([&] { mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options{.block = 0}); },
                        "options.block is 0");
  cases::expect_refused([&] { mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options{.blocks = 0}); },
                        "options.blocks is 0");
  const mix::tensor<float, 4> ck({1, 1, 5, 8}), gate({1, 1, 5, 3});
  mix::native_sparse_attention_inputs<float, float> in{
      .q = x.q, .k = x.k, .v = x.v, .compressed_k = ck, .compressed_v = ck, .gate = gate};
  cases::expect_refused([&] { mix::native_sparse_attention(in, x.out.view(), {.block = 9}); },
                        "compressed_k is (1, 1, 5, 8), expected (B, Hk, compressed keys, D) = (1, 1, 4, 8)");
  cases::expect_refused([&] { mix::native_sparse_attention(in, x.out.view(), {.block = 8, .blocks = 2}); },
                        "options.blocks is 2, below options.first + options.local");
  cases::expect_refused([&] { mix::native_sparse_attention(in, x.out.view(), {.block = 8, .window = 0}); },
                        "options.window is 0");
}

}  // namespace
