// SPDX-License-Identifier: Apache-2.0
/// @file How a recurrence is cut into tasks. No choice made here changes a bit of the result.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/linear/detail/recurrence.hpp>
#include <tokenmix/mixers/linear/detail/time_blocks.hpp>
#include <tokenmix/mixers/linear/detail/token_rule.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Cuts the panels of a key head so that there is work for all.
struct panel_cut {
  index_t panels;  // of one value head
  index_t splits;  // tasks that share a key head's panels

  template <class T>
  static panel_cut of(index_t channels, index_t most_vectors, index_t group, index_t tasks, index_t workers) {
    const index_t vectors = std::max<index_t>(1, whole_registers<T>(channels) / simd::lanes<T>);
    const index_t widest = (vectors + most_vectors - 1) / most_vectors;
    if (workers <= 1 || tasks == 0) return {widest, 1};
    const index_t wanted = (2 * workers + tasks - 1) / tasks;
    if (wanted <= 1) return {widest, 1};
    const index_t panels = std::clamp((wanted + group - 1) / group, widest, vectors);
    return {panels, std::min(wanted, panels * group)};
  }
};

/// What the tasks of one worker share: a rule and its kernels, with their scratch.
template <class T, class O, class MakeRule>
struct worker {
  using rule_type = std::invoke_result_t<MakeRule&, scratch_frame&>;
  rule_type rule;
  recurrence<rule_type, O> run;
  recurrence_task task;
  index_t number = -1;  // of the sequence that the task's is

  worker(MakeRule& make_rule, const recurrence_shape& shape, const recurrence_result<T, O>& result,
         scratch_frame& frame)
      : rule(make_rule(frame)), run(rule, shape, result, frame) {}
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;
};

/// Runs a rule over all sequences. `make_rule(frame)` gives a task its rule.
template <class T, class O, class Sequences, class MakeRule, class Executor>
void run_recurrence(const recurrence_shape& shape, const recurrence_result<T, O>& result, const Sequences& sequences,
                    index_t batches, index_t queries, index_t keys, MakeRule&& make_rule, Executor& on) {
  const index_t heads = sequences.count(batches) * shape.key_heads;
  if (heads == 0 || shape.value_heads == 0) return;
  const index_t group = shape.value_heads / shape.key_heads;
  const panel_cut cut = panel_cut::of<T>(shape.channels, most_panel_vectors<typename worker<T, O, MakeRule>::rule_type>,
                                         group, heads, on.concurrency());
  const index_t units = cut.panels * group;
  run_tasks(
      on, heads * cut.splits,
      [&](scratch_frame& frame) { return worker<T, O, MakeRule>(make_rule, shape, result, frame); },
      [&](index_t task, auto& w) {
        const index_t head = task / cut.splits;
        const index_t split = task % cut.splits;
        const index_t number = head / shape.key_heads;
        recurrence_task& t = w.task;  // written where it lies: a copy would wait for what a step has just written
        if (w.number != number) t.seq = sequences.at(number, queries, keys);
        w.number = number;
        t.key_head = head % shape.key_heads;
        t.panels = cut.panels;
        t.first = split * units / cut.splits;
        t.last = (split + 1) * units / cut.splits;
        t.token_last = t.seq.keys;
        t.initial = t.final = number;
        w.run.run(t);
      });
}

/// The same for a diagonal decay: values solved for, or given.
template <decay Decay, bool Solves, bool BetaLanes = false, reads Reads = reads::decayed, class Problem, class O,
          class Sequences, class Executor>
void run_diagonal(const Problem& problem, const recurrence_result<typename Problem::T, O>& result,
                  const Sequences& sequences, Executor& on) {
  const recurrence_shape shape{std::max(problem.q.extent(1), problem.v.extent(1)), problem.k.extent(1),
                               problem.v.extent(1), problem.v.extent(3), problem.order};
  using rule_type = token_rule<Problem, Decay, Solves, BetaLanes, Reads>;
  if constexpr (!Solves) {
    const index_t heads = sequences.count(problem.q.extent(0)) * problem.k.extent(1);
    if (worth_time_blocks<typename Problem::T>(shape, heads, problem.k.extent(2), on.concurrency())) {
      run_time_blocks<Decay, Reads>(problem, shape, result, sequences, on);
      return;
    }
  }
  run_recurrence<typename Problem::T, O>(
      shape, result, sequences, problem.q.extent(0), problem.q.extent(2), problem.k.extent(2),
      [&](scratch_frame& frame) { return rule_type(problem, frame); }, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
