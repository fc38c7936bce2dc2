// SPDX-License-Identifier: Apache-2.0
/// @file Parts of the operands of an attention: a few queries of a few heads, and the keys up to the last of them.
#pragma once

#include <tokenmix/core/tensor.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Heads [head, head + heads) and rows [row, row + count) of one batch element, as a tensor of one batch element.
template <class E>
tensor_view<E, 4> part_of(const tensor_view<E, 4>& x, index_t batch, index_t head, index_t heads, index_t row,
                          index_t count) {
  const bool empty = heads == 0 || count == 0 || x.extent(3) == 0;
  return tensor_view<E, 4>(empty ? x.data() : x.row(batch, head, row), {1, heads, count, x.extent(3)}, x.strides());
}

/// The sizes of a causal attention whose queries are the last T of S positions, cut into blocks of rows.
struct causal_rows {
  index_t queries;  // T
  index_t keys;     // S
  index_t rows;     // of a block

  constexpr index_t blocks() const { return (queries + rows - 1) / rows; }
  constexpr index_t first(index_t i) const { return i * rows; }
  constexpr index_t count(index_t i) const { return std::min(rows, queries - i * rows); }
  /// Of a query; negative where there are more queries than keys.
  constexpr index_t position(index_t query) const { return query + keys - queries; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
