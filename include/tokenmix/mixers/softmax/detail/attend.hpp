// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention over any key source: the tasks, and who runs them.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/mixers/softmax/detail/attention_tasks.hpp>
#include <tokenmix/mixers/softmax/detail/query_tiles.hpp>
#include <tokenmix/mixers/softmax/options.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <class Normalizer>
constexpr bool zero_logit_of() {
  if constexpr (Normalizer::sums_to_one) {
    return Normalizer::extra_zero_logit;
  } else {
    return false;
  }
}

template <class Problem, class Normalizer, class Result>
class attention {
 public:
  using T = typename Problem::T;

  attention(const Problem& problem, const Normalizer& normalizer, const Result& result)
      : problem_(problem), normalizer_(normalizer), result_(result) {}

  /// Attends with weights edited by `edit`, or as they are if it is no_edit.
  template <class Sequences, class Edit, class Executor>
  void run(const Sequences& sequences, const Edit& edit, Executor& on) const {
    scratch_frame frame;
    const index_t batches = problem_.q.extent(0);
    const index_t n = sequences.count(batches);
    const auto at = [&](index_t i) {
      sequence seq = sequences.at(i, problem_.q.extent(2), problem_.source.most_keys());
      seq.keys += problem_.source.extra_keys();
      return seq;
    };
    constexpr bool plain = std::is_same_v<Edit, no_edit>;
    run_tile_groups(
        problem_, n, at,
        [&](const sequence& seq) { return plain && few_queries<Problem>(seq) ? tile_cut<T>{} : cut(seq); }, on, frame,
        [&](query_lanes<Problem>& lanes, const tile_cut<T>& tiles, index_t group) {
          attend_group(lanes, tiles, group, edit);
        });
    if constexpr (plain && !reads_query<typename Problem::score_type> && !Problem::places_queries) {
      run_few(n, at, on, frame);
    }
  }

 private:
  tile_cut<T> cut(const sequence& seq) const {
    const auto row_bytes = (problem_.channels() + problem_.source.value_width()) *
                           static_cast<index_t>(sizeof(typename Problem::stored_type));
    return tile_cut<T>::of(seq.queries, seq.keys, row_bytes);
  }

  template <class Edit>
  void attend_group(query_lanes<Problem>& lanes, const tile_cut<T>& cut, index_t group, const Edit& edit) const {
    scratch_frame frame;
    const sequence& seq = lanes.seq();
    const index_t head = lanes.head();
    tile_group<T> tiles = load_group(lanes, cut, group, frame);
    const index_t channels = lanes.value_channels();
    constexpr bool plain = std::is_same_v<Edit, no_edit>;
    const auto write = [&](query_tile<T>& t, T* m, T* l, const T* acc) {
      constexpr bool normalized = Normalizer::sums_to_one && plain;
      if constexpr (Problem::places_queries) {
        result_.template write_placed_columns<normalized>(
            seq.batch, head, t.count, t.width, channels, m, l, acc,
            [&](index_t i) { return problem_.row_of(seq, t.first_row + i); });
      } else {
        result_.template write_columns<normalized>(seq.batch, head, seq.query_row + t.first_row, t.count, t.width,
                                                   channels, m, l, acc);
      }
    };
    if constexpr (Normalizer::sums_to_one && plain) {
      softmax_pass(lanes, tiles, channels, frame, write);
    } else if constexpr (Normalizer::sums_to_one) {
      const row_sums<T> sums = take_sums(lanes, tiles, frame, [&](const query_tile<T>& t, T* m, T* l, T* reference) {
        std::replace_copy(m, m + t.width, reference, minus_infinity<T>, T(0));
        result_.finish(
            m, l, t.count, t.width, seq.batch, [&](index_t) { return head; },
            [&](index_t i) { return problem_.row_of(seq, t.first_row + i); });
      });
      weighted_pass(
          lanes, tiles, channels, frame,
          [&](query_tile<T>& t, index_t lane, const simd::batch<T>& s, const auto& where) {
            return edited(edit, sums.weight(&t - tiles.begin(), lane, s), where);
          },
          write);
    } else {
      weighted_pass(
          lanes, tiles, channels, frame,
          [&](query_tile<T>&, index_t, const simd::batch<T>& s, const auto& where) {
            return edited(edit, normalizer_.weight(s), where);
          },
          write);
    }
  }

  template <class Edit, class Index>
  static TOKENMIX_ALWAYS_INLINE simd::batch<T> edited(const Edit& edit, const simd::batch<T>& weight,
                                                      const Index& where) {
    if constexpr (std::is_same_v<Edit, no_edit>) {
      return weight;
    } else {
      return score_at(edit, weight, where);
    }
  }

  // ---- few queries, keys in the lanes ----

  /// Leaves that a task takes at a time: a subtree of the merge tree. More than one part only where threads would idle.
  static index_t leaves_per_part(index_t tasks, index_t most_leaves, index_t workers) {
    if (workers == 1) return static_cast<index_t>(std::bit_ceil(static_cast<std::size_t>(most_leaves)));
    index_t leaves = 1;
    while (leaves < most_leaves && tasks * ((most_leaves + 2 * leaves - 1) / (2 * leaves)) >= 4 * workers) leaves *= 2;
    return leaves;
  }

  template <class At, class Executor>
  void run_few(index_t n, At&& at, Executor& on, scratch_frame& frame) const {
    index_t blocks = 0;
    index_t most_leaves = 1;
    for (index_t i = 0; i < n; ++i) {
      const sequence seq = at(i);
      if (!few_queries<Problem>(seq)) continue;
      blocks += few_rows::blocks(seq, problem_.group()) * problem_.source.heads();
      most_leaves = std::max(most_leaves, (seq.keys + softmax_leaf_keys - 1) / softmax_leaf_keys);
    }
    if (blocks == 0) return;
    const index_t leaves = leaves_per_part(blocks, most_leaves, on.concurrency());
    const index_t parts = (most_leaves + leaves - 1) / leaves;
    const task_numbers few = numbers_of_few_rows(problem_, n, at, frame);
    const auto with_lanes = [&](index_t block, scratch_frame& own, auto&& f) {
      const index_t i = few.sequence_of(block);
      const sequence seq = at(i);
      const few_rows rows = few_rows::at(seq, problem_.group(), block - few.first(i));
      key_lanes<Problem> lanes(problem_, seq, rows.key_head, rows.first, rows.count, own);
      f(lanes, seq);
    };
    if (parts == 1) {
      run_tasks(on, blocks, [&](index_t block) {
        scratch_frame own;
        with_lanes(block, own, [&](key_lanes<Problem>& lanes, const sequence& seq) {
          finish_few(lanes, seq, attend_part(lanes, 0, most_leaves, own), own);
        });
      });
      return;
    }
    // States of parts, which the second round merges: (blocks, parts, state).
    const index_t value_stride = key_lanes<Problem>::padded(problem_.source.value_width());
    const index_t most_state = 2 * key_lanes<Problem>::padded(most_key_lane_rows) + most_key_lane_rows * value_stride;
    T* states = frame.take<T>(blocks * parts * most_state);
    bool* filled = frame.take<bool>(blocks * parts);
    run_tasks(on, blocks * parts, [&](index_t task) {
      scratch_frame own;
      with_lanes(task / parts, own, [&](key_lanes<Problem>& lanes, const sequence&) {
        const index_t part = task % parts;
        const T* state = attend_part(lanes, part * leaves, (part + 1) * leaves, own);
        filled[task] = state != nullptr;
        if (state != nullptr) std::copy(state, state + lanes.state_size(), states + task * most_state);
      });
    });
    run_tasks(on, blocks, [&](index_t block) {
      scratch_frame own;
      with_lanes(block, own, [&](key_lanes<Problem>& lanes, const sequence& seq) {
        leaf_tree<T> tree(most_leaves, lanes.state_size(), own);
        const auto merge = [&](T* left, const T* right) { lanes.template merge<Normalizer>(left, right); };
        for (index_t part = 0; part < parts; ++part) {
          if (!filled[block * parts + part]) continue;
          const T* state = states + (block * parts + part) * most_state;
          std::copy(state, state + lanes.state_size(), tree.push(part * leaves, merge));
        }
        finish_few(lanes, seq, tree.root(merge), own);
      });
    });
  }

  // The merged state of leaves [first, last), or null if nothing of them is visible.
  T* attend_part(key_lanes<Problem>& lanes, index_t first, index_t last, scratch_frame& frame) const {
    const index_t last_leaf = std::max<index_t>(lanes.block().keys - 1, 0) / softmax_leaf_keys;
    leaf_tree<T> tree(last_leaf, lanes.state_size(), frame);
    const auto merge = [&](T* left, const T* right) { lanes.template merge<Normalizer>(left, right); };
    index_t leaf = next_leaf(problem_.mask, lanes.block(), first * softmax_leaf_keys);
    while (leaf != none_left && leaf < last) {
      lanes.attend(leaf, normalizer_, tree.push(leaf, merge));
      leaf = next_leaf(problem_.mask, lanes.block(), (leaf + 1) * softmax_leaf_keys);
    }
    return tree.root(merge);
  }

  void finish_few(const key_lanes<Problem>& lanes, const sequence& seq, T* state, scratch_frame& frame) const {
    const index_t rows = lanes.rows();
    const index_t padded = key_lanes<Problem>::padded(rows);
    if (state == nullptr) {
      state = frame.take<T>(lanes.state_size());
      std::fill(state, state + padded, minus_infinity<T>);
      std::fill(state + padded, state + lanes.state_size(), T(0));
    }
    result_.template write_rows<Normalizer::sums_to_one>(
        seq.batch, rows, padded, problem_.source.value_width(), lanes.value_stride(), state, state + padded,
        state + 2 * padded, [&](index_t r) { return lanes.head_of(r); },
        [&](index_t r) { return seq.query_row + lanes.query_row_of(r); });
  }

  const Problem& problem_;
  const Normalizer& normalizer_;
  const Result& result_;
};

/// Checked arguments in, results through `result`.
template <class Q, class Source, class Options, class Result, class Executor>
void attend(const tensor_view<const Q, 4>& q, const Source& source, const Options& options, const Result& result,
            Executor& on) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<T, accumulator_t<typename Source::stored_type>>, "q and k compute in different types");
  using problem_type =
      score_problem<T, Q, Source, decltype(options.mask), decltype(options.score), decltype(options.rotary)>;
  const problem_type problem{
      q, source, options.mask, options.score, options.rotary, static_cast<T>(scale_of(options, q.extent(3)))};
  attention<problem_type, decltype(options.normalizer), Result>(problem, options.normalizer, result)
      .run(options.sequences, options.edit, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
