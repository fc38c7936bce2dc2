// SPDX-License-Identifier: Apache-2.0
/// @file RWKV-6: a state with a gate per key channel that is read before its token is written, which a bonus weighs.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of rwkv6.
template <class Q, class E, class G, class State = accumulator_t<Q>>
struct rwkv6_inputs {
  tensor_view<const Q, 4> r{};                  // (B, H, T, D): receptance
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                  // (B, Hv, T, Dv)
  tensor_view<const G, 4> log_decay{};          // (B, Hg, T, D): what options.gate makes the log decay of
  tensor_view<const State, 2> bonus{};          // (Hk, D): time_first
  tensor_view<const State, 4> initial_state{};  // (n, Hv, D, Dv) for n sequences; zero if empty
};

/// Options of rwkv6 and rwkv7: use with designated initialisers; the order of the fields is API.
template <class Gate = given_log_decay, class Sequences = whole_sequences, class State = float>
struct rwkv_options {
  Gate gate{};                                       ///< given_log_decay, exponential_gate or sigmoid_gate
  double scale = 1;                                  ///< of r
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, D, Dv), output; may be the initial state
};

/// RWKV-6 (Finch).
///
///     out[t] = scale r[t]' (S[t-1] + diag(bonus) k[t] v[t]')
///     S[t]   = diag(decay[t]) S[t-1] + k[t] v[t]',      decay = exp(log_decay)
///
/// Shapes     r: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hv, T, Dv); out: (B, max(H, Hv), T, Dv); any strides, last axis
///            contiguous. H and Hv are multiples of Hk and one of them is Hk. log_decay: (B, Hg, T, D) with Hv a multiple of
///            Hg; bonus: (Hk, D). As published all heads are alike. States: (n, Hv, D, Dv), keys first.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   computed in float (double for double), u = 2^-24; the state is kept in that type. |error| <= 8 u A + 2 u A1 as
///            gated_linear_attention, for any log decay <= 0, mixed in any way: as there. A log decay of
///            -infinity is a reset: what the state held there is read by its own token for the last time, and does not survive,
///            NaN included. The same bits for any executor, batch neighbours and strides, reversed as flipped, packed as
///            alone, and for a sequence cut into calls at multiples of 16 tokens.
/// Cost       as gated_linear_attention, F = D. One token (T = 1) passes over the state once and allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Peng et al. 2024 (Eagle and Finch), section 4.2. Its layer takes options.gate = exponential_gate.
template <class Q, class E, class G, class State, class O, class Gate = given_log_decay,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void rwkv6(const rwkv6_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
           const rwkv_options<Gate, Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  static_assert(!Gate::takes_rate, "a gate with a rate is of other mixers");
  const auto& [r, k, v, log_decay, bonus, initial_state] = inputs;
  detail::check_direction(options.order);
  detail::check_tokens(r, k, v, true, "r");
  detail::check_sequences(options.sequences, r.extent(0), r.extent(2), k.extent(2), true);
  detail::check_gate("log_decay", log_decay, k, v);
  detail::check_extent("log_decay", log_decay, 3, "channels", k.extent(3), "k has that many");
  detail::check_input("bonus", bonus);
  detail::check_extent("bonus", bonus, 0, "heads", k.extent(1), "k has that many");
  detail::check_extent("bonus", bonus, 1, "channels", k.extent(3), "k has that many");
  detail::check_results(out, {r.extent(0), std::max(r.extent(1), v.extent(1)), r.extent(2), v.extent(3)}, initial_state,
                        options.final_state,
                        {options.sequences.count(r.extent(0)), v.extent(1), k.extent(3), v.extent(3)}, r, k, v,
                        log_decay, bonus);

  const unnormalized no_sum;
  const as_given feature;
  const detail::diagonal_problem<Q, E, G, T, as_given, Gate, unnormalized> problem{
      r,  k,    v, log_decay, {}, {}, {}, feature, options.gate, no_sum, static_cast<T>(options.scale), options.order,
      {}, bonus};
  detail::run_diagonal<detail::decay::key_channel, false, false, detail::reads::before>(
      problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, {}, {}}, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
