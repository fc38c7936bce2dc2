// SPDX-License-Identifier: Apache-2.0
// Relative embeddings against Shaw's sum over an explicit (query, key, channel) tensor, tile by tile.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/relative_embedding.hpp>

#include <algorithm>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

struct layout {
  index_t entries, zero;
  bool clamps;
};

template <class T, class E>
void expect_relative(const shape& s, index_t D, const layout& l, index_t table_heads, index_t bias_heads,
                     unsigned seed) {
  constexpr index_t L = mix::simd::lanes<T>;
  const auto side = seed % 2 == 0 ? mix::reference::flush::end : mix::reference::flush::start;
  const guarded_table<E, 3> guarded({table_heads, l.entries, D}, seed, side);
  const guarded_table<E, 2> guarded_bias({std::max<index_t>(bias_heads, 1), D}, seed + 1000, side);
  const auto table = guarded.view();
  const auto bias = guarded_bias.view();
  mix::relative_embedding<E> m{table, l.zero, l.clamps ? mix::outside_table::clamped : mix::outside_table::zero};
  if (bias_heads > 0) m.query_bias = bias;
  mix::score_check(m, s.batches, s.heads, s.queries, s.keys, D);

  const T scale = T(0.3);
  const guarded_table<float, 4> q({s.batches, s.heads, s.queries, D}, seed + 2000);
  const auto exact = [](const E& e) { return static_cast<double>(static_cast<mix::accumulator_t<E>>(e)); };
  each_tile<T>(s, D, [&](mix::score_tile<T> tile) {
    mix::tensor<T, 2> scaled({D, tile.width});  // padding lanes: zeros
    const index_t first_row = tile.query_first - (s.keys - s.queries);
    for (index_t i = 0; i < tile.query_count; ++i) {
      for (index_t c = 0; c < D; ++c)
        scaled(c, i) = scale * static_cast<T>(q.view()(tile.batch, tile.head, first_row + i, c));
    }
    tile.scaled_query = scaled.data();
    tile.scale = scale;
    mix::scratch_frame frame;
    const auto prepared = mix::score_prepare(m, tile, frame);
    for (index_t k = tile.key_first; k < tile.key_first + tile.key_count; ++k) {
      for (index_t i = 0; i < tile.query_count; ++i) {
        const mix::query_lanes_index<T> where{
            tile.batch, tile.head, mix::simd::positions<T>::consecutive(tile.query_first + i / L * L),
            k,          s.queries, s.keys};
        const mix::index one = mix::detail::lane_of(where, i % L);
        const T score = score_of<T>(one);
        alignas(64) T result[static_cast<std::size_t>(L)];
        mix::simd::store(result, mix::score_at(prepared, mix::simd::batch<T>(score), where));

        const index_t entry = k - one.query + (l.zero == mix::centred ? l.entries / 2 : l.zero);
        double want = 0, magnitude = 0;
        if (l.clamps || (entry >= 0 && entry < l.entries)) {
          for (index_t c = 0; c < D; ++c) {
            const double b = bias_heads > 0 ? exact(bias(bias_heads == 1 ? 0 : tile.head, c)) : 0.0;
            const double x = static_cast<double>(scaled(c, i)) + static_cast<double>(scale) * b;
            const double term =
                x * exact(table(table_heads == 1 ? 0 : tile.head, std::clamp<index_t>(entry, 0, l.entries - 1), c));
            want += term;
            magnitude += std::abs(term);
          }
        }
        // D roundings of the chain (twice as many without fma), one of the query bias, one of the sum.
        const double roundings =
            mix::detail::rounds_fma_once ? static_cast<double>(D) + 2 : 2 * static_cast<double>(D) + 3;
        const double budget =
            u<T> * (roundings * magnitude + std::abs(static_cast<double>(score)) + std::abs(want)) + 1e-300;
        ASSERT_LE(std::abs(static_cast<double>(result[i % L]) - (static_cast<double>(score) + want)), budget)
            << text(one) << " D " << D << " entries " << l.entries << " zero " << l.zero << " clamps " << l.clamps;
      }
    }
  });
}

template <class T, class E>
void sweep() {
  unsigned seed = 0;
  for (const shape& s : shapes) {
    for (const layout& l : {layout{s.queries + s.keys - 1, s.keys - 1, true}, layout{9, mix::centred, true},
                            layout{9, mix::centred, false},
                            layout{std::max<index_t>(s.keys - 3, 1), std::max<index_t>(s.keys - 3, 1) - 1, false},
                            layout{4, 0, true}, layout{1, 0, false}, layout{1, 0, true}}) {
      for (index_t D : {1, 7, 16}) {
        expect_relative<T, E>(s, D, l, seed % 3 == 0 ? 1 : s.heads, std::array<index_t, 3>{0, 1, s.heads}[seed % 3],
                              seed);
        ++seed;
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(RelativeEmbedding, Float) { sweep<float, float>(); }
TEST(RelativeEmbedding, Double) { sweep<double, double>(); }
TEST(RelativeEmbedding, Bfloat16) { sweep<float, mix::bfloat16>(); }
TEST(RelativeEmbedding, FloatTableInADoubleKernel) { sweep<double, float>(); }

TEST(RelativeEmbedding, BitsDoNotDependOnTheTile) {
  // A score is a function of the query and the distance alone: tiles of any width and any run of keys agree.
  constexpr index_t L = mix::simd::lanes<float>;
  const index_t D = 24, T = 3 * L, S = 50;
  const guarded_table<float, 3> table({1, 41, D}, 1);
  const guarded_table<float, 2> q({T, D}, 2);
  const mix::relative_embedding m{table.view()};
  mix::tensor<float, 2> seen({T, S});
  for (index_t width : {L, 2 * L, 3 * L}) {
    for (index_t keys : {index_t{1}, index_t{7}, S}) {
      for (index_t t = 0; t < T; t += width) {
        mix::tensor<float, 2> scaled({D, width});
        const index_t count = std::min(width, T - t);
        for (index_t i = 0; i < count; ++i) {
          for (index_t c = 0; c < D; ++c) scaled(c, i) = q.view()(t + i, c);
        }
        for (index_t k = 0; k < S; k += keys) {
          const mix::score_tile<float> tile{0, 0, t + S - T, count,         k,   std::min(keys, S - k), T,
                                            S, D, width,     scaled.data(), 1.0f};
          mix::scratch_frame frame;
          const auto prepared = mix::score_prepare(m, tile, frame);
          for (index_t j = k; j < k + tile.key_count; ++j) {
            for (index_t i = 0; i < count; ++i) {
              alignas(64) float result[static_cast<std::size_t>(L)];
              const mix::query_lanes_index<float> where{
                  0, 0, mix::simd::positions<float>::consecutive(t + S - T + i / L * L), j, T, S};
              mix::simd::store(result, mix::score_at(prepared, mix::simd::batch<float>(0.0f), where));
              if (width == L && keys == 1) {
                seen(t + i, j) = result[i % L];
              } else {
                ASSERT_TRUE(same_bits(seen(t + i, j), result[i % L])) << t + i << " " << j;
              }
            }
          }
        }
      }
    }
  }
}

TEST(RelativeEmbedding, Errors) {
  const mix::tensor<float, 3> table({3, 9, 16});
  const mix::relative_embedding m{table.view()};
  static_assert(mix::reads_query<decltype(m)>);
  mix::score_check(m, 1, 3, 5, 5, 16);
  expect_error<mix::shape_error>([&] { mix::score_check(m, 1, 2, 5, 5, 16); }, "relative_embedding.table has 3 heads");
  expect_error<mix::shape_error>([&] { mix::score_check(m, 1, 3, 5, 5, 8); },
                                 "relative_embedding.table has 16 channels, expected 8");
  expect_error<mix::value_error>([&] { mix::score_check(mix::relative_embedding{table.view(), 9}, 1, 3, 5, 5, 16); },
                                 "relative_embedding.zero_entry is 9");
  expect_error<mix::shape_error>(
      [&] { mix::score_check(mix::relative_embedding{table.view().permuted({0, 2, 1}), 0}, 1, 3, 5, 5, 9); },
      "must be contiguous");
  const mix::tensor<float, 2> bias({3, 15});
  mix::relative_embedding with_bias{table.view()};
  with_bias.query_bias = bias;
  expect_error<mix::shape_error>([&] { mix::score_check(with_bias, 1, 3, 5, 5, 16); },
                                 "relative_embedding.query_bias has 15 channels, expected 16");
}

}  // namespace
