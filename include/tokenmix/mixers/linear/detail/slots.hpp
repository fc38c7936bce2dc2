// SPDX-License-Identifier: Apache-2.0
/// @file Attention over slots: keys and values of slots by two gated recurrences, a softmax over the slots between them.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The states of n sequences with M slots: the keys of the slots side by side, and their values.
template <class T>
struct slot_states {
  tensor_view<const T, 4> initial_keys{};    // (n, Hk, D, M)
  tensor_view<const T, 4> initial_values{};  // (n, Hk, M, Dv)
  tensor_view<T, 4> final_keys{};            // (n, Hk, D, M)
  tensor_view<T, 4> final_values{};          // (n, Hk, M, Dv)
};

/// Checks everything but what only one of the mixers has; `of_slots` (B, Hk, T, M) says how many slots there are.
template <class Q, class E, class G, class T, class O, class Options, class... Others>
void check_slots(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
                 const char* name, const tensor_view<const G, 4>& of_slots, const slot_states<T>& states,
                 const tensor_view<O, 4>& out, const Options& options, const Others&... others) {
  check_direction(options.order);
  check_tokens(q, k, v, true);
  check_same_extent("v", v, 1, "k", k, 1, "heads");
  check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  check_input(name, of_slots);
  const index_t M = of_slots.extent(3);
  check_shape(name, of_slots, {k.extent(0), k.extent(1), k.extent(2), M}, "(B, Hk, T, slots)");
  const index_t n = options.sequences.count(q.extent(0));
  check_result_rows(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, q, k, v, of_slots, states.initial_keys,
                    states.initial_values, others...);
  check_state_part("initial_keys", states.initial_keys, "final_keys", states.final_keys,
                   {n, k.extent(1), k.extent(3), M}, "(sequences, Hk, D, slots)", out, q, k, v, of_slots,
                   states.initial_values, others...);
  check_state_part("initial_values", states.initial_values, "final_values", states.final_values,
                   {n, k.extent(1), M, v.extent(3)}, "(sequences, Hk, slots, Dv)", out, states.final_keys, q, k, v,
                   of_slots, states.initial_keys, others...);
}

/// Tokens of one head that are computed together: what they write, their decays and their scores lie in scratch.
inline constexpr index_t slot_block = 256;

/// An executor, or the calling thread in its place.
template <class Executor>
struct executor_or_self {
  Executor& on;
  bool self;

  index_t concurrency() const { return self ? 1 : on.concurrency(); }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    if (!self) {
      on.for_each(n, task);
      return;
    }
    for (index_t i = 0; i < n; ++i) task(i, index_t{0});
  }
};

/// The two recurrences of some tokens of all heads of some sequences:
///
///     K[t]   = K[t-1] diag(decay[t]) + k[t] write[t]',   V[t] = diag(decay[t]) V[t-1] + write[t] v[t]'
///     out[t] = V[t]' softmax(scale K[t]' q[t])
///
/// write and log_decay (B, Hk, T, M); scores (B, H, T, M) is memory for K[t]' q[t].
template <class Q, class E, class T, class O, class Executor>
void attend_written_slots(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k,
                          const tensor_view<const E, 4>& v, const tensor_view<T, 4>& write,
                          const tensor_view<T, 4>& log_decay, const tensor_view<T, 4>& scores, T scale,
                          const slot_states<T>& states, const tensor_view<O, 4>& out, order direction,
                          const Executor& on) {
  const given_log_decay gate;
  const unnormalized no_sum;
  const as_given plain;
  const feature_pair<softmax_of_channels, as_given> softmax_of_scores;
  const diagonal_problem<Q, E, T, T, as_given, given_log_decay, unnormalized, T> of_keys{
      q, k, write, log_decay, {}, {}, {}, plain, gate, no_sum, scale, direction};
  run_diagonal<decay::value_channel, false>(
      of_keys, recurrence_result<T, T>{scores, states.initial_keys, states.final_keys, {}, {}}, whole_sequences{}, on);
  const diagonal_problem<T, T, T, T, decltype(softmax_of_scores), given_log_decay, unnormalized, E> of_values{
      scores, write, v, log_decay, {}, {}, {}, softmax_of_scores, gate, no_sum, T(1), direction};
  run_diagonal<decay::key_channel, false>(
      of_values, recurrence_result<T, O>{out, states.initial_values, states.final_values, {}, {}}, whole_sequences{},
      on);
}

/// The same for one key head of one sequence, block after block.
///
/// q (1, H / Hk, T, D), k (1, 1, T, D), v (1, 1, T, Dv), out (1, H / Hk, T, Dv), states of one head. `row(t, write, log_decay)`
/// makes the two rows of a token, and is called in the order of time.
template <class Q, class E, class T, class O, class Executor, class Row>
void attend_slots_of_head(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k,
                          const tensor_view<const E, 4>& v, index_t slots, T scale, slot_states<T> states,
                          const tensor_view<O, 4>& out, order direction, const Executor& on, Row&& row) {
  const index_t tokens = k.extent(2), block = std::min(slot_block, tokens), group = q.extent(1);
  scratch_frame frame;
  const auto take = [&](index_t heads, index_t rows, index_t width) {
    return tensor_view<T, 4>(frame.take<T>(heads * rows * width), {1, heads, rows, width});
  };
  const auto all_write = take(1, block, slots), all_log_decay = take(1, block, slots),
             all_scores = take(group, block, slots);
  // Between blocks the states are somewhere.
  const auto carried = [&](const tensor_view<T, 4>& final, index_t rows, index_t width) {
    return tokens > block && final.data() == nullptr ? take(1, rows, width) : final;
  };
  const auto keys = carried(states.final_keys, k.extent(3), slots);
  const auto values = carried(states.final_values, slots, v.extent(3));
  // Without a token, too, a final state is the initial one.
  index_t done = 0;
  do {
    const index_t n = std::min(block, tokens - done);
    const bool backwards = direction == order::reverse;
    const index_t first = backwards ? tokens - done - n : done;
    const auto write = all_write.slice(2, 0, n), log_decay = all_log_decay.slice(2, 0, n);
    const auto scores = all_scores.slice(2, 0, n);
    for (index_t i = 0; i < n; ++i) {
      const index_t t = backwards ? n - 1 - i : i;
      row(first + t, write.row(0, 0, t), log_decay.row(0, 0, t));
    }
    attend_written_slots<Q, E, T, O>(q.slice(2, first, n), k.slice(2, first, n), v.slice(2, first, n), write, log_decay,
                                     scores, scale, {states.initial_keys, states.initial_values, keys, values},
                                     out.slice(2, first, n), direction, on);
    states.initial_keys = keys;
    states.initial_values = values;
    done += n;
  } while (done < tokens);
}

/// The same for all heads of all sequences. `rows` says what tokens write: `begin(number, head, memory)`, then `row(batch, head, t,
/// memory, write, log_decay)` in the order of time, then `end(number, head, memory)`, with a number per slot to remember.
template <class Q, class E, class T, class O, class Sequences, class Executor, class Rows>
void attend_slots(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
                  index_t slots, T scale, const slot_states<T>& states, const tensor_view<O, 4>& out, order direction,
                  const Sequences& sequences, Executor& on, const Rows& rows) {
  const index_t heads = k.extent(1), all = sequences.count(k.extent(0)) * heads;
  if (all == 0) return;
  if constexpr (std::is_same_v<Sequences, whole_sequences>) {
    // A step of many heads is one pass over all of them, where no more rows than a block's are needed.
    const index_t tokens = k.extent(2);
    if (all * tokens <= slot_block) {
      scratch_frame frame;
      const auto take = [&](index_t count) {
        return tensor_view<T, 4>(frame.take<T>(k.extent(0) * count * tokens * slots),
                                 {k.extent(0), count, tokens, slots});
      };
      const auto write = take(heads), log_decay = take(heads), scores = take(q.extent(1));
      double* memory = frame.take<double>(slots);
      for (index_t i = 0; i < all; ++i) {
        const index_t b = i / heads, h = i % heads;
        rows.begin(b, h, memory);
        for (index_t done = 0; done < tokens; ++done) {
          const index_t t = direction == order::reverse ? tokens - 1 - done : done;
          rows.row(b, h, t, memory, write.row(b, h, t), log_decay.row(b, h, t));
        }
        rows.end(b, h, memory);
      }
      attend_written_slots<Q, E, T, O>(q, k, v, write, log_decay, scores, scale, states, out, direction,
                                       executor_or_self<Executor>{on, false});
      return;
    }
  }
  const index_t group = q.extent(1) / heads;
  const auto of_head = [](const auto& state, index_t number, index_t head) {
    return state.data() == nullptr ? state : state.slice(0, number, 1).slice(1, head, 1);
  };
  const auto head_of = [&](index_t i, bool alone) {
    const index_t number = i / heads, head = i % heads;
    const sequence seq = sequences.at(number, k.extent(2), k.extent(2));
    const auto part = [&](const auto& x, index_t first, index_t count) {
      return x.slice(0, seq.batch, 1).slice(1, first, count).slice(2, seq.key_row, seq.keys);
    };
    scratch_frame frame;
    double* memory = frame.take<double>(slots);
    rows.begin(number, head, memory);
    attend_slots_of_head<Q, E, T, O>(
        part(q, head * group, group), part(k, head, 1), part(v, head, 1), slots, scale,
        {of_head(states.initial_keys, number, head), of_head(states.initial_values, number, head),
         of_head(states.final_keys, number, head), of_head(states.final_values, number, head)},
        part(out, head * group, group), direction, executor_or_self<Executor>{on, alone},
        [&](index_t t, T* write, T* log_decay) {
          rows.row(seq.batch, head, seq.key_row + t, memory, write, log_decay);
        });
    rows.end(number, head, memory);
  };
  if (all >= on.concurrency()) {
    run_tasks(on, all, [&](index_t i) { head_of(i, true); });
  } else {
    for (index_t i = 0; i < all; ++i) head_of(i, false);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
