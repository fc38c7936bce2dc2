// SPDX-License-Identifier: Apache-2.0
/// @file A mask that is a tensor of truth values.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

#include <cstdint>
#include <cstring>  // std::memcpy

namespace tokenmix::inline TOKENMIX_ABI {

/// A query sees a key where the tensor says true; axes of extent 1 are broadcast.
///
///     visible[batch][head][row][key],   row = query - (S - T) = 0 .. T - 1
///
/// True means visible, as in PyTorch's scaled_dot_product_attention (the opposite of a padding mask there).
///
/// Shapes     visible: (B or 1, H or 1, T or 1, S or 1), any strides; the mask refers to it.
/// Cost       runs read the block's values, 64 keys at a time, so keys that nobody in the block sees are skipped.
/// Errors     shape_error if an extent is neither the tensors' nor 1.
struct dense_mask {
  using is_mask = void;
  tensor_view<const bool, 4> visible = {};  // (B | 1, H | 1, T | 1, S | 1)

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return visible(at(0, pair.batch), at(1, pair.head), at(2, pair.query_row()), at(3, pair.key));
    });
  }

  span run(const query_block& block, index_t key) const {
    const index_t batch = at(0, block.batch);
    const index_t head_first = at(1, block.head_first), head_last = at(1, block.head_last - 1) + 1;
    const index_t row_first = at(2, block.row_first()), row_last = at(2, block.row_last() - 1) + 1;
    const bool one_key = visible.extent(3) == 1;
    const index_t count = one_key ? 1 : std::min(detail::scan_limit, block.keys - key);

    // Byte j of the words says whether any query, or every query, sees key + j; bytes past the end stay as they are.
    constexpr std::size_t words = static_cast<std::size_t>(detail::scan_limit) / sizeof(std::uint64_t);
    std::uint64_t any[words] = {};
    std::uint64_t all[words];
    for (std::uint64_t& word : all) word = ~std::uint64_t{0};
    const index_t step = visible.stride(3);
    for (index_t head = head_first; head < head_last; ++head) {
      for (index_t row = row_first; row < row_last; ++row) {
        const bool* from = visible.row(batch, head, row, one_key ? 0 : key);
        std::uint64_t seen[words] = {};
        if (step == 1 && count == detail::scan_limit) {
          std::memcpy(seen, from, sizeof seen);
        } else {
          unsigned char bytes[sizeof seen] = {};
          for (index_t j = 0; j < count; ++j) bytes[j] = from[j * step] ? 1 : 0;
          std::memcpy(seen, bytes, sizeof seen);
        }
        for (std::size_t i = 0; i < words; ++i) {
          any[i] |= seen[i];
          all[i] &= seen[i];
        }
      }
    }
    unsigned char any_byte[sizeof any];
    unsigned char all_byte[sizeof all];
    std::memcpy(any_byte, any, sizeof any);
    std::memcpy(all_byte, all, sizeof all);
    index_t end = 1;
    while (end < count && any_byte[end] == any_byte[0] && all_byte[end] == all_byte[0]) ++end;
    const coverage found = all_byte[0] != 0 ? coverage::all : any_byte[0] != 0 ? coverage::some : coverage::none;
    return {key, one_key ? block.keys : key + end, found};
  }

  void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    detail::check_view("dense_mask.visible", visible);
    const extents<4> expected{batches, heads, queries, keys};
    for (std::size_t axis = 0; axis < 4; ++axis) {
      if (visible.extent(axis) != expected[axis] && visible.extent(axis) != 1) {
        detail::fail_shape("dense_mask.visible is ", detail::shape_text(visible.shape()),
                           ", expected (B, H, T, S) = ", detail::shape_text(expected), " with any of them 1");
      }
    }
  }

 private:
  constexpr index_t at(std::size_t axis, index_t i) const { return visible.extent(axis) == 1 ? 0 : i; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
