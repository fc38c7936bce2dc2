// SPDX-License-Identifier: Apache-2.0
// Causal masks of both alignments and windows through the kernel, at T <, =, > S.
//
// Budget: the float gate. Keys that nobody sees hold NaN.
#include <mixers/softmax/mask_cases.hpp>

namespace {

using cases::check_mask;
using cases::index_t;

TEST(attention_mask, causal) {
  check_mask(mix::causal{}, [](const mix::index& w) { return w.key <= w.query; }, "causal");
}

TEST(attention_mask, causal_top_left) {
  check_mask(
      mix::causal_top_left{}, [](const mix::index& w) { return w.key <= w.query - (w.keys - w.queries); },
      "causal_top_left");
}

// The two alignments written as rows and columns of a drawing rather than through positions.
TEST(attention_mask, alignments_of_three_queries_over_five_keys) {
  const auto seen_keys = [](const auto& mask, index_t t, index_t s) {
    std::string drawing;
    for (index_t row = 0; row < t; ++row) {
      for (index_t column = 0; column < s; ++column) {
        cases::operands<> x({1, 1, 1, t, s, 4, 1}, 9);
        for (float& y : x.v) y = 0;
        x.v(0, 0, column, 0) = 1;
        mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mask});
        drawing += x.out(0, 0, row, 0) > 0 ? '#' : '.';
      }
      drawing += '/';
    }
    return drawing;
  };
  EXPECT_EQ(seen_keys(mix::causal{}, 3, 5), "###../####./#####/");
  EXPECT_EQ(seen_keys(mix::causal_top_left{}, 3, 5), "#..../##.../###../");
  EXPECT_EQ(seen_keys(mix::causal{}, 5, 3), ".../.../#../##./###/");
  EXPECT_EQ(seen_keys(mix::causal_top_left{}, 5, 3), "#../##./###/###/###/");
  EXPECT_EQ(seen_keys(mix::window{.left = 1, .right = 1}, 3, 5), ".###./..###/...##/");
}

TEST(attention_mask, causal_window_of_every_size) {
  for (index_t left : {0, 1, 2, 15, 16, 17, 63, 64, 65, 99, 100, 101, 299, 300}) {
    if (cases::reduced_sweep && left > 17) continue;
    check_mask(
        mix::causal{} & mix::window{.left = left},
        [left](const mix::index& w) { return w.key <= w.query && w.query - w.key <= left; },
        "causal, " + std::to_string(left) + " keys before");
  }
}

// Whoever asks a mask by runs of keys works in pieces of fixed size: the borders of a window pass every place in a piece.
TEST(attention_mask, window_borders_at_every_place) {
  for (index_t left = 0; left <= 150; left += cases::reduced_sweep ? 3 : 1) {
    for (index_t t : {2, 20}) {
      cases::check_mask_at(
          {1, 1, 1, t, 290, 8, 4}, static_cast<std::uint64_t>(left), mix::window{.left = left + 30, .right = left},
          [left](const mix::index& w) { return w.query - w.key <= left + 30 && w.key - w.query <= left; },
          "window " + std::to_string(left + 30) + " " + std::to_string(left));
    }
  }
  for (index_t s = 33; s <= (cases::reduced_sweep ? 99 : 330); ++s) {
    cases::check_mask_at(
        {1, 1, 1, 33, s, 8, 4}, static_cast<std::uint64_t>(s), mix::window{.left = 70, .right = 20},
        [](const mix::index& w) { return w.query - w.key <= 70 && w.key - w.query <= 20; }, "window 70 20");
  }
}

TEST(attention_mask, window_to_both_sides) {
  for (const auto& [left, right] : {std::array<index_t, 2>{0, 0}, {3, 0}, {0, 3}, {5, 40}, {70, 2}, {1000, 1000}}) {
    check_mask(
        mix::window{.left = left, .right = right},
        [before = left, after = right](const mix::index& w) {
          return w.query - w.key <= before && w.key - w.query <= after;
        },
        "window " + std::to_string(left) + " " + std::to_string(right));
  }
}

}  // namespace
