// SPDX-License-Identifier: Apache-2.0
// Masks without tables against their formulas: causal (both alignments), window, first_keys, prefix_lm, dilated, all_keys.
// Classes of defects: 9 (alignment), 10 (window off by one), 13 (empty extents).
#include "primitives/mask/mask_testing.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::sweep_shapes;

namespace {

TEST(all_keys, hides_nothing) {
  sweep_shapes(exactness::full, [](const auto&, auto&, const auto& expect) {
    expect(mix::all_keys{}, [](const mix::index&) { return true; });
  });
}

TEST(causal, ends_at_the_query_aligned_to_the_end) {
  sweep_shapes(exactness::full, [](const auto& shape, auto&, const auto& expect) {
    // Row T - 1 sees key S - 1, in rows and keys alone, so that no shared notion of position can be wrong twice.
    expect(mix::causal{}, [shape](const mix::index& i) {
      const index_t row = i.query - shape.keys + shape.queries;
      return (shape.keys - 1) - i.key >= (shape.queries - 1) - row;
    });
  });
}

TEST(causal_top_left, ends_at_the_row_aligned_to_the_start) {
  sweep_shapes(exactness::full, [](const auto& shape, auto&, const auto& expect) {
    expect(mix::causal_top_left{},
           [shape](const mix::index& i) { return i.key <= i.query - shape.keys + shape.queries; });
  });
}

TEST(causal, alignments_differ_unless_square) {
  EXPECT_EQ(mix::render(mix::causal{}, 2, 4), "###.\n####\n");
  EXPECT_EQ(mix::render(mix::causal_top_left{}, 2, 4), "#...\n##..\n");
  EXPECT_EQ(mix::render(mix::causal{}, 4, 2), "..\n..\n#.\n##\n");
  EXPECT_EQ(mix::render(mix::causal_top_left{}, 4, 2), "#.\n##\n##\n##\n");
  EXPECT_EQ(mix::render(mix::causal{}, 3, 3), mix::render(mix::causal_top_left{}, 3, 3));
}

bool near(index_t query, index_t key, index_t left, index_t right) {
  return (left == mix::unlimited || query - key <= left) && (right == mix::unlimited || key - query <= right);
}

TEST(window, both_sides_of_every_size) {
  for (index_t left : {index_t{0}, index_t{1}, index_t{2}, index_t{5}, index_t{33}, mix::unlimited}) {
    for (index_t right : {index_t{0}, index_t{1}, index_t{3}, mix::unlimited}) {
      SCOPED_TRACE("left " + std::to_string(left) + " right " + std::to_string(right));
      sweep_shapes(exactness::full, [=](const auto&, auto&, const auto& expect) {
        expect(mix::window{.left = left, .right = right},
               [=](const mix::index& i) { return near(i.query, i.key, left, right); });
      });
      if (HasFailure()) return;
    }
  }
}

TEST(window, with_causal_for_windows_around_the_length) {
  for (index_t size = 1; size <= 9; ++size) {
    for (index_t queries = std::max(size - 2, index_t{1}); queries <= size + 2; ++queries) {
      for (index_t keys = std::max(size - 2, index_t{1}); keys <= size + 2; ++keys) {
        std::mt19937 random(7);
        const auto plain = [=](const mix::index& i) { return i.key <= i.query && i.key > i.query - size; };
        mix::testing::expect_mask(mix::causal{} & mix::window{.left = size - 1}, plain, {1, 1, queries, keys},
                                  exactness::full, random);
        mix::testing::expect_mask(mix::window{.left = size - 1, .right = 0}, plain, {1, 1, queries, keys},
                                  exactness::full, random);
        if (HasFailure()) return;
      }
    }
  }
}

TEST(window, as_long_as_the_sequence_is_causal) {
  EXPECT_EQ(mix::render(mix::causal{} & mix::window{.left = 6}, 7, 7), mix::render(mix::causal{}, 7, 7));
  EXPECT_NE(mix::render(mix::causal{} & mix::window{.left = 5}, 7, 7), mix::render(mix::causal{}, 7, 7));
}

TEST(window, no_size_overflows) {
  constexpr index_t largest = std::numeric_limits<index_t>::max();
  for (index_t side : {mix::unlimited, mix::unlimited + 1, largest - 1, largest}) {
    EXPECT_EQ(mix::render(mix::window{.left = side, .right = side}, 5, 3), mix::render(mix::all_keys{}, 5, 3));
    for (const auto& s :
         mix::spans(mix::window{.left = side}, {.query_first = -2, .query_last = 3, .queries = 5, .keys = 3}))
      EXPECT_EQ(s, (mix::span{0, 3, mix::coverage::all}));
  }
}

TEST(window, sliding_window_with_sinks_visits_two_short_spans) {
  const auto mask = mix::causal{} & (mix::window{.left = 511} | mix::first_keys{4});
  std::vector<mix::span> found;
  for (const mix::span& s :
       mix::spans(mask, {.query_first = 8000, .query_last = 8064, .queries = 8192, .keys = 8192})) {
    found.push_back(s);
  }
  using enum mix::coverage;
  EXPECT_EQ(found, (std::vector<mix::span>{{0, 4, all}, {7489, 7552, some}, {7552, 8001, all}, {8001, 8064, some}}));
}

TEST(first_keys, sees_the_first_keys) {
  for (index_t count : {0, 1, 3, 6, 50}) {
    sweep_shapes(exactness::full, [=](const auto&, auto&, const auto& expect) {
      expect(mix::first_keys{count}, [=](const mix::index& i) { return i.key < count; });
    });
  }
}

TEST(prefix_lm, one_prefix) {
  for (index_t prefix : {0, 1, 4, 20, 100}) {
    sweep_shapes(exactness::full, [=](const auto&, auto&, const auto& expect) {
      expect(mix::prefix_lm{.length = prefix}, [=](const mix::index& i) { return i.key < prefix || i.key <= i.query; });
    });
  }
}

TEST(prefix_lm, a_prefix_for_each_batch_element) {
  const std::vector<index_t> prefixes{3, 0, 17};
  sweep_shapes(
      exactness::full,
      [&](const auto&, auto&, const auto& expect) {
        expect(mix::prefix_lm{.lengths = prefixes}, [&](const mix::index& i) {
          return i.key < prefixes[static_cast<std::size_t>(i.batch)] || i.key <= i.query;
        });
      },
      3);
}

TEST(dilated, every_nth_key_from_the_query) {
  for (index_t dilation : {1, 2, 3, 4, 5, 6, 12, 24, 37, 64}) {
    SCOPED_TRACE("dilation " + std::to_string(dilation));
    sweep_shapes(exactness::full, [=](const auto&, auto&, const auto& expect) {
      expect(mix::dilated{dilation}, [=](const mix::index& i) {
        index_t distance = i.query < i.key ? i.key - i.query : i.query - i.key;
        while (distance >= dilation) distance -= dilation;
        return distance == 0;
      });
    });
    if (HasFailure()) return;
  }
}

// The lanes compute with remainders in 32 bits: far positions, odd and even dilations, both signs.
TEST(dilated, far_positions) {
  using positions = mix::simd::positions<float>;
  for (index_t dilation : {index_t{1}, index_t{2}, index_t{7}, index_t{96}, index_t{1000003}, index_t{1} << 29,
                           (index_t{1} << 30) - 1, index_t{1} << 30, (index_t{1} << 30) + 1, (index_t{1} << 40) + 5}) {
    for (index_t base : {index_t{0}, index_t{5}, (index_t{1} << 31) - 3, (index_t{1} << 40) + 11, index_t{7000021}}) {
      for (index_t key : {index_t{0}, base, base + dilation, base - 3 * dilation + 2, base + 5}) {
        for (index_t step : {index_t{1}, index_t{-1}, (index_t{1} << 30) / 16, -(index_t{1} << 30) / 16}) {
          const auto query = positions::generate([&](index_t i) { return base + step * i; });
          const mix::query_lanes_index<float> where{.query = query, .key = key};
          const auto answer = mix::mask_at(mix::dilated{dilation}, where);
          for (index_t i = 0; i < mix::simd::lanes<float>; ++i) {
            ASSERT_EQ(mix::testing::lane_of_answer(answer, i), (base + step * i - key) % dilation == 0)
                << dilation << " " << base << " " << key << " " << step << " lane " << i;
          }
        }
      }
    }
  }
}

TEST(dilated, with_causal_window) {
  sweep_shapes(exactness::none, [](const auto&, auto&, const auto& expect) {
    expect(mix::causal{} & mix::window{.left = 9} & mix::dilated{3}, [](const mix::index& i) {
      return i.key == i.query || i.key == i.query - 3 || i.key == i.query - 6 || i.key == i.query - 9;
    });
  });
}

#if TOKENMIX_EXCEPTIONS
template <class Error, class Mask>
std::string message_of(const Mask& mask, index_t batches = 2, index_t heads = 3, index_t queries = 4,
                       index_t keys = 8) {
  try {
    mix::mask_check(mask, batches, heads, queries, keys);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(errors, numbers_out_of_range) {
  using mix::value_error;
  EXPECT_EQ(message_of<value_error>(mix::window{.left = -1}),
            "window.left is -1, expected 0 or more tokens, or tokenmix::unlimited");
  EXPECT_EQ(message_of<value_error>(mix::window{.right = -2}),
            "window.right is -2, expected 0 or more tokens, or tokenmix::unlimited");
  EXPECT_EQ(message_of<value_error>(mix::first_keys{-3}), "first_keys.count is -3, expected 0 or more keys");
  EXPECT_EQ(message_of<value_error>(mix::dilated{0}), "dilated.dilation is 0, expected 1 or more");
  EXPECT_EQ(message_of<value_error>(mix::prefix_lm{.length = -1}), "prefix_lm.length is -1, expected 0 or more");
  const std::vector<index_t> lengths{3, -4};
  EXPECT_EQ(message_of<value_error>(mix::prefix_lm{.lengths = lengths}),
            "prefix_lm.lengths[1] is -4, expected 0 or more");
  EXPECT_EQ(message_of<mix::shape_error>(mix::prefix_lm{.lengths = lengths}, 3),
            "prefix_lm.lengths has 2 entries, expected one per sequence: 3");
}

TEST(errors, are_found_inside_compositions) {
  EXPECT_NE(message_of<mix::value_error>(mix::causal{} & !(mix::first_keys{1} | mix::dilated{0})), "no error");
  EXPECT_NE(message_of<mix::value_error>(mix::mask_function{mix::window{.left = -1}}), "no error");
  EXPECT_EQ(message_of<mix::value_error>(mix::causal{} & mix::window{.left = 3}), "no error");
}
#endif

}  // namespace
