// SPDX-License-Identifier: Apache-2.0
/// @file The gated delta rule: a state that forgets, and whose tokens replace what it holds under their keys.
#pragma once

#include <tokenmix/mixers/linear/detail/delta.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of the gated delta rules. log_decay has rank 3, (B, Hg, T), or 4, (B, Hg, T, F); beta too, with Dv.
template <class Q, class E, class G, std::size_t GR, class W, std::size_t WR, class State = accumulator_t<Q>>
struct gated_delta_inputs {
  tensor_view<const Q, 4> q{};                  // (B, H, T, D)
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                  // (B, Hv, T, Dv)
  tensor_view<const G, GR> log_decay{};         // (B, Hg, T) or (B, Hg, T, F): what options.gate makes the log decay of
  tensor_view<const W, WR> beta{};              // (B, Hb, T) or (B, Hb, T, Dv): how much is replaced, in [0, 2]
  tensor_view<const State, 4> initial_state{};  // (n, Hv, F, Dv) for n sequences; zero if empty
  tensor_view<const State, 1> rate{};           // (Hg) of softplus_gate: A_log
  tensor_view<const State, 2> bias{};           // (Hg, 1) or (Hg, F) of softplus_gate: dt_bias; zero if empty
  tensor_view<const W, WR> write{};             // as beta: how much is written, where that is not how much is erased
};

/// Options of the gated delta rules: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Gate = given_log_decay, class Sequences = whole_sequences,
          class State = float>
struct gated_delta_options {
  Feature feature{};                                 ///< of q and k: as_given, l2_normalized, ...
  Gate gate{};                                       ///< given_log_decay, log_sigmoid_gate or softplus_gate
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, F, Dv), output; may be the initial state
};

/// The gated delta rule, with a gate per head (gated delta net) or per key channel (Kimi delta attention).
///
///     S'     = decay[t] S[t-1],      decay = exp(log_decay): of all of S, or of its rows
///     u[t]   = beta[t] (v[t] - S'' k[t]),      or write[t] v[t] - beta[t] S'' k[t]
///     S[t]   = S' + k[t] u[t]'
///     out[t] = scale q[t]' S[t]
///
/// Shapes     as gated_linear_attention; log_decay: (B, Hg, T) or (B, Hg, T, F), beta: (B, Hb, T) or (B, Hb, T, Dv), Hv a
///            multiple of Hg and of Hb; write: as beta, or empty.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   as delta_rule, for any log decay <= 0, mixed in any way: as gated_linear_attention. A log decay of
///            -infinity is a reset: what the state held there is not read, NaN included.
/// Cost       6 F Dv operations per token, as delta_rule, and more for steep decays, as gated_linear_attention. One token
///            (T = 1) reads the state, and goes over it once more in cache to write it.
///            One sequence keeps as many workers busy as its heads have panels of value channels: time is not cut into blocks.
/// Errors     shape_error and value_error as the messages say; nothing is written then. A beta outside [0, 2] and
///            a log decay above 0 are found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Yang et al. 2024 (gated DeltaNet), equation 10; Kimi Linear 2025, equation 1.
template <class Q, class E, class G, std::size_t GR, class W, std::size_t WR, class State, class O,
          class Feature = as_given, class Gate = given_log_decay, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void gated_delta_rule(const gated_delta_inputs<Q, E, G, GR, W, WR, State>& inputs, tensor_view<O, 4> out,
                      const gated_delta_options<Feature, Gate, Sequences, accumulator_t<Q>>& options = {},
                      Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  static_assert(GR == 3 || GR == 4, "log_decay is (B, Hg, T) or (B, Hg, T, F)");
  const auto& [q, k, v, log_decay, beta, initial_state, rate, bias, write] = inputs;
  detail::check_tokens(q, k, v, true);
  detail::check_gate("log_decay", log_decay, k, v);
  const index_t F = detail::check_delta(q, k, v, beta, write, initial_state, out, options, log_decay);
  detail::check_gate_formula(log_decay, F, "k has that many", rate, bias, Gate::takes_rate);

  constexpr auto decays = GR == 3 ? detail::decay::head : detail::decay::key_channel;
  const unnormalized no_sum;
  const detail::diagonal_problem<Q, E, G, W, Feature, Gate, unnormalized> problem{
      q,
      k,
      v,
      detail::with_channels(log_decay),
      detail::with_channels(beta),
      rate,
      bias,
      options.feature,
      options.gate,
      no_sum,
      detail::scale_or_root<T>(options.scale, q.extent(3)),
      options.order,
      detail::with_channels(write)};
  detail::run_diagonal<decays, true, WR == 4>(
      problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, {}, {}}, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
