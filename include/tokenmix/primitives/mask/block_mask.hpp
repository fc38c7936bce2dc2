// SPDX-License-Identifier: Apache-2.0
/// @file A block-sparse mask whose blocks are a tensor of truth values.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Queries and keys are cut into blocks, counted from row 0 and key 0; a query sees a key where the tensor has true for
/// their blocks; axes B and H of extent 1 are broadcast.
///
///     visible[batch][head][row / query_block][key / key_block],   row = query - (S - T) = 0 .. T - 1
///
/// The same as `block_pattern`, which takes lists instead of a matrix.
///
/// Shapes     visible: (B or 1, H or 1, Tb, Sb), Tb = ceil(T / query_block), Sb = ceil(S / key_block); any strides; the mask
///            refers to it.
/// Cost       runs are whole blocks; `none` and `all` unless a query tile covers blocks that differ.
/// Errors     shape_error if an extent is none of these, value_error if a block size is below 1.
struct block_mask {
  using is_mask = void;
  index_t query_block = 64;                 ///< >= 1
  index_t key_block = 64;                   ///< >= 1
  tensor_view<const bool, 4> visible = {};  // (B | 1, H | 1, Tb, Sb)

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return visible(broadcast(0, pair.batch), broadcast(1, pair.head), pair.query_row() / query_block,
                     pair.key / key_block);
    });
  }

  constexpr span run(const tokenmix::query_block& block, index_t key) const {
    const index_t batch = broadcast(0, block.batch);
    const index_t head_first = broadcast(1, block.head_first), head_last = broadcast(1, block.head_last - 1) + 1;
    const index_t row_first = block.row_first() / query_block, row_last = (block.row_last() - 1) / query_block + 1;
    const auto coverage_of = [&](index_t column) {
      bool any = false, all = true;
      for (index_t head = head_first; head < head_last; ++head) {
        for (index_t row = row_first; row < row_last; ++row) {
          const bool seen = visible(batch, head, row, column);
          any = any || seen;
          all = all && seen;
        }
      }
      return all ? coverage::all : any ? coverage::some : coverage::none;
    };
    const index_t column = key / key_block;
    const index_t columns = std::min((block.keys - 1) / key_block + 1, column + detail::scan_limit);
    const coverage found = coverage_of(column);
    index_t end = column + 1;
    while (end < columns && coverage_of(end) == found) ++end;
    return {key, std::min(end * key_block, block.keys), found};
  }
  constexpr std::uint64_t seen_by(const tokenmix::query_block& block, index_t key) const {
    const index_t batch = broadcast(0, block.batch), head = broadcast(1, block.head_first), column = key / key_block;
    return detail::seen_by_blocks(block, query_block, [&](index_t row) { return visible(batch, head, row, column); });
  }

  void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    if (query_block < 1) detail::fail_value("block_mask.query_block is ", query_block, ", expected 1 or more");
    if (key_block < 1) detail::fail_value("block_mask.key_block is ", key_block, ", expected 1 or more");
    detail::check_view("block_mask.visible", visible);
    const extents<4> expected{batches, heads, detail::blocks_of(queries, query_block),
                              detail::blocks_of(keys, key_block)};
    for (std::size_t axis = 0; axis < 4; ++axis) {
      if (visible.extent(axis) != expected[axis] && !(axis < 2 && visible.extent(axis) == 1)) {
        detail::fail_shape("block_mask.visible is ", detail::shape_text(visible.shape()),
                           ", expected (B or 1, H or 1, Tb, Sb) = ", detail::shape_text(expected));
      }
    }
  }

 private:
  constexpr index_t broadcast(std::size_t axis, index_t i) const { return visible.extent(axis) == 1 ? 0 : i; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
