// SPDX-License-Identifier: Apache-2.0
// Score modifiers that hold tables through the kernel: dense biases, T5 buckets, Toeplitz and relative embeddings.
//
// Budget: the float gate, with what the modifier adds in S.
#include <tokenmix/primitives/score/dense_bias.hpp>
#include <tokenmix/primitives/score/relative_embedding.hpp>
#include <tokenmix/primitives/score/t5_bias.hpp>
#include <tokenmix/primitives/score/toeplitz_bias.hpp>

#include <mixers/softmax/score_cases.hpp>

namespace {

using cases::index_t;

TEST(attention_bias, dense_with_broadcasting) {
  cases::random_numbers random(1);
  for (const cases::shape& size : cases::score_shapes()) {
    for (int broadcast = 0; broadcast < 6; ++broadcast) {
      const mix::extents<4> extents{broadcast == 1 || broadcast == 5 ? 1 : size.batch,
                                    broadcast == 2 || broadcast == 5 ? 1 : 4, broadcast == 3 ? 1 : size.queries,
                                    broadcast == 4 ? 1 : size.keys};
      mix::tensor<float, 4> table(extents);
      cases::fill_random(table.view(), random, 2);
      for (float& x : table)
        if (random.chance(0.1)) x = -std::numeric_limits<float>::infinity();
      cases::check_score(
          size, mix::dense_bias<float>{table},
          [&](double s, const mix::index& w) {
            return s + static_cast<double>(table(extents[0] == 1 ? 0 : w.batch, extents[1] == 1 ? 0 : w.head,
                                                 extents[2] == 1 ? 0 : w.query - (w.keys - w.queries),
                                                 extents[3] == 1 ? 0 : w.key));
          },
          "dense bias " + std::to_string(broadcast));
    }
  }
}

TEST(attention_bias, t5_buckets) {
  cases::random_numbers random(2);
  mix::tensor<float, 2> table({4, 32});
  for (float& x : table) x = static_cast<float>(random.gaussian());
  for (const cases::shape& size : cases::score_shapes()) {
    const mix::t5_bias<float> modifier{.table = table, .sides = mix::t5_sides::past, .max_distance = 128};
    cases::check_score(
        size, modifier,
        [&](double s, const mix::index& w) {
          // Section 2.1: 16 exact distances, then 16 buckets of equal logarithmic width up to 128.
          const index_t n = w.query - w.key;
          index_t bucket = n;
          if (n < 0) bucket = 0;
          if (n >= 16) {
            bucket = 16;
            while (bucket < 31 &&
                   static_cast<double>(n) >= 16 * std::pow(8.0, static_cast<double>(bucket - 15) / 16) * (1 - 1e-12))
              ++bucket;
          }
          return s + static_cast<double>(table(w.head, bucket));
        },
        "t5");
    cases::check_score_split(size, modifier, "t5");
  }
}

TEST(attention_bias, toeplitz_clamped) {
  cases::random_numbers random(3);
  mix::tensor<float, 2> table({4, 41});
  for (float& x : table) x = static_cast<float>(random.gaussian());
  for (const cases::shape& size : cases::score_shapes()) {
    const mix::toeplitz_bias<float> modifier{.table = table};
    cases::check_score(
        size, modifier,
        [&](double s, const mix::index& w) {
          return s + static_cast<double>(table(w.head, std::clamp<index_t>(w.key - w.query, -20, 20) + 20));
        },
        "toeplitz");
    cases::check_score_split(size, modifier, "toeplitz");
  }
}

// What a query says to a distance: its S holds the product |q . r| too, whose chain is as long as that of q . k.
TEST(attention_bias, relative_embeddings) {
  cases::random_numbers random(4);
  for (const cases::shape& size : cases::score_shapes()) {
    mix::tensor<float, 3> table({4, 61, size.width});
    cases::fill_random(table.view(), random);
    const cases::operands<> x(size, 11);
    const double scale = 1 / std::sqrt(static_cast<double>(size.width));
    cases::check_score(
        size, mix::relative_embedding<float>{.table = table},
        [&](double s, const mix::index& w) {
          const index_t entry = std::clamp<index_t>(w.key - w.query, -30, 30) + 30;
          double sum = 0;
          for (index_t i = 0; i < size.width; ++i)
            sum += static_cast<double>(x.q(w.batch, w.head, w.query_row(), i)) *
                   static_cast<double>(table(w.head, entry, i));
          return s + scale * sum;
        },
        "relative embedding");
  }
}

}  // namespace
