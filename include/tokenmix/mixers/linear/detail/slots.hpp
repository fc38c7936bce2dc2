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

/// What the tokens write to every slot, and the log decays of the slots: (B, Hk, T, M).
template <class T>
struct slot_rows {
  tensor_view<T, 4> write;
  tensor_view<T, 4> log_decay;

  slot_rows(const extents<4>& shape, scratch_frame& frame)
      : write(frame.take<T>(shape[0] * shape[1] * shape[2] * shape[3]), shape),
        log_decay(frame.take<T>(shape[0] * shape[1] * shape[2] * shape[3]), shape) {}
};

/// f(sequence, number, head) for every head of every sequence.
template <class Sequences, class Executor, class F>
void each_sequence_head(const Sequences& sequences, index_t batches, index_t tokens, index_t heads, Executor& on,
                        F&& f) {
  run_tasks(on, sequences.count(batches) * heads, [&](index_t task) {
    const index_t number = task / heads;
    f(sequences.at(number, tokens, tokens), number, task % heads);
  });
}

/// The two recurrences:
///
///     K[t]   = K[t-1] diag(decay[t]) + k[t] write[t]',   V[t] = diag(decay[t]) V[t-1] + write[t] v[t]'
///     out[t] = V[t]' softmax(scale K[t]' q[t])
template <class Q, class E, class T, class O, class Sequences, class Executor>
void attend_slots(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
                  const slot_rows<T>& rows, T scale, const slot_states<T>& states, const tensor_view<O, 4>& out,
                  tokenmix::order order, const Sequences& sequences, Executor& on) {
  const given_log_decay gate;
  const unnormalized no_sum;
  const as_given plain;
  const feature_pair<softmax_of_channels, as_given> softmax_of_scores;
  scratch_frame frame;
  const extents<4> shape{q.extent(0), q.extent(1), q.extent(2), rows.write.extent(3)};
  const tensor_view<T, 4> scores(frame.take<T>(shape[0] * shape[1] * shape[2] * shape[3]), shape);

  const diagonal_problem<Q, E, T, T, as_given, given_log_decay, unnormalized, T> of_keys{
      q, k, rows.write, rows.log_decay, {}, {}, {}, plain, gate, no_sum, scale, order};
  run_diagonal<decay::value_channel, false>(
      of_keys, recurrence_result<T, T>{scores, states.initial_keys, states.final_keys, {}, {}}, sequences, on);

  const diagonal_problem<T, T, T, T, decltype(softmax_of_scores), given_log_decay, unnormalized, E> of_values{
      scores, rows.write, v, rows.log_decay, {}, {}, {}, softmax_of_scores, gate, no_sum, T(1), order};
  run_diagonal<decay::key_channel, false>(
      of_values, recurrence_result<T, O>{out, states.initial_values, states.final_values, {}, {}}, sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
