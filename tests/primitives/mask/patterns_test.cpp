// SPDX-License-Identifier: Apache-2.0
// The sparse patterns against their formulas: strided, fixed, axial, log-sparse, vertical-slash, random blocks, BigBird.
#include "primitives/mask/mask_testing.hpp"

#include <set>

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::sweep_shapes;

namespace {

index_t block_of(index_t position, index_t block) {
  return position >= 0 ? position / block : -((-position + block - 1) / block);
}

TEST(patterns, fixed_and_strided) {
  for (const index_t block : {1, 3, 16}) {
    for (const index_t summary : {index_t{0}, index_t{1}, block}) {
      sweep_shapes(exactness::full, [&](const auto&, auto&, const auto& expect) {
        expect(mix::fixed_pattern{.block = block, .summary = summary}, [=](const mix::index& i) {
          return block_of(i.query, block) == i.key / block || i.key % block >= block - summary;
        });
      });
      if (HasFailure()) return;
    }
  }
  sweep_shapes(exactness::none, [&](const auto&, auto&, const auto& expect) {
    expect(mix::strided(5),
           [](const mix::index& i) { return std::abs(i.query - i.key) < 5 || (i.query - i.key) % 5 == 0; });
  });
}

TEST(patterns, axial_rows_and_columns) {
  sweep_shapes(exactness::full, [&](const auto&, auto&, const auto& expect) {
    expect(mix::axial{.width = 7}, [](const mix::index& i) { return block_of(i.query, 7) == i.key / 7; });
  });
  sweep_shapes(exactness::none, [&](const auto&, auto&, const auto& expect) {
    expect(mix::axial{.width = 7, .along = mix::grid_line::column},
           [](const mix::index& i) { return (i.query - i.key) % 7 == 0; });
  });
}

TEST(patterns, log_sparse) {
  const std::set<index_t> seen{0, 1, 2, 4, 8, 16, 32, 64, 128, 256};
  sweep_shapes(exactness::full, [&](const auto&, auto&, const auto& expect) {
    expect(mix::log_sparse{}, [&](const mix::index& i) { return seen.contains(i.query - i.key); });
  });
}

TEST(patterns, vertical_slash) {
  sweep_shapes(
      exactness::full,
      [&](const auto& shape, auto& random, const auto& expect) {
        const index_t n = std::min<index_t>(shape.keys, 3);
        mix::tensor<index_t, 2> keys({2, n}), distances({1, 3});
        std::vector<std::set<index_t>> vertical(2);
        for (index_t h = 0; h < 2; ++h) {
          auto& set = vertical[static_cast<std::size_t>(h)];
          while (static_cast<index_t>(set.size()) < n)
            set.insert(std::uniform_int_distribution<index_t>(0, shape.keys - 1)(random));
          std::copy(set.begin(), set.end(), keys.row(h));
        }
        distances(0, 0) = 0, distances(0, 1) = 2, distances(0, 2) = 9;
        expect(mix::vertical_slash{.keys = keys, .distances = distances}, [&](const mix::index& i) {
          const index_t d = i.query - i.key;
          return vertical[static_cast<std::size_t>(i.head)].contains(i.key) || d == 0 || d == 2 || d == 9;
        });
      },
      1, 2);
}

TEST(patterns, random_blocks_and_big_bird) {
  // As many distinct blocks as asked for, others for another seed, head or row.
  const mix::random_blocks drawn{.query_block = 4, .key_block = 8, .count = 3, .seed = 11};
  std::set<std::vector<index_t>> sets;
  for (index_t head = 0; head < 4; ++head) {
    for (index_t row = 0; row < 16; ++row) {
      std::vector<index_t> columns;
      for (index_t j = 0; j < 40; ++j)
        if (drawn.sees(head, row, j, 40)) columns.push_back(j);
      EXPECT_EQ(columns.size(), 3u);
      sets.insert(columns);
    }
  }
  EXPECT_GT(sets.size(), 55u);
  sweep_shapes(
      exactness::full,
      [&](const auto& shape, auto&, const auto& expect) {
        expect(drawn, [&](const mix::index& i) {
          return drawn.sees(i.head, (i.query - (shape.keys - shape.queries)) / 4, i.key / 8, (shape.keys + 7) / 8);
        });
        expect(mix::big_bird{.block = 8, .window = 1, .global = 1, .random = 2, .seed = 5}, [&](const mix::index& i) {
          const index_t row = (i.query - (shape.keys - shape.queries)) / 8, column = i.key / 8;
          return std::abs(row - column) <= 1 || row < 1 || column < 1 ||
                 mix::random_blocks{.count = 2, .seed = 5}.sees(i.head, row, column, (shape.keys + 7) / 8);
        });
      },
      1, 2);
}

template <class Mask>
void expect_refused(const Mask& mask, const std::string& message) {
  try {
    mix::mask_check(mask, 1, 2, 16, 16);
    ADD_FAILURE() << "not refused: " << message;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
  }
}

TEST(patterns, errors) {
  expect_refused(mix::fixed_pattern{.block = 0}, "fixed_pattern.block is 0");
  expect_refused(mix::fixed_pattern{.block = 4, .summary = 5}, "fixed_pattern.summary is 5");
  expect_refused(mix::strided(0), "window.left is -1");
  expect_refused(mix::axial{.width = 0}, "axial.width is 0");
  expect_refused(mix::random_blocks{.count = 65}, "random_blocks.count is 65");
  expect_refused(mix::big_bird{.window = -1}, "big_bird.window is -1");
  mix::tensor<index_t, 2> list({1, 3}, 4);
  expect_refused(mix::vertical_slash{.keys = list}, "vertical_slash.keys(0, 1) is 4 after 4");
  list(0, 1) = 16;
  expect_refused(mix::vertical_slash{.keys = list}, "vertical_slash.keys(0, 1) is 16, expected 0 to 15");
}

}  // namespace
