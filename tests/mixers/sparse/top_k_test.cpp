// SPDX-License-Identifier: Apache-2.0
// Attention over the keys with the largest scores, and the indexer, beside softmax attention with the equivalent mask.
//
// Budget: the float gate. Queries and keys are whole numbers and the scale is a power of two, so that scores are exact and ties many.
#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <limits>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

void make_whole(mix::tensor<float, 4>& x) {
  for (float& value : x) value = std::round(value);
}

// The k first visible keys by falling score, ties by index, NaN last.
template <class Score, class Mask>
std::vector<char> chosen(const Score& score, const Mask& sees, index_t keys, index_t k) {
  std::vector<index_t> order;
  for (index_t s = 0; s < keys; ++s)
    if (sees(s)) order.push_back(s);
  std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    const bool a_nan = std::isnan(score(a)), b_nan = std::isnan(score(b));
    if (a_nan != b_nan) return b_nan;
    return a_nan || score(a) == score(b) ? a < b : score(a) > score(b);
  });
  std::vector<char> in(static_cast<std::size_t>(keys), 0);
  for (std::size_t i = 0; i < order.size() && i < static_cast<std::size_t>(k); ++i)
    in[static_cast<std::size_t>(order[i])] = 1;
  return in;
}

constexpr double scale = 0.25;

template <class Mask>
void check_top_k(const cases::shape& size, index_t k, const Mask& mask) {
  cases::operands<> x(size, 11);
  make_whole(x.q);
  make_whole(x.k);
  auto p = cases::problem_of(x);
  p.scale = scale;
  const index_t T = size.queries, S = size.keys, group = size.heads / size.kv_heads;
  std::vector<std::vector<char>> rows;
  for (index_t b = 0; b < size.batch; ++b)
    for (index_t h = 0; h < size.heads; ++h)
      for (index_t t = 0; t < T; ++t)
        rows.push_back(chosen(
            [&](index_t s) {
              double sum = 0;
              for (index_t d = 0; d < size.width; ++d)
                sum += static_cast<double>(x.q(b, h, t, d)) * static_cast<double>(x.k(b, h / group, s, d));
              return sum;
            },
            [&](index_t s) { return mix::mask_at(mask, mix::index{b, h, t + S - T, s, T, S}); }, S, k));
  p.mask = [&](const mix::index& w) {
    return rows[static_cast<std::size_t>((w.batch * size.heads + w.head) * T + w.query_row())]
               [static_cast<std::size_t>(w.key)] != 0;
  };
  const auto expected = reference::softmax_attention(p);
  mix::top_k_attention(x.q, x.k, x.v, x.out,
                       mix::top_k_options{.k = k, .mask = mask, .scale = scale, .lse = x.lse.view()});
  const std::string name = size.text() + " k " + std::to_string(k);
  cases::expect_within_gate<float, float, float>(x.out, x, expected, name);
  cases::expect_lse_within_gate(x, expected, name);
  mix::tensor<float, 4> again(x.out.shape());
  mix::top_k_attention(x.q, x.k, x.v, again, mix::top_k_options{.k = k, .mask = mask, .scale = scale},
                       cases::backwards{});
  cases::expect_same_bits<float, 4>(again, x.out, name + ", another executor");
}

TEST(top_k_attention, is_attention_over_the_keys_chosen) {
  const auto mask = mix::causal{} & (mix::window{.left = 20} | mix::first_keys{3});
  for (const cases::shape& size : {cases::shape{1, 2, 1, 40, 90, 16, 8},
                                   {2, 4, 4, 3, 33, 5, 3},
                                   {1, 1, 1, 1, 300, 64, 64},
                                   {1, 2, 2, 20, 7, 8, 20},
                                   {1, 2, 2, 0, 7, 8, 8},
                                   {1, 2, 2, 3, 0, 8, 8}}) {
    for (const index_t k : {index_t{0}, index_t{1}, size.keys / 3, size.keys})
      if (k <= size.keys) check_top_k(size, k, mask);
  }
}

TEST(top_k_attention, nan_is_chosen_last_and_the_whole_is_plain_attention) {
  cases::operands<> x({1, 1, 1, 5, 40, 8, 8}, 12);
  mix::tensor<float, 4> expected(x.out.shape());
  x.k(0, 0, 7, 2) = std::numeric_limits<float>::quiet_NaN();
  mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options<>{.k = 39});
  mix::softmax_attention(x.q, x.k, x.v, expected,
                         mix::softmax_options{.mask = [](const mix::index& w) { return w.key != 7; }});
  for (index_t i = 0; i < x.out.size(); ++i) EXPECT_NEAR(x.out.data()[i], expected.data()[i], 1e-5f);
  mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options<>{.k = 40});
  EXPECT_TRUE(std::isnan(x.out(0, 0, 0, 0)));
}

TEST(top_k_indexer, is_the_sum_of_rectified_scores) {
  for (const auto& [t, s] : {std::array<index_t, 2>{40, 100}, {5, 5}, {20, 7}}) {
    mix::tensor<float, 4> q({2, 3, t, 8});
    mix::tensor<float, 3> k({2, s, 8}), weights({2, 3, t});
    cases::random_numbers random(13);
    cases::fill_random(q.view(), random);
    cases::fill_random(k.view(), random);
    cases::fill_random(weights.view(), random, 2);
    make_whole(q);
    for (float& value : k) value = std::round(value);
    for (float& value : weights) value = std::round(value);
    const index_t most = std::min<index_t>(s, 4);
    mix::tensor<index_t, 4> indices({2, 1, t, most}, -1);
    mix::tensor<index_t, 3> counts({2, 1, t}, -1);
    mix::top_k_indexer(mix::indexer_inputs<float>{.q = q, .k = k, .weights = weights}, indices.view(), counts.view(),
                       mix::top_k_indexer_options<mix::causal>{});
    for (index_t b = 0; b < 2; ++b) {
      for (index_t row = 0; row < t; ++row) {
        const auto expected = chosen(
            [&](index_t key) {
              double sum = 0;
              for (index_t h = 0; h < 3; ++h) {
                double product = 0;
                for (index_t d = 0; d < 8; ++d)
                  product += static_cast<double>(q(b, h, row, d)) * static_cast<double>(k(b, key, d));
                sum += static_cast<double>(weights(b, h, row)) * std::max(0.0, product);
              }
              return sum;
            },
            [&, all = s, queries = t](index_t key) { return key <= row + all - queries; }, s, most);
        std::vector<index_t> list;
        for (index_t key = 0; key < s; ++key)
          if (expected[static_cast<std::size_t>(key)]) list.push_back(key);
        ASSERT_EQ(counts(b, 0, row), static_cast<index_t>(list.size()));
        for (index_t i = 0; i < counts(b, 0, row); ++i)
          EXPECT_EQ(indices(b, 0, row, i), list[static_cast<std::size_t>(i)]) << b << ' ' << row;
      }
    }
  }
}

TEST(top_k_attention, errors) {
  cases::operands<> x({1, 1, 1, 5, 40, 8, 8}, 12);
  cases::expect_refused([&] { mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options<>{.k = 41}); },
                        "options.k is 41, k has 40 keys");
  cases::expect_refused(
      [&] { mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options<>{.k = 4, .scale = -1.0}); },
      "options.scale is -1");
  const mix::tensor<float, 3> k({1, 40, 8}), weights({1, 1, 5});
  mix::tensor<index_t, 4> indices({1, 1, 5, 41});
  mix::tensor<index_t, 3> counts({1, 1, 5});
  cases::expect_refused(
      [&] {
        mix::top_k_indexer(mix::indexer_inputs<float>{.q = x.q, .k = k, .weights = weights}, indices.view(),
                           counts.view());
      },
      "indices has room for 41 keys, k has 40");
}

}  // namespace
