// SPDX-License-Identifier: Apache-2.0
/// @file RWKV-7: a state with a gate per key channel that a vector reads and another replaces.
#pragma once

#include <tokenmix/mixers/linear/generalized_delta_rule.hpp>
#include <tokenmix/mixers/linear/rwkv6.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of rwkv7, named as its kernels name them.
template <class Q, class E, class G, class State = accumulator_t<Q>>
struct rwkv7_inputs {
  tensor_view<const Q, 4> r{};                  // (B, H, T, D): receptance
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D): replacement key
  tensor_view<const E, 4> v{};                  // (B, Hv, T, Dv)
  tensor_view<const E, 4> a{};                  // (B, Hk, T, D): -kappa, the normalised removal key, reads
  tensor_view<const E, 4> b{};                  // (B, Hk, T, D): kappa times the in-context learning rate, is written
  tensor_view<const G, 4> log_decay{};          // (B, Hg, T, D): what options.gate makes the log decay of; never empty
  tensor_view<const State, 4> initial_state{};  // (n, Hv, D, Dv) for n sequences; zero if empty
};

/// RWKV-7 (Goose), without the output's bonus, normalisation and gate, which are of its layer.
///
///     S[t]   = (diag(decay[t]) + b[t] a[t]') S[t-1] + k[t] v[t]',      decay = exp(log_decay)
///     out[t] = scale r[t]' S[t]
///
/// which is, with the published state S' (values first), S' = S' diag(w) + (S' a) b' + v k' and out = S' r. It is
/// generalized_delta_rule with q = r and its a and b exchanged.
///
/// Shapes     as generalized_delta_rule; states: (n, Hv, D, Dv), keys first: the published ones transposed.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   as generalized_delta_rule.
/// Cost       as generalized_delta_rule with a log decay.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Peng et al. 2025 (RWKV-7), equations 15 to 17. Its layer takes options.gate = sigmoid_gate{}.
template <class Q, class E, class G, class State, class O, class Gate = given_log_decay,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void rwkv7(const rwkv7_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
           const rwkv_options<Gate, Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  static_assert(!Gate::takes_rate, "a gate with a rate is of other mixers");
  const auto& [r, k, v, a, b, log_decay, initial_state] = inputs;
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  detail::check_low_rank("r", r, k, v, a, b, initial_state, out, options, log_decay);
  detail::check_gate("log_decay", log_decay, k, v);
  detail::check_extent("log_decay", log_decay, 3, "channels", k.extent(3), "k has that many");
  const detail::low_rank_problem<Q, E, G, Gate> problem{
      r, k, v, b, a, log_decay, {}, {}, options.gate, static_cast<T>(options.scale), options.order};
  detail::run_low_rank<true>(problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, {}, {}},
                             options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
