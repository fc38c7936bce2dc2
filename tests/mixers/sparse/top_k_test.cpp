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

template <class E>
void make_whole(mix::tensor<E, 4>& x) {
  for (E& value : x) value = static_cast<E>(std::round(static_cast<float>(value)));
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

template <class E, class Mask>
void check_top_k(const cases::shape& size, index_t k, const Mask& mask) {
  cases::operands<E, E, float> x(size, 11);
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
  cases::expect_within_gate<E, E, float>(x.out, x, expected, name);
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
      if (k <= size.keys) check_top_k<float>(size, k, mask);
  }
}

TEST(top_k_attention, lists_that_fill_at_every_key_or_never) {
  // Keys come by rising, then by falling scores: every key enters a list, or none after the first.
  for (const bool rising : {true, false}) {
    for (const index_t queries : {2, 20}) {
      cases::operands<> x({1, 1, 1, queries, 3000, 4, 4}, 14);
      for (float& value : x.q) value = 1;
      for (index_t s = 0; s < 3000; ++s)
        for (index_t d = 0; d < 4; ++d) x.k(0, 0, s, d) = d > 0 ? 0.0f : static_cast<float>(rising ? s : 3000 - s) / 64;
      mix::tensor<float, 4> expected(x.out.shape());
      for (const index_t k : {1, 100, 700}) {
        mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options{.k = k});
        mix::softmax_attention(x.q, x.k, x.v, expected, mix::softmax_options{.mask = [&](const mix::index& w) {
                                 return rising ? w.key >= 3000 - k : w.key < k;
                               }});
        for (index_t i = 0; i < x.out.size(); ++i)
          EXPECT_NEAR(x.out.data()[i], expected.data()[i], 1e-5f) << rising << ' ' << queries << ' ' << k;
      }
    }
  }
}

TEST(top_k_attention, of_narrow_storage) {
  for (const cases::shape& size : {cases::shape{1, 2, 1, 40, 90, 16, 8}, {1, 2, 2, 3, 300, 8, 20}}) {
    check_top_k<mix::bfloat16>(size, 9, mix::causal{});
    check_top_k<mix::float16>(size, 9, mix::causal{});
  }
}

// Beside softmax attention with the same modifier and sequences, and a mask of what is chosen by float64.
template <class Sequences>
void check_sequences(const cases::shape& size, const Sequences& sequences, index_t k) {
  cases::operands<> x(size, 15);
  make_whole(x.q);
  make_whole(x.k);
  const auto score = [](float value, const mix::index& w) {
    return w.key % 5 == 4 ? -std::numeric_limits<float>::infinity() : value + 0.5f * static_cast<float>(w.key % 3);
  };
  std::vector<std::vector<char>> rows;
  for (index_t i = 0; i < sequences.count(size.batch); ++i) {
    const mix::sequence seq = sequences.at(i, size.queries, size.keys);
    for (index_t h = 0; h < size.heads; ++h)
      for (index_t t = 0; t < size.queries; ++t)
        rows.push_back(t >= seq.queries ? std::vector<char>()
                                        : chosen(
                                              [&](index_t s) {
                                                double sum = 0;
                                                for (index_t d = 0; d < size.width; ++d)
                                                  sum += static_cast<double>(x.q(seq.batch, h, seq.query_row + t, d)) *
                                                         static_cast<double>(x.k(seq.batch, h, seq.key_row + s, d));
                                                return scale * sum + 0.5 * static_cast<double>(s % 3);
                                              },
                                              [&](index_t s) { return s % 5 != 4 && s <= t + seq.keys - seq.queries; },
                                              seq.keys, k));
  }
  const auto sees = [&](const mix::index& w) {
    return rows[static_cast<std::size_t>((w.batch * size.heads + w.head) * size.queries + w.query_row())]
               [static_cast<std::size_t>(w.key)] != 0;
  };
  mix::tensor<float, 4> expected(x.out.shape(), 7.0f);
  for (float& value : x.out) value = 7;
  mix::softmax_attention(x.q, x.k, x.v, expected,
                         mix::softmax_options{.mask = sees, .score = score, .scale = scale, .sequences = sequences});
  mix::top_k_attention(
      x.q, x.k, x.v, x.out,
      mix::top_k_options{.k = k, .mask = mix::causal{}, .score = score, .scale = scale, .sequences = sequences});
  for (index_t i = 0; i < x.out.size(); ++i)
    EXPECT_NEAR(x.out.data()[i], expected.data()[i], 1e-5f) << size.text() << " k " << k << ": " << i;
}

TEST(top_k_attention, takes_modifiers_and_sequences) {
  const std::vector<index_t> offsets{0, 20, 23, 60}, key_offsets{0, 50, 53, 90}, keys{30, 7}, queries{18, 5};
  for (const index_t k : {0, 1, 6, 30}) {
    check_sequences({1, 2, 2, 60, 90, 8, 8}, mix::packed<index_t>{.offsets = offsets, .key_offsets = key_offsets}, k);
    check_sequences({2, 2, 2, 20, 40, 8, 8}, mix::lengths{.keys = keys, .queries = queries}, k);
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
  constexpr float infinity = std::numeric_limits<float>::infinity();
  struct shape {
    index_t heads, t, s;
  };
  // 13 heads of 3 queries are two blocks of rows, of which the second sees less; of the weights some are infinite.
  for (const auto& [heads, t, s] :
       {shape{3, 40, 100}, {3, 5, 5}, {3, 20, 7}, {11, 3, 600}, {13, 3, 40}, {1, 70, 600}}) {
    mix::tensor<float, 4> q({2, heads, t, 8});
    mix::tensor<float, 3> k({2, s, 8}), weights({2, heads, t});
    cases::random_numbers random(13);
    cases::fill_random(q.view(), random);
    cases::fill_random(k.view(), random);
    cases::fill_random(weights.view(), random, 2);
    make_whole(q);
    for (float& value : k) value = std::round(value);
    for (float& value : weights) value = std::round(value);
    weights(1, 0, t - 1) = infinity;
    weights(1, 0, t / 2) = -infinity;
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
              for (index_t h = 0; h < q.extent(1); ++h) {
                double product = 0;
                for (index_t d = 0; d < 8; ++d)
                  product += static_cast<double>(q(b, h, row, d)) * static_cast<double>(k(b, key, d));
                sum += static_cast<double>(weights(b, h, row)) * std::max(0.0, product);
              }
              return sum;
            },
            [&](index_t key) { return key <= row + k.extent(1) - q.extent(2); }, k.extent(1), most);
        std::vector<index_t> list;
        for (index_t key = 0; key < k.extent(1); ++key)
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
  const mix::tensor<float, 4> no_heads({1, 0, 5, 8});
  const mix::tensor<float, 3> no_weights({1, 0, 5});
  cases::expect_refused(
      [&] {
        mix::top_k_indexer(mix::indexer_inputs<float>{.q = no_heads, .k = k, .weights = no_weights}, indices.view(),
                           counts.view());
      },
      "q has 0 heads");
}

}  // namespace
