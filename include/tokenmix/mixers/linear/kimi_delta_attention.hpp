// SPDX-License-Identifier: Apache-2.0
/// @file Kimi delta attention: the gated delta rule with a gate per key channel.
#pragma once

#include <tokenmix/mixers/linear/gated_delta_rule.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Kimi delta attention.
///
///     S[t]   = (I - beta[t] k[t] k[t]') diag(decay[t]) S[t-1] + beta[t] k[t] v[t]'
///     out[t] = scale q[t]' S[t]
///
/// Shapes     as gated_delta_rule with log_decay (B, Hg, T, F).
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   as gated_delta_rule.
/// Cost       as gated_delta_rule with a gate per key channel.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Kimi Linear 2025, equation 1. Its layer takes options.feature = l2_normalized and options.gate = softplus_gate.
template <class Q, class E, class G, class W, std::size_t WR, class State, class O, class Feature = as_given,
          class Gate = given_log_decay, class Sequences = whole_sequences, executor Executor = calling_thread>
void kimi_delta_attention(const gated_delta_inputs<Q, E, G, 4, W, WR, State>& inputs, tensor_view<O, 4> out,
                          const gated_delta_options<Feature, Gate, Sequences, accumulator_t<Q>>& options = {},
                          Executor&& on = {}) {
  gated_delta_rule(inputs, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
