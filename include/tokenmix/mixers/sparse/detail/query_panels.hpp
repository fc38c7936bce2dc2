// SPDX-License-Identifier: Apache-2.0
/// @file The queries of a key head, cut into panels: what a task of a mixer that chooses blocks of keys takes at a time.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Consecutive queries of one sequence, in all query heads that share a key head: row r is query first + r / group of head
/// r % group among them, so that positions ascend with the rows.
struct query_panel {
  sequence seq;
  index_t key_head = 0;
  index_t group = 1;  ///< query heads of the key head
  index_t first = 0;  ///< query of the sequence
  index_t count = 0;  ///< queries

  constexpr index_t rows() const { return count * group; }
  constexpr index_t head() const { return key_head * group; }
  constexpr index_t head_of(index_t row) const { return head() + row % group; }
  constexpr index_t query_of(index_t row) const { return first + row / group; }
  /// The row of q and of the output.
  constexpr index_t query_row_of(index_t row) const { return seq.query_row + query_of(row); }
  /// Of a query counted from the first of the panel; negative where there are more queries than keys.
  constexpr index_t position(index_t query) const { return seq.first_position() + first + query; }
  constexpr index_t position_of(index_t row) const { return position(row / group); }
};

/// Rows of a panel: with many, a block of keys is shared by whole tiles of them; their states should stay in the outer cache.
inline constexpr index_t most_panel_rows = 1024;
inline constexpr index_t least_panel_rows = 256;

/// Runs f(panel, number of its sequence) for panels that together are all queries of all sequences. No choice made here changes a
/// bit of the result.
template <class Sequences, class Executor, class F>
void run_panels(const Sequences& sequences, index_t batches, index_t queries, index_t keys, index_t heads,
                index_t key_heads, Executor& on, F&& f) {
  scratch_frame frame;
  if (key_heads == 0) return;
  const index_t n = sequences.count(batches), group = heads / key_heads;
  index_t rows = 0;
  for (index_t i = 0; i < n; ++i) rows += sequences.at(i, queries, keys).queries * heads;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t wanted =
      workers == 1 ? most_panel_rows : std::clamp(rows / (4 * workers), least_panel_rows, most_panel_rows);
  const index_t most = std::max<index_t>(1, wanted / std::max<index_t>(group, 1));
  const auto panels = [&](const sequence& seq) { return (seq.queries + most - 1) / most; };
  const task_numbers numbers(n, frame, [&](index_t i) { return panels(sequences.at(i, queries, keys)) * key_heads; });
  run_tasks(on, numbers.total(), [&](index_t task) {
    const index_t i = numbers.sequence_of(task), inside = task - numbers.first(i);
    const sequence seq = sequences.at(i, queries, keys);
    const index_t all = panels(seq), part = inside % all;
    const index_t first = part * seq.queries / all, last = (part + 1) * seq.queries / all;
    f(query_panel{seq, inside / all, group, first, last - first}, i);
  });
}

/// Heads [head, head + heads) and rows [row, row + count) of one batch element, as a tensor of one batch element.
template <class E>
tensor_view<E, 4> part_of(const tensor_view<E, 4>& x, index_t batch, index_t head, index_t heads, index_t row,
                          index_t count) {
  const bool empty = heads == 0 || count == 0 || x.extent(3) == 0;
  return tensor_view<E, 4>(empty ? x.data() : x.row(batch, head, row), {1, heads, count, x.extent(3)}, x.strides());
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
