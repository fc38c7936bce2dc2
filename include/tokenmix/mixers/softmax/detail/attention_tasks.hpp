// SPDX-License-Identifier: Apache-2.0
/// @file How queries are cut into tasks: tiles of them in the lanes, or a few rows beside keys in the lanes.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/softmax/detail/key_lanes.hpp>
#include <tokenmix/mixers/softmax/detail/plan.hpp>
#include <tokenmix/mixers/softmax/detail/query_lanes.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Rows that share a key head and are few go with keys in the lanes: with queries there, most lanes would idle.
template <class Problem>
constexpr bool few_queries(const sequence& seq) {
  return !reads_query<typename Problem::score_type> && !Problem::places_queries &&
         seq.queries < simd::lanes<typename Problem::T>;
}

/// Rows of a key head that one task takes: their scores stay in L1.
inline constexpr index_t most_key_lane_rows = 32;

/// The rows of a key head that one task takes; a row is a query under one of the heads of the group.
struct few_rows {
  index_t key_head;
  index_t first;
  index_t count;

  /// Tasks that a key head makes.
  static constexpr index_t blocks(const sequence& seq, index_t group) {
    return (seq.queries * group + most_key_lane_rows - 1) / most_key_lane_rows;
  }
  /// Those of one task of a sequence.
  static constexpr few_rows at(const sequence& seq, index_t group, index_t task) {
    const index_t n = blocks(seq, group), first = task % n * most_key_lane_rows;
    return {task / n, first, std::min(most_key_lane_rows, seq.queries * group - first)};
  }
};

/// Numbers of the tasks with few rows, of all sequences at(i) that have few queries.
template <class Problem, class At>
task_numbers numbers_of_few_rows(const Problem& problem, index_t n, const At& at, scratch_frame& frame) {
  return task_numbers(n, frame, [&](index_t i) {
    const sequence seq = at(i);
    return few_queries<Problem>(seq) ? few_rows::blocks(seq, problem.group()) * problem.source.heads() : 0;
  });
}

/// Calls f(lanes, cut, group) for every head of every sequence at(i) and every group of tiles of cut = cut_of(at(i)), whose groups
/// are 0 where a sequence does not go with queries in the lanes; the lanes are at that head of that sequence.
template <class Problem, class At, class CutOf, class Executor, class F>
void run_tile_groups(const Problem& problem, index_t n, const At& at, const CutOf& cut_of, Executor& on,
                     scratch_frame& frame, const F& f) {
  const task_numbers numbers(n, frame, [&](index_t i) { return cut_of(at(i)).groups * problem.heads(); });
  run_tasks(
      on, numbers.total(), [&](scratch_frame& shared) { return query_lanes<Problem>(problem, shared); },
      [&](index_t task, query_lanes<Problem>& lanes) {
        const index_t i = numbers.sequence_of(task);
        const sequence seq = at(i);
        const auto cut = cut_of(seq);
        const index_t in_sequence = task - numbers.first(i);
        lanes.go_to(seq, in_sequence / cut.groups);
        // The last group first: under a causal mask it is the longest.
        f(lanes, cut, cut.groups - 1 - in_sequence % cut.groups);
      });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
