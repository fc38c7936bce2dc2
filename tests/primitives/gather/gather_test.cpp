// SPDX-License-Identifier: Apache-2.0
// compact, expand, gather, scatter_add, scatter_max, top_k, argsort, segmented_softmax, segment_pool against plain loops.
//
// Budget: all exact but segmented_softmax (8 u) and means (n u).
#include <tokenmix/sparse.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <reference/cases.hpp>

namespace {

using mix::index_t;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

mix::tensor<float, 2> random_rows(index_t n, index_t d, std::uint64_t seed) {
  mix::tensor<float, 2> x({n, d});
  cases::random_numbers random(seed);
  cases::fill_random(x.view(), random);
  return x;
}

TEST(compact, moves_kept_rows_and_back) {
  for (const index_t n : {0, 1, 5, 40}) {
    for (const index_t d : {0, 1, 7}) {
      auto in = random_rows(n, d, 1);
      mix::tensor<bool, 1> keep({n}, false);
      std::vector<index_t> kept;
      for (index_t i = 0; i < n; ++i) {
        keep(i) = (i * 7) % 3 != 0;
        if (keep(i))
          kept.push_back(i);
        else
          for (index_t c = 0; c < d; ++c) in(i, c) = not_a_number;
      }
      const auto m = static_cast<index_t>(kept.size());
      mix::tensor<float, 2> out({m + 1, d}, -5.0f), back({n, d}, 9.0f);
      EXPECT_EQ(mix::compact(keep, in, out), m);
      for (index_t i = 0; i < m; ++i)
        for (index_t c = 0; c < d; ++c) EXPECT_EQ(out(i, c), in(kept[static_cast<std::size_t>(i)], c));
      for (index_t c = 0; c < d; ++c) EXPECT_EQ(out(m, c), -5.0f);
      EXPECT_EQ(mix::expand(keep, out, back, 2.0f), m);
      for (index_t i = 0; i < n; ++i)
        for (index_t c = 0; c < d; ++c) EXPECT_EQ(back(i, c), keep(i) ? in(i, c) : 2.0f);
    }
  }
  mix::tensor<bool, 1> keep({3}, true);
  mix::tensor<float, 2> in({3, 2}), small({2, 2}), wide({3, 4});
  cases::expect_refused([&] { mix::compact(keep, in, small); }, "out has 2 rows, keep has 3 that are true");
  cases::expect_refused([&] { mix::compact(keep, in, wide); }, "out has 4 channels, in has 2");
  cases::expect_refused([&] { mix::expand(keep, small, in); }, "in has 2 rows, keep has 3 that are true");
}

TEST(gather, and_scatter) {
  constexpr index_t n = 9, d = 5;
  const auto in = random_rows(n, d, 2);
  const std::vector<index_t> indices{3, 3, 0, 8, 1, 3, 0};
  const auto m = static_cast<index_t>(indices.size());
  mix::tensor<float, 2> out({m, d});
  mix::gather(in, indices, out);
  for (index_t i = 0; i < m; ++i)
    for (index_t c = 0; c < d; ++c) EXPECT_EQ(out(i, c), in(indices[static_cast<std::size_t>(i)], c));

  mix::tensor<float, 2> sum = in, most = in, expected_sum = in, expected_most = in;
  for (index_t c = 0; c < d; ++c) sum(4, c) = most(4, c) = expected_sum(4, c) = expected_most(4, c) = not_a_number;
  const auto add = random_rows(m, d, 3);
  for (index_t i = 0; i < m; ++i) {
    const index_t to = indices[static_cast<std::size_t>(i)];
    for (index_t c = 0; c < d; ++c) {
      expected_sum(to, c) += add(i, c);
      expected_most(to, c) = std::max(expected_most(to, c), add(i, c));
    }
  }
  auto threaded = sum;
  mix::scatter_add(add, indices, sum);
  mix::scatter_max(add, indices, most);
  cases::expect_same_bits<float, 2>(sum, expected_sum, "scatter_add");
  cases::expect_same_bits<float, 2>(most, expected_most, "scatter_max");
  cases::backwards on;
  mix::scatter_add(add, indices, threaded, on);
  cases::expect_same_bits<float, 2>(threaded, sum, "scatter_add in another order");

  mix::tensor<float, 2> none({0, d}), nan_rows({m, d}, not_a_number);
  mix::gather(in, {}, none);
  mix::scatter_add(none, {}, sum);
  cases::expect_same_bits<float, 2>(sum, expected_sum, "nothing added");
  mix::scatter_max(nan_rows, indices, most);
  EXPECT_TRUE(std::isnan(most(3, 0)));
  EXPECT_FALSE(std::isnan(most(2, 0)));

  const std::vector<index_t> wrong{0, 9, 0, 0, 0, 0, 0}, negative{0, 0, 0, 0, 0, 0, -1};
  cases::expect_refused([&] { mix::gather(in, wrong, out); }, "indices[1] is 9: in has 9 rows");
  cases::expect_refused([&] { mix::scatter_add(add, negative, sum); }, "indices[6] is -1: out has 9 rows");
  cases::expect_refused([&] { mix::scatter_max(add, wrong, sum); }, "indices[1] is 9");
  cases::expect_refused([&] { mix::scatter_add(in, indices, sum); }, "in has 9 rows, expected 7");
}

TEST(top_k, is_a_stable_sort_with_nan_last) {
  cases::random_numbers random(4);
  for (const index_t n : {0, 1, 2, 17, 300, 3001}) {
    mix::tensor<float, 2> scores({6, n});
    cases::fill_random(scores.view(), random);
    for (index_t i = 0; i < n; ++i) {
      scores(1, i) = static_cast<float>(i % 3);                                          // ties
      scores(2, i) = i % 2 == 0 ? 0.0f : -0.0f;                                          // equal
      scores(3, i) = i % 4 == 0 ? not_a_number : i % 4 == 1 ? -infinity : scores(3, i);  // NaN behind -inf
      scores(4, i) = i % 2 == 0 ? -not_a_number : infinity;
      scores(5, i) = not_a_number;
    }
    mix::tensor<index_t, 2> order({6, n});
    mix::argsort(scores, order);
    for (index_t r = 0; r < 6; ++r) {
      std::vector<index_t> expected(static_cast<std::size_t>(n));
      std::iota(expected.begin(), expected.end(), index_t{0});
      std::sort(expected.begin(), expected.end(), [&](index_t a, index_t b) {
        const float x = scores(r, a), y = scores(r, b);
        if (std::isnan(x) != std::isnan(y)) return std::isnan(y);
        return std::isnan(x) || x == y ? a < b : x > y;
      });
      for (index_t i = 0; i < n; ++i) EXPECT_EQ(order(r, i), expected[static_cast<std::size_t>(i)]) << r << ' ' << i;
      for (const index_t k : {index_t{0}, index_t{1}, n / 30, n / 3, n - 1}) {
        if (k < 0 || k > n) continue;
        mix::tensor<index_t, 2> best({6, k});
        mix::top_k(scores, best);
        for (index_t i = 0; i < k; ++i) EXPECT_EQ(best(r, i), expected[static_cast<std::size_t>(i)]) << r << ' ' << k;
      }
    }
  }
  mix::tensor<double, 2> wide({1, 3});
  wide(0, 0) = 1, wide(0, 1) = 1 + 1e-15, wide(0, 2) = -1;
  mix::tensor<index_t, 2> best({1, 2}), many({1, 4});
  mix::top_k(wide, best);
  EXPECT_EQ(best(0, 0), 1);
  EXPECT_EQ(best(0, 1), 0);
  cases::expect_refused([&] { mix::top_k(wide, many); }, "indices has 4 entries in a row, scores has 3");
}

TEST(segments, softmax) {
  auto x = random_rows(2, 10, 5);
  for (index_t i = 3; i < 5; ++i) x(0, i) = -infinity;
  x(1, 9) = not_a_number;
  const std::vector<index_t> offsets{0, 3, 3, 5, 8, 10};
  mix::tensor<float, 2> out({2, 10});
  mix::segmented_softmax(x, offsets, out);
  for (index_t r = 0; r < 2; ++r) {
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      double sum = 0;
      for (index_t i = offsets[s]; i < offsets[s + 1]; ++i) sum += std::exp(static_cast<double>(x(r, i)));
      for (index_t i = offsets[s]; i < offsets[s + 1]; ++i) {
        const double want = sum == 0 ? 0 : std::exp(static_cast<double>(x(r, i))) / sum;
        if (std::isnan(want))
          EXPECT_TRUE(std::isnan(out(r, i)));
        else
          EXPECT_NEAR(static_cast<double>(out(r, i)), want, 8 * 6e-8);
      }
    }
  }
  const std::vector<index_t> falls{0, 4, 3, 10}, small{0, 4}, late{1, 10};
  cases::expect_refused([&] { mix::segmented_softmax(x, falls, out); }, "offsets[2] is 3, expected 4 to 10");
  cases::expect_refused([&] { mix::segmented_softmax(x, small, out); }, "offsets[1] is 4, expected 10");
  cases::expect_refused([&] { mix::segmented_softmax(x, late, out); }, "offsets[0] is 1");
}

TEST(segments, pool) {
  constexpr index_t S = 11, D = 5;
  mix::tensor<float, 4> x({2, 3, S, D});
  cases::random_numbers random(6);
  cases::fill_random(x.view(), random);
  const std::vector<index_t> offsets{0, 4, 4, 8, 11}, blocks{0, 4, 8, 11};
  for (const mix::pooling how : {mix::pooling::mean, mix::pooling::sum, mix::pooling::max}) {
    mix::tensor<float, 4> out({2, 3, 4, D}), out_blocks({2, 3, 3, D}), out_offsets({2, 3, 3, D});
    mix::segment_pool(x, offsets, out, how);
    mix::segment_pool(x, index_t{4}, out_blocks, how);
    mix::segment_pool(x, blocks, out_offsets, how);
    cases::expect_same_bits<float, 4>(out_blocks, out_offsets, "blocks");
    for (index_t b = 0; b < 2; ++b)
      for (index_t h = 0; h < 3; ++h)
        for (index_t j = 0; j < 4; ++j)
          for (index_t d = 0; d < D; ++d) {
            const index_t first = offsets[static_cast<std::size_t>(j)], last = offsets[static_cast<std::size_t>(j) + 1];
            double sum = 0;
            float most = -infinity;
            for (index_t s = first; s < last; ++s)
              sum += static_cast<double>(x(b, h, s, d)), most = std::max(most, x(b, h, s, d));
            if (how == mix::pooling::mean && last > first) sum /= static_cast<double>(last - first);
            if (how == mix::pooling::max)
              EXPECT_EQ(out(b, h, j, d), most);
            else
              EXPECT_NEAR(static_cast<double>(out(b, h, j, d)), sum, 11 * 6e-8 * 40);
          }
  }
  mix::tensor<float, 4> out({2, 3, 3, D});
  cases::expect_refused([&] { mix::segment_pool(x, index_t{0}, out); }, "block is 0");
  cases::expect_refused([&] { mix::segment_pool(x, index_t{3}, out); }, "out is (2, 3, 3, 5), expected (B, H, n, D)");
}

}  // namespace
