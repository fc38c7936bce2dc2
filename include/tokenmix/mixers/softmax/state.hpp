// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention over a part of the keys, to be merged with other parts.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/primitives/softmax_state.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The states of softmax attention, not yet divided: what parts of the keys on several machines or in several passes
/// leave behind. `merge` joins them, `finish` reads them.
///
///     m = max of score[s],   l = sum of exp(score[s] - m),   acc = sum of exp(score[s] - m) v[s]      over the visible s
///
/// Shapes     as softmax_attention; state.m, state.l: (B, H, T); state.acc: (B, H, T, Dv).
/// Aliasing   the state shares no element with an input.
/// Numerics   as softmax_attention; finish() of the state of all keys has its bits.
/// Cost       as softmax_attention.
/// Errors     as softmax_attention. Sinks and options.lse belong to the reading of the merged state and are refused.
template <class Q, class E, class Sink, class T, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Rotary = no_rotary, executor Executor = calling_thread>
void softmax_attention_state(
    const softmax_inputs<Q, E, Sink>& inputs, const softmax_state<T>& state,
    const softmax_options<Mask, Score, Sequences, softmax_weights, no_edit, Rotary, T>& options = {},
    Executor&& on = {}) {
  static_assert(std::is_same_v<T, accumulator_t<Q>>, "a state is kept in the computing type");
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  if (extra_k.extent(2) != 0) detail::check_extra_keys(q, k, v, extra_k, extra_v);
  if (sinks.data() != nullptr) detail::fail_value("sinks are given: they join when the merged state is read");
  if (options.lse.data() != nullptr) detail::fail_value("options.lse is given: it comes from finish()");
  detail::check_attention(q, k.extent(2), extra_k.extent(2), sinks, options);
  detail::check_state("state", state);
  detail::check_attention_output(state.acc, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, options, q, k, v,
                                 extra_k, extra_v);
  detail::attend(q, key_value_views<E>{{k, v, extra_k, extra_v}}, options,
                 detail::state_output<T>{state.m, state.l, state.acc}, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
