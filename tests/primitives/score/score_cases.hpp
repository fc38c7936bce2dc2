// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of score modifiers share: every shape of index, prepared tiles, tables between forbidden pages.
#pragma once

#include <gtest/gtest.h>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/score/score.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <reference/guarded.hpp>

namespace score_cases {

namespace mix = tokenmix;
using mix::index_t;

/// B, H, T and S of one call.
struct shape {
  index_t batches, heads, queries, keys;
};
inline const std::vector<shape> shapes = {{1, 1, 1, 1},   {2, 3, 7, 7},   {1, 2, 5, 19}, {2, 1, 19, 5},
                                          {1, 5, 17, 33}, {1, 2, 33, 17}, {1, 1, 1, 40}, {1, 3, 40, 1}};

/// A table whose last byte lies before a forbidden page (or its first behind one), with random numbers.
template <class E, std::size_t R>
class guarded_table {
 public:
  guarded_table(const mix::extents<R>& shape, unsigned seed, mix::reference::flush side = mix::reference::flush::end)
      : shape_(shape), buffer_(mix::tensor_view<const E, R>(nullptr, shape).size(), side) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> number(-3.0f, 3.0f);
    for (index_t i = 0; i < buffer_.size(); ++i) buffer_[i] = static_cast<E>(number(random));
  }
  mix::tensor_view<const E, R> view() const { return {buffer_.data(), shape_}; }
  mix::tensor_view<E, R> view() { return {buffer_.data(), shape_}; }

 private:
  mix::extents<R> shape_;
  mix::reference::guarded_buffer<E> buffer_;
};

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0 || (a != a && b != b);
}

/// The score of a pair before the modifier: any fixed function that tells pairs apart.
template <class T>
T score_of(const mix::index& where) {
  const auto word = static_cast<std::uint32_t>(where.batch * 7919 + where.head * 104729 + where.query * 1299709 +
                                               where.key * 15485863);
  return static_cast<T>(static_cast<std::int32_t>(word * 2654435761u)) / T(134217728);  // [-16, 16)
}

inline std::string text(const mix::index& w) {
  return "batch " + std::to_string(w.batch) + " head " + std::to_string(w.head) + " query " + std::to_string(w.query) +
         " key " + std::to_string(w.key) + " of " + std::to_string(w.queries) + " x " + std::to_string(w.keys);
}

/// One row of pairs with lanes in some field: each lane that counts must have the bits of the plain index.
template <class T, class M, class Index>
void expect_lanes(const M& modifier, const Index& where, const char* kind) {
  constexpr index_t L = mix::simd::lanes<T>;
  alignas(64) T scores[static_cast<std::size_t>(L)];
  for (index_t i = 0; i < L; ++i) scores[i] = score_of<T>(mix::detail::lane_of(where, i));
  alignas(64) T result[static_cast<std::size_t>(L)];
  mix::simd::store(result, mix::score_at(modifier, mix::simd::load(scores), where));
  for (index_t i = 0; i < L; ++i) {
    const mix::index one = mix::detail::lane_of(where, i);
    if (one.query >= one.keys || one.key >= one.keys) continue;  // padding: read nothing outside, answer anything
    ASSERT_TRUE(same_bits(result[i], mix::score_at(modifier, scores[i], one)))
        << kind << ": " << text(one) << ": " << result[i] << ", plain " << mix::score_at(modifier, scores[i], one);
  }
}

/// The modifier of all pairs of a call, plain, against `expected(score, index)` in double; `budget(score, index)` is
/// the error allowed. Then queries, keys and heads in the lanes and prepared tiles against plain: the same bits.
template <class T, class M, class Expected, class Budget>
void expect_modifier(const M& modifier, const shape& s, Expected&& expected, Budget&& budget) {
  using positions = mix::simd::positions<T>;
  constexpr index_t L = mix::simd::lanes<T>;
  mix::score_check(modifier, s.batches, s.heads, s.queries, s.keys, 0);
  const index_t first_query = s.keys - s.queries;
  for (index_t b = 0; b < s.batches; ++b) {
    for (index_t h = 0; h < s.heads; ++h) {
      for (index_t q = first_query; q < s.keys; ++q) {
        for (index_t k = 0; k < s.keys; ++k) {
          const mix::index where{b, h, q, k, s.queries, s.keys};
          const T score = score_of<T>(where);
          const double want = expected(static_cast<double>(score), where);
          const T got = mix::score_at(modifier, score, where);
          if (std::isfinite(want)) {
            ASSERT_LE(std::abs(static_cast<double>(got) - want), budget(static_cast<double>(score), where))
                << text(where) << ": " << got << ", expected " << want;
          } else {
            ASSERT_TRUE(same_bits(static_cast<double>(got), want)) << text(where);
          }
        }
        for (index_t k = 0; k < s.keys; k += L) {
          expect_lanes<T>(modifier, mix::key_lanes_index<T>{b, h, q, positions::consecutive(k), s.queries, s.keys},
                          "key lanes");
        }
        if (::testing::Test::HasFatalFailure()) return;
      }
      for (index_t q = first_query; q < s.keys; q += L) {
        for (index_t k = 0; k < s.keys; ++k) {
          expect_lanes<T>(modifier, mix::query_lanes_index<T>{b, h, positions::consecutive(q), k, s.queries, s.keys},
                          "query lanes");
        }
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
    const auto heads = positions::generate([&](index_t i) { return (i + 1) % s.heads; });
    for (index_t q = first_query; q < s.keys; ++q) {
      for (index_t k = 0; k < s.keys; ++k) {
        const mix::basic_index<positions, index_t, index_t> where{b, heads, q, k, s.queries, s.keys};
        expect_lanes<T>(modifier, where, "head lanes");
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

/// Calls f(tile) with tiles of several widths that cover a call's pairs, padding lanes included.
template <class T, class F>
void each_tile(const shape& s, index_t channels, F&& f) {
  constexpr index_t L = mix::simd::lanes<T>;
  for (index_t b = 0; b < s.batches; ++b) {
    for (index_t h = 0; h < s.heads; ++h) {
      for (index_t width : {L, 3 * L}) {
        for (index_t keys : {index_t{6}, index_t{37}}) {
          for (index_t q = 0; q < s.queries; q += width) {
            for (index_t k = 0; k < s.keys; k += keys) {
              f(mix::score_tile<T>{b, h, q + s.keys - s.queries, std::min(width, s.queries - q), k,
                                   std::min(keys, s.keys - k), s.queries, s.keys, channels, width, nullptr, T(1)});
              if (::testing::Test::HasFatalFailure()) return;
            }
          }
        }
      }
    }
  }
}

/// Prepared for a tile, the modifier has the bits that it has plain.
template <class T, class M>
void expect_prepared(const M& modifier, const shape& s) {
  constexpr index_t L = mix::simd::lanes<T>;
  each_tile<T>(s, 0, [&](const mix::score_tile<T>& tile) {
    mix::scratch_frame frame;
    const auto prepared = mix::score_prepare(modifier, tile, frame);
    for (index_t k = tile.key_first; k < tile.key_first + tile.key_count; ++k) {
      for (index_t v = 0; v < tile.width; v += L) {
        const mix::query_lanes_index<T> where{
            tile.batch, tile.head,    mix::simd::positions<T>::consecutive(tile.query_first + v),
            k,          tile.queries, tile.keys};
        alignas(64) T scores[static_cast<std::size_t>(L)];
        for (index_t i = 0; i < L; ++i) scores[i] = score_of<T>(mix::detail::lane_of(where, i));
        alignas(64) T result[static_cast<std::size_t>(L)];
        mix::simd::store(result, mix::score_at(prepared, mix::simd::load(scores), where));
        for (index_t i = 0; i < L && v + i < tile.query_count; ++i) {
          const mix::index one = mix::detail::lane_of(where, i);
          ASSERT_TRUE(same_bits(result[i], mix::score_at(modifier, scores[i], one)))
              << "prepared: " << text(one) << ": " << result[i] << ", plain "
              << mix::score_at(modifier, scores[i], one);
        }
      }
    }
  });
}

template <class T>
inline constexpr double u = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;

/// Everything about a modifier whose answer is `expected` within `relative` u of (|score| + |what is added|), all shapes.
template <class T, class M, class Expected>
void expect_everywhere(const M& modifier, const shape& s, double relative, Expected&& expected) {
  expect_modifier<T>(modifier, s, expected, [&](double score, const mix::index& where) {
    return relative * u<T> * (std::abs(score) + std::abs(expected(score, where) - score)) + 1e-300;
  });
  if (!::testing::Test::HasFatalFailure()) expect_prepared<T>(modifier, s);
}

/// A call must throw Error with a message that contains `part`.
template <class Error, class F>
void expect_error(F&& f, const std::string& part) {
  try {
    f();
    FAIL() << "no error, expected: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nexpected: " << part;
  }
}

}  // namespace score_cases
