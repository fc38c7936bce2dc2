// SPDX-License-Identifier: Apache-2.0
/// @file Few states and many tokens: states at the borders of blocks of time first, then all blocks at once. The same bits.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/linear/detail/recurrence.hpp>
#include <tokenmix/mixers/linear/detail/token_rule.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// A rule whose values are given goes through its state row by row and column by column: the update of S[d][c] reads nothing
// else of S. So a first pass brings the states to the borders of blocks of time with a task for every few rows and columns,
// and no outputs; a second pass starts from those and computes the blocks' outputs with a task for every block. Both go
// through the very operations of one sequential pass: the cost is half as much again, not another rounding.

/// Tokens of a block of time.
inline constexpr index_t time_block = 512;

/// How a call is cut so that `workers` have work in both passes.
struct time_cut {
  index_t blocks;  // of time, between two borders that everybody waits at
  index_t panels;  // of a value head, in the first pass
  index_t slices;  // of the rows of a state, in the first pass
  index_t widest;  // panels of a value head as wide as they can be: those of the second pass

  /// `may_slice`: the rows of a state may be in several tasks. Rows are cut before columns: registers side by side share
  /// what is made of a row, its decays above all.
  template <class T>
  static time_cut of(index_t channels, index_t features, bool may_slice, index_t heads, index_t workers) {
    const index_t vectors = std::max<index_t>(1, whole_registers<T>(channels) / simd::lanes<T>);
    const index_t widest = (vectors + simd::max_tile_vectors - 1) / simd::max_tile_vectors;
    const auto parts = [&](index_t wanted, index_t have) { return (wanted + have - 1) / have; };
    const index_t slices =
        may_slice ? std::clamp<index_t>(parts(workers, heads * widest), 1, std::max<index_t>(1, parts(features, 16)))
                  : 1;
    return {std::max<index_t>(2, parts(2 * workers, heads)),
            std::clamp(parts(workers, heads * slices), widest, vectors), slices, widest};
  }
};

/// Whether a call of this many tokens has fewer panels than workers could use.
template <class T>
bool worth_time_blocks(const recurrence_shape& shape, index_t heads, index_t tokens, index_t workers) {
  if (workers <= 1 || heads == 0 || shape.order == order::bidirectional) return false;
  const index_t vectors = whole_registers<T>(shape.channels) / simd::lanes<T>;
  return heads * shape.group() * vectors < 2 * workers && tokens >= 8 * time_block;
}

/// to = from, row by row; zeros if there is no `from`.
template <class T, std::size_t R>
void copy_state(const tensor_view<const T, R>& from, const tensor_view<T, R>& to) {
  if constexpr (R > 1) {
    for (index_t i = 0; i < to.extent(0); ++i) {
      if (from.data() == nullptr) {
        copy_state<T, R - 1>({}, to.part(i));
      } else {
        copy_state<T, R - 1>(from.part(i), to.part(i));
      }
    }
  } else if (from.data() == nullptr) {
    std::fill_n(to.data(), to.extent(0), T(0));
  } else {
    std::copy_n(from.data(), to.extent(0), to.data());
  }
}

/// The part of a problem that rows [first, first + count) of the states see.
template <decay Decay, class Problem>
Problem with_rows(const Problem& problem, index_t first, index_t count) {
  Problem part = problem;
  part.k = problem.k.slice(3, first, count);
  if constexpr (Decay == decay::key_channel) {
    part.log_decay = problem.log_decay.slice(3, first, count);
    if (problem.bias.data() != nullptr && problem.bias.extent(1) != 1) part.bias = problem.bias.slice(1, first, count);
    if (problem.bonus.data() != nullptr) part.bonus = problem.bonus.slice(1, first, count);
  }
  return part;
}

/// cuts[t - first] = whether a token t of [first, last) of a gate head begins anew: see diagonal_problem.
template <reads Reads, class Problem>
void find_cuts(const Problem& problem, const sequence& seq, index_t gate_head, index_t first, index_t last,
               unsigned char* cuts) {
  constexpr index_t most = tokens_in_registers;
  const index_t D = problem.log_decay.extent(3);
  const index_t value_head = gate_head * (problem.v.extent(1) / problem.log_decay.extent(1));
  scratch_frame frame;
  gate_rows<Problem> gates(D, most, false, frame);
  std::fill_n(cuts, last - first, static_cast<unsigned char>(0));
  for (index_t t = first; t < last; t += most) {
    const index_t count = std::min(most, last - t);
    gates.begin(seq, t, count);
    gates.come_to(problem, value_head, 0);
    for (index_t i = 0; i < count; i += gentle_tokens<Reads>(gates.row(i), gates.stride(), count - i, D))
      cuts[t - first + i] = 1;
  }
}

/// Runs a diagonal rule whose values are given.
template <decay Decay, reads Reads, class Problem, class O, class Sequences, class Executor>
void run_time_blocks(const Problem& problem, const recurrence_shape& shape,
                     const recurrence_result<typename Problem::T, O>& result, const Sequences& sequences,
                     Executor& on) {
  using T = typename Problem::T;
  using rule_type = token_rule<Problem, Decay, false, false, Reads>;
  using feature_type = std::remove_cvref_t<decltype(key_feature(problem.feature))>;
  constexpr bool sliced = !row_feature<feature_type>;  // maps of rows need their whole
  const index_t n = sequences.count(problem.q.extent(0));
  const index_t Hk = shape.key_heads;
  const index_t D = feature_width(key_feature(problem.feature), problem.k.extent(3));
  const index_t units = shape.group();
  const time_cut cut = time_cut::of<T>(shape.channels, D, sliced, n * Hk * units, on.concurrency());
  const index_t slots = 2 * cut.blocks + 1;

  scratch_frame frame;
  const extents<4> state_shape{n * slots, shape.value_heads, D, shape.channels};
  const extents<3> sum_shape{n * slots, Hk, D};
  const tensor_view<T, 4> states(frame.take<T>(product<4>(state_shape)), state_shape);
  const tensor_view<T, 3> sums(frame.take<T>(product<3>(sum_shape)), sum_shape);
  // A steep decay of one row cuts the tokens for all rows: tasks with some of the rows are told of the cuts of all.
  const bool tells_cuts = Decay == decay::key_channel && cut.slices > 1;
  const index_t gate_heads = problem.log_decay.extent(1);
  const extents<3> cuts_shape{tells_cuts ? 2 * n : 0, gate_heads, cut.blocks * time_block};
  const tensor_view<unsigned char, 3> cuts(frame.take<unsigned char>(product<3>(cuts_shape)), cuts_shape);
  const auto tokens_of = [&](index_t i) { return sequences.at(i, problem.q.extent(2), problem.k.extent(2)); };
  const auto slot = [&](index_t i, index_t block) { return i * slots + block % slots; };
  index_t most = 0;
  for (index_t i = 0; i < n; ++i) {
    const auto& s0 = result.initial_state;
    const auto& z0 = result.initial_sum;
    copy_state<T, 3>(s0.data() == nullptr ? tensor_view<const T, 3>() : s0.part(i), states.part(slot(i, 0)));
    copy_state<T, 2>(z0.data() == nullptr ? tensor_view<const T, 2>() : z0.part(i), sums.part(slot(i, 0)));
    most = std::max(most, tokens_of(i).keys);
  }

  const auto task_of = [&](index_t i, index_t key_head, index_t block) {
    recurrence_task task;
    task.seq = tokens_of(i);
    task.key_head = key_head;
    task.token_first = std::min(block * time_block, task.seq.keys);
    task.token_last = std::min((block + 1) * time_block, task.seq.keys);
    task.initial = slot(i, block);
    task.final = slot(i, block + 1);
    return task;
  };
  const index_t all_blocks = (most + time_block - 1) / time_block;
  const index_t waves = (all_blocks + cut.blocks - 1) / cut.blocks;
  const auto first_of = [&](index_t wave) { return std::min(wave * cut.blocks, all_blocks); };
  const auto blocks_of = [&](index_t wave) {
    return wave < 0 || wave >= waves ? index_t{0} : first_of(wave + 1) - first_of(wave);
  };
  const auto cuts_of = [&](index_t wave, index_t i) { return cuts.part(wave % 2 * n + i); };

  const auto bring_cuts = [&](index_t wave, index_t i) {
    const index_t block = i % blocks_of(wave);
    const index_t head = i / blocks_of(wave);
    const recurrence_task task = task_of(head / gate_heads, 0, first_of(wave) + block);
    find_cuts<Reads>(problem, task.seq, head % gate_heads, task.token_first, task.token_last,
                     cuts_of(wave, head / gate_heads).row(head % gate_heads) + block * time_block);
  };
  const index_t parts = units * cut.panels * cut.slices;
  const auto bring_states = [&](index_t wave, index_t i) {
    const index_t head = i / parts;
    const index_t slice = i % cut.slices;
    const index_t row = slice * D / cut.slices;
    const index_t rows = (slice + 1) * D / cut.slices - row;
    Problem part = cut.slices == 1 ? problem : with_rows<Decay>(problem, row, rows);
    if (tells_cuts) {
      part.cuts = cuts_of(wave, head / Hk);
      part.first_of_cuts = first_of(wave) * time_block;
    }
    const recurrence_result<T, O> borders{result.out, states.slice(2, row, rows), states.slice(2, row, rows),
                                          sums.slice(2, row, rows), sums.slice(2, row, rows)};
    scratch_frame of_task;
    rule_type rule(part, of_task);
    recurrence<rule_type, O> run(rule, shape, borders, of_task);
    for (index_t block = first_of(wave); block < first_of(wave + 1); ++block) {
      recurrence_task task = task_of(head / Hk, head % Hk, block);
      task.panels = cut.panels;
      task.first = i % parts / cut.slices;
      task.last = task.first + 1;
      task.queries = false;
      run.run(task);
    }
  };
  const auto write_outputs = [&](index_t wave, index_t i) {
    const index_t head = i / blocks_of(wave);
    const recurrence_result<T, O> outputs{result.out, states, {}, sums, {}};
    scratch_frame of_task;
    rule_type rule(problem, of_task);
    recurrence<rule_type, O> run(rule, shape, outputs, of_task);
    recurrence_task task = task_of(head / Hk, head % Hk, first_of(wave) + i % blocks_of(wave));
    task.panels = cut.widest;
    task.last = task.panels * units;
    run.run(task);
  };

  // Between two borders: the states of one wave, the outputs of the wave before, the cuts of the next. Longest first.
  for (index_t wave = -1; wave <= waves; ++wave) {
    const index_t with_states = blocks_of(wave) > 0 ? n * Hk * parts : 0;
    const index_t with_outputs = n * Hk * blocks_of(wave - 1);
    const index_t with_cuts = tells_cuts ? n * gate_heads * blocks_of(wave + 1) : 0;
    on.for_each(with_states + with_outputs + with_cuts, [&](index_t i, index_t) {
      if (i < with_states) {
        bring_states(wave, i);
      } else if (i < with_states + with_outputs) {
        write_outputs(wave - 1, i - with_states);
      } else {
        bring_cuts(wave + 1, i - with_states - with_outputs);
      }
    });
  }
  for (index_t i = 0; i < n; ++i) {
    if (result.final_state.data() != nullptr)
      copy_state<T, 3>(states.part(slot(i, all_blocks)), result.final_state.part(i));
    if (result.final_sum.data() != nullptr) copy_state<T, 2>(sums.part(slot(i, all_blocks)), result.final_sum.part(i));
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
