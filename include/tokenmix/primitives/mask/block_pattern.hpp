// SPDX-License-Identifier: Apache-2.0
/// @file A block-sparse mask in compressed rows: for each block of queries, the list of key blocks that it sees.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Queries and keys are cut into blocks, counted from row 0 and key 0; row block i of head h sees key block j if j is in its
/// list:
///
///     columns[offsets[batch][head][i]] .. columns[offsets[batch][head][i + 1] - 1],   ascending, without repetition
///     i = row / query_block, j = key / key_block,   row = query - (S - T) = 0 .. T - 1
///
/// Shapes     offsets: (B or 1, H or 1, Tb + 1), Tb = ceil(T / query_block), any strides; columns: one array for all; the mask
///            refers to both.
/// Cost       runs are whole blocks, found by binary search; `none` and `all` unless a query tile covers lists that differ.
///            check() reads every offset and every column once per call.
/// Errors     shape_error if offsets has another shape; value_error if a block size is below 1, an offset decreases or is
///            outside columns, a column is not above the one before it in its list or is not in [0, ceil(S / key_block)).
/// Source     the index of block-sparse kernels: Zaheer et al. 2020, BigBird, appendix D, for one.
struct block_pattern {
  using is_mask = void;
  index_t query_block = 64;                    ///< >= 1
  index_t key_block = 64;                      ///< >= 1
  tensor_view<const index_t, 3> offsets = {};  // (B | 1, H | 1, Tb + 1)
  std::span<const index_t> columns = {};

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return holds(list_of(pair.batch, pair.head, pair.query_row() / query_block), pair.key / key_block);
    });
  }

  constexpr span run(const tokenmix::query_block& block, index_t key) const {
    const index_t column = key / key_block;
    const index_t head_last = offsets.extent(1) == 1 ? block.head_first + 1 : block.head_last;
    const index_t row_first = block.row_first() / query_block, row_last = (block.row_last() - 1) / query_block + 1;
    bool any = false, all = true;
    index_t end = (block.keys - 1) / key_block + 1;
    for (index_t head = block.head_first; head < head_last; ++head) {
      for (index_t row = row_first; row < row_last; ++row) {
        const list columns_seen = list_of(block.batch, head, row);
        const index_t* found = std::lower_bound(columns_seen.first, columns_seen.last, column);
        const bool seen = found != columns_seen.last && *found == column;
        any = any || seen;
        all = all && seen;
        if (seen) {
          end = std::min(end, column + consecutive(found, columns_seen.last));
        } else if (found != columns_seen.last) {
          end = std::min(end, *found);
        }
      }
    }
    return {key, std::min(end * key_block, block.keys), all ? coverage::all : any ? coverage::some : coverage::none};
  }
  constexpr std::uint64_t seen_by(const tokenmix::query_block& block, index_t key) const {
    return detail::seen_by_blocks(block, query_block, [&](index_t row) {
      return holds(list_of(block.batch, block.head_first, row), key / key_block);
    });
  }

  void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    if (query_block < 1) detail::fail_value("block_pattern.query_block is ", query_block, ", expected 1 or more");
    if (key_block < 1) detail::fail_value("block_pattern.key_block is ", key_block, ", expected 1 or more");
    detail::check_view("block_pattern.offsets", offsets);
    const index_t rows = detail::blocks_of(queries, query_block);
    const index_t key_blocks = detail::blocks_of(keys, key_block);
    if ((offsets.extent(0) != batches && offsets.extent(0) != 1) ||
        (offsets.extent(1) != heads && offsets.extent(1) != 1) || offsets.extent(2) != rows + 1) {
      detail::fail_shape(
          "block_pattern.offsets is ", detail::shape_text(offsets.shape()),
          ", expected (B or 1, H or 1, Tb + 1) = ", detail::shape_text(extents<3>{batches, heads, rows + 1}));
    }
    const auto total = static_cast<index_t>(columns.size());
    for (index_t b = 0; b < offsets.extent(0); ++b) {
      for (index_t h = 0; h < offsets.extent(1); ++h) {
        for (index_t i = 0; i <= rows; ++i) {
          const index_t offset = offsets(b, h, i);
          const index_t least = i == 0 ? 0 : offsets(b, h, i - 1);
          if (offset < least || offset > total) {
            detail::fail_value("block_pattern.offsets(", b, ", ", h, ", ", i, ") is ", offset, ", expected ", least,
                               " to ", total, ": offsets do not decrease, columns has ", total, " entries");
          }
          for (index_t n = least; i > 0 && n < offset; ++n) check_column(n, least, key_blocks);
        }
      }
    }
  }

 private:
  struct list {
    const index_t* first;
    const index_t* last;
  };
  constexpr list list_of(index_t batch, index_t head, index_t row) const {
    const index_t* from = offsets.row(offsets.extent(0) == 1 ? 0 : batch, offsets.extent(1) == 1 ? 0 : head, row);
    return {columns.data() + from[0], columns.data() + from[offsets.stride(2)]};
  }

  static constexpr bool holds(const list& columns_seen, index_t column) {
    const index_t* found = std::lower_bound(columns_seen.first, columns_seen.last, column);
    return found != columns_seen.last && *found == column;
  }

  // How many columns from here on follow each other without a gap; they ascend, so position and value differ by a constant.
  static constexpr index_t consecutive(const index_t* first, const index_t* last) {
    index_t low = 1, high = last - first;
    while (low < high) {
      const index_t middle = low + (high - low) / 2;
      if (first[middle] - first[0] == middle) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  void check_column(index_t n, index_t list_first, index_t key_blocks) const {
    const index_t column = columns[static_cast<std::size_t>(n)];
    if (column < 0 || column >= key_blocks) {
      detail::fail_value("block_pattern.columns[", n, "] is ", column, ", k has ", key_blocks, " blocks of ", key_block,
                         " keys");
    }
    if (n > list_first && column <= columns[static_cast<std::size_t>(n - 1)]) {
      detail::fail_value("block_pattern.columns[", n, "] is ", column, " after ",
                         columns[static_cast<std::size_t>(n - 1)], ": the columns of a row of blocks ascend");
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
