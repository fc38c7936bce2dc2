// SPDX-License-Identifier: Apache-2.0
// Every mask of up to three queries over three keys, alone and together with causal and with a window.
//
// Budget: exact zeros and exact -inf for rows that see nothing, the float gate elsewhere; keys that nobody sees hold NaN.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// All masks over T queries and S keys with T, S <= 3, as bits of a word, alone and together with masks that have spans; once
/// as they are and once with the rows repeated up to a whole tile, since few queries are computed another way.
template <class Combine>
void every_small_mask(const Combine& combine, const std::function<bool(const mix::index&)>& other,
                      const std::string& name, index_t repeat) {
  for (index_t t = 1; t <= 3; ++t) {
    for (index_t s = 1; s <= 3; ++s) {
      const index_t rows = t * repeat;
      cases::operands<> x({1, 2, 1, rows, s, 5, 3}, static_cast<std::uint64_t>(10 * t + s));
      auto problem = problem_of(x);
      const mix::tensor<float, 4> k = x.k, v = x.v;
      for (unsigned word = 0; word < (1u << (t * s)); ++word) {
        const auto sees = [word, t = t](const mix::index& w) {
          return (word >> (w.query_row() % t * w.keys + w.key) & 1u) != 0;
        };
        const std::function<bool(const mix::index&)> both = [&](const mix::index& w) { return sees(w) && other(w); };
        x.k = k;
        x.v = v;
        for (index_t key = 0; key < s; ++key) {  // nobody sees it: poison
          bool seen = false;
          for (index_t row = 0; row < rows; ++row) seen = seen || both({0, 0, row + s - rows, key, rows, s});
          for (index_t i = 0; !seen && i < 5; ++i) x.k(0, 0, key, i) = nan;
          for (index_t i = 0; !seen && i < 3; ++i) x.v(0, 0, key, i) = nan;
        }
        x.forget_results();
        mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = combine(sees), .lse = x.lse.view()});
        problem.mask = both;
        const auto expected = reference::softmax_attention(problem);
        const std::string label =
            name + " T" + std::to_string(rows) + " S" + std::to_string(s) + " word " + std::to_string(word);
        expect_within_gate<float, float, float>(x.out, x, expected, label);
        expect_lse_within_gate(x, expected, label);
        for (index_t h = 0; h < 2; ++h)
          for (index_t row = 0; row < rows; ++row) {
            if (expected.lse[static_cast<std::size_t>(h * rows + row)] > -std::numeric_limits<double>::infinity())
              continue;
            for (index_t i = 0; i < 3; ++i)
              ASSERT_TRUE(cases::same_bits(x.out(0, h, row, i), 0.0f)) << label << ": not an exact zero";
            ASSERT_EQ(x.lse(0, h, row), -infinity) << label;
          }
        ASSERT_FALSE(testing::Test::HasFailure()) << label;
      }
    }
  }
}

TEST(attention_small_masks, every_mask_up_to_three_by_three) {
  for (index_t repeat : {1, 8})
    every_small_mask([](const auto& sees) { return sees; }, [](const mix::index&) { return true; }, "alone", repeat);
}

TEST(attention_small_masks, every_mask_up_to_three_by_three_and_causal) {
  for (index_t repeat : {1, 8})
    every_small_mask([](const auto& sees) { return mix::causal{} & sees; },
                     [](const mix::index& w) { return w.key <= w.query; }, "causal", repeat);
}

TEST(attention_small_masks, every_mask_up_to_three_by_three_and_a_window) {
  for (index_t repeat : {1, 8})
    every_small_mask([](const auto& sees) { return mix::window{.left = 1, .right = 0} & sees; },
                     [](const mix::index& w) { return w.key <= w.query && w.query - w.key <= 1; }, "window", repeat);
}

}  // namespace
