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
    run_tile_groups(
        problem_, n, at, [&](const sequence& seq) { return few_queries<Problem>(seq) ? tile_cut<T>{} : cut(seq); }, on,
        frame,
        [&](query_lanes<Problem>& lanes, const tile_cut<T>& tiles, index_t group) {
          choose_group(lanes, tiles, group, rows);
        });
    if constexpr (!reads_query<typename Problem::score_type>) {
      const task_numbers few = numbers_of_few_rows(problem_, n, at, frame);
      run_tasks(on, few.total(), [&](index_t task) {
        const index_t i = few.sequence_of(task);
        choose_few(at(i), few_rows::at(at(i), problem_.group(), task - few.first(i)), rows);
      });
    }
  }

 private:
  // Tiles go alone: with the lists of several the cache next to the core would overflow.
  tile_cut<T> cut(const sequence& seq) const { return tile_cut<T>::of(seq.queries, 0, 0); }

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
  void choose_few(const sequence& seq, const few_rows& few, const Rows& rows) const {
    scratch_frame frame;
    const auto& [key_head, first, count] = few;
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
