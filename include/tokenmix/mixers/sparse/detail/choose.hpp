// SPDX-License-Identifier: Apache-2.0
/// @file Who is chosen of the keys that a softmax attention scores: its tiles, with lists in the place of sums.
#pragma once

#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/primitives/gather/running_choice.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Offers the scores of a tile's leaf to the lists of its queries.
template <class Problem>
void take_tile(const query_lanes<Problem>& lanes, const query_tile<typename Problem::T>& t,
               running_choice<typename Problem::T>& choice) {
  lanes.each_scored(t, [&](const key_chunk& chunk, const auto* scores, const std::uint32_t* visible) {
    simd::with_tile_vectors(t.width / simd::lanes<typename Problem::T>, [&](auto v) TOKENMIX_LAMBDA_INLINE {
      choice.template take_columns<v>(scores, chunk.count, chunk.key, visible);
    });
  });
}

/// For every query of a problem the k keys with its largest scores; -infinity is none of them.
template <class Problem>
class key_choice {
 public:
  using T = typename Problem::T;

  key_choice(const Problem& problem, index_t k) : problem_(problem), k_(k) {}

  /// Calls rows(seq, key head, count, head_of, row_of, choice) for rows of one key head at a time: row i is query row_of(i) of the
  /// sequence under head head_of(i), and has list i of the choice, which is not finished.
  template <class Sequences, class Executor, class Rows>
  void run(const Sequences& sequences, Executor& on, const Rows& rows) const {
    scratch_frame frame;
    const index_t n = sequences.count(problem_.q.extent(0));
    const auto at = [&](index_t i) { return sequences.at(i, problem_.q.extent(2), problem_.source.most_keys()); };
    const task_numbers wide(n, frame, [&](index_t i) {
      const sequence seq = at(i);
      return few_queries<Problem>(seq) ? 0 : cut(seq).groups * problem_.heads();
    });
    run_tasks(
        on, wide.total(), [&](scratch_frame& shared) { return query_lanes<Problem>(problem_, shared); },
        [&](index_t task, query_lanes<Problem>& lanes) {
          const index_t i = wide.sequence_of(task);
          const sequence seq = at(i);
          const tile_cut<T> tiles = cut(seq);
          const index_t in_sequence = task - wide.first(i);
          lanes.go_to(seq, in_sequence / tiles.groups);
          // The last group first: under a causal mask it is the longest.
          choose_group(lanes, tiles, tiles.groups - 1 - in_sequence % tiles.groups, rows);
        });
    if constexpr (!reads_query<typename Problem::score_type>) {
      const task_numbers few(n, frame, [&](index_t i) {
        const sequence seq = at(i);
        return few_queries<Problem>(seq) ? row_blocks(seq) * problem_.source.heads() : 0;
      });
      run_tasks(on, few.total(), [&](index_t task) {
        const index_t i = few.sequence_of(task);
        choose_few(at(i), task - few.first(i), rows);
      });
    }
  }

 private:
  // Tiles go alone: with the lists of several the cache next to the core would overflow.
  tile_cut<T> cut(const sequence& seq) const { return tile_cut<T>::of(seq.queries, 0, 0); }
  index_t row_blocks(const sequence& seq) const {
    return (seq.queries * problem_.group() + most_key_lane_rows - 1) / most_key_lane_rows;
  }

  template <class Rows>
  void choose_group(query_lanes<Problem>& lanes, const tile_cut<T>& cut, index_t group, const Rows& rows) const {
    scratch_frame frame;
    const sequence& seq = lanes.seq();
    tile_group<T> tiles = load_group(lanes, cut, group, frame);
    auto* choices = frame.take<running_choice<T>>(tiles.count);
    for (index_t i = 0; i < tiles.count; ++i)
      choices[i] = running_choice<T>(tiles.tiles[i].count, k_, seq.keys, minus_infinity<T>, frame);
    for_each_leaf(lanes, tiles, [&](query_tile<T>& t) { take_tile(lanes, t, choices[&t - tiles.begin()]); });
    const index_t head = lanes.head();
    for (index_t i = 0; i < tiles.count; ++i) {
      const index_t first = tiles.tiles[i].first_row;
      rows(
          seq, head / problem_.group(), tiles.tiles[i].count, [&](index_t) { return head; },
          [&](index_t r) { return first + r; }, choices[i]);
    }
  }

  template <class Rows>
  void choose_few(const sequence& seq, index_t in_sequence, const Rows& rows) const {
    scratch_frame frame;
    const index_t key_head = in_sequence / row_blocks(seq);
    const index_t first = in_sequence % row_blocks(seq) * most_key_lane_rows;
    const index_t count = std::min(most_key_lane_rows, seq.queries * problem_.group() - first);
    key_lanes<Problem> lanes(problem_, seq, key_head, first, count, frame);
    running_choice<T> choice(count, k_, seq.keys, minus_infinity<T>, frame);
    T* largest = frame.take<T>(count);
    std::fill_n(largest, count, minus_infinity<T>);
    for (index_t leaf = next_leaf(problem_.mask, lanes.block(), 0); leaf != none_left;
         leaf = next_leaf(problem_.mask, lanes.block(), (leaf + 1) * softmax_leaf_keys)) {
      const leaf_of_chunks chunks = lanes.score(leaf, largest);
      for (index_t i = 0; i < chunks.count; ++i) {
        const key_chunk& chunk = chunks.chunks[static_cast<std::size_t>(i)];
        for (index_t r = 0; r < count; ++r) choice.take_row(r, lanes.scores_of(r, i), chunk.count, chunk.key, nullptr);
      }
    }
    rows(
        seq, key_head, count, [&](index_t r) { return lanes.head_of(r); },
        [&](index_t r) { return lanes.query_row_of(r); }, choice);
  }

  const Problem& problem_;
  index_t k_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
