// SPDX-License-Identifier: Apache-2.0
// Masks that are tables of pairs or blocks: dense_mask, block_mask, block_pattern, against the table read in plain loops.
// Classes of defects: 7 (tables end at a page that may not be touched), 13, 14 (strides), 15 (bad indices).
#include "primitives/mask/mask_testing.hpp"
#include "reference/guarded.hpp"

#include <algorithm>

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::sweep_shapes;

namespace {

/// Truth values in patches, so that runs of all three kinds and of many lengths occur.
template <std::size_t R>
void fill_patches(bool* values, const mix::extents<R>& shape, double dense, std::mt19937& random) {
  index_t n = 1;
  for (index_t extent : shape) n *= extent;
  std::bernoulli_distribution change(0.3), seen(dense);
  bool value = seen(random);
  for (index_t i = 0; i < n; ++i) {
    if (change(random)) value = seen(random);
    values[i] = value;
  }
}

TEST(dense_mask, every_broadcast) {
  for (unsigned broadcast = 0; broadcast < 16; ++broadcast) {
    for (double dense : {0.1, 0.6, 1.0}) {
      sweep_shapes(
          exactness::full,
          [&](const auto& shape, auto& random, const auto& expect) {
            mix::extents<4> e{shape.batches, shape.heads, shape.queries, shape.keys};
            for (std::size_t axis = 0; axis < 4; ++axis) {
              if ((broadcast >> axis & 1u) != 0) e[axis] = 1;
            }
            mix::tensor<bool, 4> table(e);
            fill_patches<4>(table.data(), e, dense, random);
            expect(mix::dense_mask{table}, [&](const mix::index& i) {
              const index_t row = i.query - i.keys + i.queries;
              return table(e[0] == 1 ? 0 : i.batch, e[1] == 1 ? 0 : i.head, e[2] == 1 ? 0 : row, e[3] == 1 ? 0 : i.key);
            });
          },
          2, 3);
      if (HasFailure()) return;
    }
  }
}

// No byte beside the table is read, by runs (64 keys at a time) or by registers that reach past the end.
TEST(dense_mask, stays_inside_its_table) {
  for (auto side : {mix::reference::flush::end, mix::reference::flush::start}) {
    sweep_shapes(
        exactness::full,
        [&](const auto& shape, auto& random, const auto& expect) {
          const mix::extents<4> e{2, 2, shape.queries, shape.keys};
          mix::reference::guarded_buffer<bool> table(4 * shape.queries * shape.keys, side);
          fill_patches<4>(table.data(), e, 0.7, random);
          const mix::tensor_view<const bool, 4> view(table.data(), e);
          expect(mix::dense_mask{view},
                 [&](const mix::index& i) { return view(i.batch, i.head, i.query - i.keys + i.queries, i.key); });
        },
        2, 2);
  }
}

TEST(dense_mask, any_strides) {
  sweep_shapes(
      exactness::full,
      [&](const auto& shape, auto& random, const auto& expect) {
        // (S, T, H, B) in memory, rows backwards.
        mix::tensor<bool, 4> memory({shape.keys, shape.queries, shape.heads, shape.batches});
        fill_patches<4>(memory.data(), memory.shape(), 0.6, random);
        const auto turned = mix::tensor_view<const bool, 4>(memory).permuted({3, 2, 1, 0});
        mix::extents<4> strides = turned.strides();
        strides[2] = -strides[2];
        const index_t last_row = std::max(shape.queries - 1, index_t{0});
        const bool* last = memory.empty() ? nullptr : memory.data() + last_row * turned.stride(2);
        const mix::tensor_view<const bool, 4> view(last, turned.shape(), strides);
        expect(mix::dense_mask{view}, [&](const mix::index& i) {
          return memory(i.key, last_row - (i.query - i.keys + i.queries), i.head, i.batch);
        });
      },
      2, 2);
}

struct block_sizes {
  index_t query;
  index_t key;
};
constexpr block_sizes sizes[] = {{1, 1}, {2, 3}, {4, 2}, {5, 16}, {64, 64}};

mix::tensor<bool, 4> random_blocks(index_t batches, index_t heads, const mix::testing::mask_shape& shape,
                                   block_sizes size, std::mt19937& random) {
  const index_t rows = (shape.queries + size.query - 1) / size.query, columns = (shape.keys + size.key - 1) / size.key;
  mix::tensor<bool, 4> blocks({batches, heads, rows, columns});
  fill_patches<4>(blocks.data(), blocks.shape(), 0.5, random);
  return blocks;
}

TEST(block_mask, whole_blocks) {
  for (block_sizes size : sizes) {
    for (bool shared : {false, true}) {
      SCOPED_TRACE("blocks of " + std::to_string(size.query) + " x " + std::to_string(size.key));
      sweep_shapes(
          exactness::full,
          [&](const auto& shape, auto& random, const auto& expect) {
            const index_t batches = shared ? 1 : shape.batches, heads = shared ? 1 : shape.heads;
            const mix::tensor<bool, 4> blocks = random_blocks(batches, heads, shape, size, random);
            expect(mix::block_mask{.query_block = size.query, .key_block = size.key, .visible = blocks},
                   [&](const mix::index& i) {
                     return blocks(shared ? 0 : i.batch, shared ? 0 : i.head,
                                   (i.query - i.keys + i.queries) / size.query, i.key / size.key);
                   });
          },
          2, 3);
      if (HasFailure()) return;
    }
  }
}

TEST(block_pattern, lists_of_blocks) {
  for (block_sizes size : sizes) {
    for (bool shared : {false, true}) {
      SCOPED_TRACE("blocks of " + std::to_string(size.query) + " x " + std::to_string(size.key));
      sweep_shapes(
          exactness::full,
          [&](const auto& shape, auto& random, const auto& expect) {
            const index_t batches = shared ? 1 : shape.batches, heads = shared ? 1 : shape.heads;
            const mix::tensor<bool, 4> blocks = random_blocks(batches, heads, shape, size, random);
            const index_t rows = blocks.extent(2);
            mix::tensor<index_t, 3> offsets({batches, heads, rows + 1});
            std::vector<index_t> columns{-77};  // before the first offset: never looked at
            for (index_t b = 0; b < batches; ++b) {
              for (index_t h = 0; h < heads; ++h) {
                for (index_t row = 0; row < rows; ++row) {
                  offsets(b, h, row) = static_cast<index_t>(columns.size());
                  for (index_t column = 0; column < blocks.extent(3); ++column) {
                    if (blocks(b, h, row, column)) columns.push_back(column);
                  }
                }
                offsets(b, h, rows) = static_cast<index_t>(columns.size());
              }
            }
            const mix::reference::guarded_buffer<index_t> guarded(columns.data(), static_cast<index_t>(columns.size()));
            expect(mix::block_pattern{.query_block = size.query,
                                      .key_block = size.key,
                                      .offsets = offsets,
                                      .columns = {guarded.data(), columns.size()}},
                   [&](const mix::index& i) {
                     return blocks(shared ? 0 : i.batch, shared ? 0 : i.head,
                                   (i.query - i.keys + i.queries) / size.query, i.key / size.key);
                   });
          },
          2, 3);
      if (HasFailure()) return;
    }
  }
}

// The walk over a long list jumps from gap to gap.
TEST(block_pattern, long_rows) {
  std::vector<index_t> columns;
  for (index_t c = 0; c < 1000; ++c) {
    if (c % 100 != 99 && c != 500) columns.push_back(c);
  }
  mix::tensor<index_t, 3> offsets({1, 1, 2});
  offsets(0, 0, 1) = static_cast<index_t>(columns.size());
  const mix::block_pattern mask{.query_block = 16, .key_block = 8, .offsets = offsets, .columns = columns};
  mask.check(1, 4, 16, 8000);
  std::vector<mix::span> found;
  for (const mix::span& s :
       mix::spans(mask, {.head_last = 4, .query_first = 7984, .query_last = 8000, .queries = 16, .keys = 8000})) {
    found.push_back(s);
  }
  std::vector<mix::span> expected;
  for (index_t hundred = 0; hundred < 10; ++hundred) {
    const index_t begin = hundred == 5 ? 501 : hundred * 100;
    expected.push_back({begin * 8, (hundred * 100 + 99) * 8, mix::coverage::all});
  }
  EXPECT_EQ(found, expected);
}

#if TOKENMIX_EXCEPTIONS
template <class Error, class Mask>
std::string message_of(const Mask& mask) {
  try {
    mix::mask_check(mask, 2, 3, 4, 8);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(errors, dense_shapes) {
  const mix::tensor<bool, 4> fits({2, 1, 4, 8}), other({2, 3, 4, 7});
  EXPECT_EQ(message_of<mix::shape_error>(mix::dense_mask{fits}), "no error");
  EXPECT_EQ(message_of<mix::shape_error>(mix::dense_mask{other}),
            "dense_mask.visible is (2, 3, 4, 7), expected (B, H, T, S) = (2, 3, 4, 8) with any of them 1");
  EXPECT_NE(message_of<mix::shape_error>(mix::dense_mask{}), "no error");
}

TEST(errors, block_mask) {
  const mix::tensor<bool, 4> fits({1, 3, 2, 3}), other({2, 3, 1, 3});
  EXPECT_EQ(message_of<mix::shape_error>(mix::block_mask{2, 3, fits}), "no error");
  EXPECT_EQ(message_of<mix::shape_error>(mix::block_mask{2, 3, other}),
            "block_mask.visible is (2, 3, 1, 3), expected (B or 1, H or 1, Tb, Sb) = (2, 3, 2, 3)");
  EXPECT_EQ(message_of<mix::value_error>(mix::block_mask{0, 3, fits}),
            "block_mask.query_block is 0, expected 1 or more");
  EXPECT_EQ(message_of<mix::value_error>(mix::block_mask{2, -3, fits}),
            "block_mask.key_block is -3, expected 1 or more");
}

TEST(errors, block_pattern) {
  mix::tensor<index_t, 3> offsets({1, 1, 3});
  offsets(0, 0, 1) = 2;
  offsets(0, 0, 2) = 3;
  std::vector<index_t> columns{0, 2, 1};
  const auto message = [&](index_t query_block = 2, index_t key_block = 3) {
    const mix::block_pattern mask{query_block, key_block, offsets, columns};
    const std::string of_value = message_of<mix::value_error>(mask);
    return of_value;
  };
  EXPECT_EQ(message(), "no error");
  EXPECT_EQ(message(0), "block_pattern.query_block is 0, expected 1 or more");
  EXPECT_EQ(message(2, 0), "block_pattern.key_block is 0, expected 1 or more");
  for (index_t bad :
       {index_t{-1}, index_t{3}, std::numeric_limits<index_t>::max(), std::numeric_limits<index_t>::min()}) {
    columns[2] = bad;
    EXPECT_EQ(message(), "block_pattern.columns[2] is " + std::to_string(bad) + ", k has 3 blocks of 3 keys");
  }
  columns = {2, 2, 1};
  EXPECT_EQ(message(), "block_pattern.columns[1] is 2 after 2: the columns of a row of blocks ascend");
  columns = {0, 2, 1};
  for (index_t bad :
       {index_t{-1}, index_t{4}, std::numeric_limits<index_t>::max(), std::numeric_limits<index_t>::min()}) {
    offsets(0, 0, 1) = bad;
    EXPECT_EQ(message(), "block_pattern.offsets(0, 0, 1) is " + std::to_string(bad) +
                             ", expected 0 to 3: offsets do not decrease, columns has 3 entries");
  }
  offsets(0, 0, 0) = -1;
  EXPECT_EQ(message(),
            "block_pattern.offsets(0, 0, 0) is -1, expected 0 to 3: offsets do not decrease, columns has 3 entries");
  const mix::tensor<index_t, 3> other({1, 2, 3});
  EXPECT_EQ((message_of<mix::shape_error>(mix::block_pattern{2, 3, other, columns})),
            "block_pattern.offsets is (1, 2, 3), expected (B or 1, H or 1, Tb + 1) = (2, 3, 3)");
}
#endif

}  // namespace
