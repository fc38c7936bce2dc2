// SPDX-License-Identifier: Apache-2.0
// Tables by distance in one dimension (Toeplitz) and in two (Swin) against look-ups written out.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/swin_bias.hpp>
#include <tokenmix/primitives/score/toeplitz_bias.hpp>

#include <algorithm>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

template <class T, class E>
void sweep_toeplitz() {
  unsigned seed = 20;
  for (const shape& s : shapes) {
    const index_t all = s.queries + s.keys - 1;
    // Every distance of the call; a short centred table; one that starts at distance 0; one of even length.
    for (const auto& [entries, zero] :
         std::vector<std::pair<index_t, index_t>>{{all, s.keys - 1}, {7, mix::centred}, {5, 0}, {4, 2}, {1, 0}}) {
      for (bool clamps : {true, false}) {
        for (index_t heads : {s.heads, index_t{1}}) {
          const guarded_table<E, 2> guarded({heads, entries}, ++seed,
                                            clamps ? mix::reference::flush::end : mix::reference::flush::start);
          const auto table = guarded.view();
          const mix::toeplitz_bias<E> m{table, zero, clamps ? mix::outside_table::clamped : mix::outside_table::zero};
          expect_everywhere<T>(m, s, 1.0, [&](double score, const mix::index& w) {
            const index_t entry = w.key - w.query + (zero == mix::centred ? entries / 2 : zero);
            const bool inside = entry >= 0 && entry < entries;
            if (!inside && !clamps) return score;
            const index_t nearest = std::clamp<index_t>(entry, 0, entries - 1);
            return score +
                   static_cast<double>(static_cast<mix::accumulator_t<E>>(table(heads == 1 ? 0 : w.head, nearest)));
          });
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(ToeplitzBias, Float) { sweep_toeplitz<float, float>(); }
TEST(ToeplitzBias, Double) { sweep_toeplitz<double, double>(); }
TEST(ToeplitzBias, Float16) { sweep_toeplitz<float, mix::float16>(); }

TEST(ToeplitzBias, AFullTableIsADenseBias) {
  const index_t T = 5, S = 9;
  const guarded_table<float, 2> guarded({1, T + S - 1}, 3);
  const mix::toeplitz_bias m{guarded.view(), S - 1};
  for (index_t t = 0; t < T; ++t) {
    for (index_t s = 0; s < S; ++s) {
      // Row t stands at position t + S - T: the entry is s - t - (S - T) + S - 1 = s - t + T - 1, all of 0 .. T + S - 2.
      EXPECT_EQ(mix::score_at(m, 0.0f, mix::index{0, 0, t + S - T, s, T, S}), guarded.view()(0, s - t + T - 1));
    }
  }
}

TEST(ToeplitzBias, Errors) {
  const mix::tensor<float, 2> table({3, 8});
  mix::toeplitz_bias{table.view(), 7}.check(1, 3, 1, 1);
  expect_error<mix::shape_error>([&] { mix::toeplitz_bias{table.view(), 7}.check(1, 4, 1, 1); },
                                 "toeplitz_bias.table has 3 heads");
  expect_error<mix::value_error>([&] { mix::toeplitz_bias{table.view(), 8}.check(1, 3, 1, 1); },
                                 "toeplitz_bias.zero_entry is 8");
  expect_error<mix::value_error>([&] { mix::toeplitz_bias{table.view(), -2}.check(1, 3, 1, 1); },
                                 "toeplitz_bias.zero_entry is -2");
  expect_error<mix::shape_error>([&] { mix::toeplitz_bias{table.view()}.check(1, 3, 1, 1); },
                                 "an even number has no middle");
  const mix::tensor<float, 2> none({3, 0});
  expect_error<mix::shape_error>([&] { mix::toeplitz_bias{none.view(), 0}.check(1, 3, 1, 1); }, "has 0 distances");
}

template <class T, class E>
void sweep_swin() {
  unsigned seed = 30;
  for (const mix::window_shape window :
       {mix::window_shape{1, 1}, mix::window_shape{3, 5}, mix::window_shape{5, 3}, mix::window_shape{7, 7}}) {
    const index_t tokens = window.height * window.width;
    for (index_t queries : {tokens, (tokens + 1) / 2}) {
      for (index_t table_heads : {index_t{3}, index_t{1}}) {
        const guarded_table<E, 2> guarded({(2 * window.height - 1) * (2 * window.width - 1), table_heads}, ++seed);
        const auto table = guarded.view();
        // The authors' relative_position_index, built as they build it: coordinates of every token, differences, strides.
        std::vector<std::pair<index_t, index_t>> coordinates;
        for (index_t y = 0; y < window.height; ++y) {
          for (index_t x = 0; x < window.width; ++x) coordinates.emplace_back(y, x);
        }
        const auto entry = [&](index_t i, index_t j) {
          const auto [yi, xi] = coordinates[static_cast<std::size_t>(i)];
          const auto [yj, xj] = coordinates[static_cast<std::size_t>(j)];
          return (yi - yj + window.height - 1) * (2 * window.width - 1) + (xi - xj + window.width - 1);
        };
        expect_everywhere<T>(mix::swin_bias<E>{table, window}, {1, 3, queries, tokens}, 1.0,
                             [&](double score, const mix::index& w) {
                               return score + static_cast<double>(static_cast<mix::accumulator_t<E>>(
                                                  table(entry(w.query, w.key), table_heads == 1 ? 0 : w.head)));
                             });
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(SwinBias, Float) { sweep_swin<float, float>(); }
TEST(SwinBias, Double) { sweep_swin<double, double>(); }
TEST(SwinBias, Bfloat16) { sweep_swin<float, mix::bfloat16>(); }

TEST(SwinBias, Errors) {
  const mix::tensor<float, 2> table({5 * 9, 3});
  const mix::swin_bias m{table.view(), {3, 5}};
  m.check(1, 3, 15, 15);
  expect_error<mix::shape_error>([&] { m.check(1, 2, 15, 15); }, "swin_bias.table has 3 heads");
  expect_error<mix::shape_error>([&] { m.check(1, 3, 16, 15); },
                                 "swin_bias.window has 15 tokens, q has 16 and k has 15");
  expect_error<mix::shape_error>([&] { m.check(1, 3, 14, 14); },
                                 "swin_bias.window has 15 tokens, q has 14 and k has 14");
  expect_error<mix::shape_error>([&] { mix::swin_bias{table.view(), {5, 5}}.check(1, 3, 25, 25); },
                                 "swin_bias.table has 45 rows, expected 81");
  expect_error<mix::value_error>([&] { mix::swin_bias{table.view(), {0, 5}}.check(1, 3, 0, 0); },
                                 "swin_bias.window is 0 x 5");
}

}  // namespace
