// SPDX-License-Identifier: Apache-2.0
/// @file Gated linear attention: a state that forgets by a gate per head, per key channel or per value channel.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// A gate with a number per channel is of the rows of the state: GLA, HGRN2.
struct key_channels {};
/// A gate with a number per channel is of the columns of the state.
struct value_channels {};

/// The tensors of gated linear attention. log_decay has rank 3, (B, Hg, T), or 4, (B, Hg, T, F or Dv).
template <class Q, class E, class G, std::size_t R, class State = accumulator_t<Q>>
struct gated_linear_inputs {
  tensor_view<const Q, 4> q{};          // (B, H, T, D)
  tensor_view<const E, 4> k{};          // (B, Hk, T, D)
  tensor_view<const E, 4> v{};          // (B, Hv, T, Dv)
  tensor_view<const G, R> log_decay{};  // (B, Hg, T) or (B, Hg, T, F or Dv): what options.gate makes the log decay of
  tensor_view<const State, 4> initial_state{};  // (n, Hv, F, Dv) for n sequences; zero if empty
  tensor_view<const State, 1> rate{};           // (Hg) of softplus_gate: A_log
  tensor_view<const State, 2> bias{};           // (Hg, 1) or (Hg, F or Dv) of softplus_gate: dt_bias; zero if empty
};

/// Options of gated_linear_attention: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Gate = given_log_decay, class Channels = key_channels,
          class Sequences = whole_sequences, class State = float>
struct gated_linear_options {
  Feature feature{};              ///< of q and k: as_given, l2_normalized, ...
  Gate gate{};                    ///< given_log_decay, log_sigmoid_gate or softplus_gate
  Channels channels{};            ///< what a log_decay of rank 4 is of: key_channels or value_channels
  std::optional<double> scale{};  ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, F, Dv), output; may be the initial state
};

/// Gated linear attention.
///
///     S[t]   = decay[t] S[t-1] + k[t] v[t]',      decay = exp(log_decay): of all of S, of its rows, or of its columns
///     out[t] = scale q[t]' S[t]
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hv, T, Dv); out: (B, max(H, Hv), T, Dv); any strides, last axis
///            contiguous. H and Hv are multiples of Hk and one of them is Hk. log_decay: (B, Hg, T) or (B, Hg, T, F or Dv)
///            with Hv a multiple of Hg. F is the width of the features, D as a rule. States: (n, Hv, F, Dv).
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   computed in float (double for double), u = 2^-24; the state is kept in that type. |error| <= 8 u A + 2 u A1, where
///            A is the recurrence on absolute values and A1 that with every token's part times its distance; for any log decay
///            <= 0, mixed in any way: every exponent taken is <= 0, and decays divide only down to e^-16 (in float, products of
///            k and v above 3e31 may overflow by that). A log decay of -infinity is a reset: what the state held there is not
///            read, NaN included. The same bits for any executor, batch neighbours and strides, reversed as flipped, packed as
///            alone, and for a sequence cut into calls at multiples of 16 tokens.
/// Cost       4 F Dv operations per token, as linear_attention, while the decays of 16 tokens multiply to no less than e^-16 in
///            every channel; F Dv more for every token that brings them below. One token (T = 1) passes over the state
///            once and allocates nothing. Long sequences on many workers as in linear_attention.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Yang et al. 2023 (GLA), equation 3; Qin et al. 2024 (HGRN2).
template <class Q, class E, class G, std::size_t R, class State, class O, class Feature = as_given,
          class Gate = given_log_decay, class Channels = key_channels, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void gated_linear_attention(
    const gated_linear_inputs<Q, E, G, R, State>& inputs, tensor_view<O, 4> out,
    const gated_linear_options<Feature, Gate, Channels, Sequences, accumulator_t<Q>>& options = {},
    Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  static_assert(R == 3 || R == 4, "log_decay is (B, Hg, T) or (B, Hg, T, channels)");
  constexpr bool of_values = std::is_same_v<Channels, value_channels>;
  const auto& [q, k, v, log_decay, initial_state, rate, bias] = inputs;
  detail::check_direction(options.order);
  detail::check_tokens(q, k, v, true);
  detail::check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  const index_t F = detail::check_feature(options.feature, k.extent(3), q.extent(1), k.extent(1));
  detail::check_gate("log_decay", log_decay, k, v);
  detail::check_gate_formula(log_decay, of_values ? v.extent(3) : F, of_values ? "v has that many" : "k has that many",
                             rate, bias, Gate::takes_rate);
  detail::check_results(out, {q.extent(0), std::max(q.extent(1), v.extent(1)), q.extent(2), v.extent(3)}, initial_state,
                        options.final_state, {options.sequences.count(q.extent(0)), v.extent(1), F, v.extent(3)}, q, k,
                        v, log_decay);

  constexpr auto decays = R == 3      ? detail::decay::head
                          : of_values ? detail::decay::value_channel
                                      : detail::decay::key_channel;
  const unnormalized no_sum;
  const detail::diagonal_problem<Q, E, G, T, Feature, Gate, unnormalized> problem{
      q,
      k,
      v,
      detail::with_channels(log_decay),
      {},
      rate,
      bias,
      options.feature,
      options.gate,
      no_sum,
      detail::scale_or_root<T>(options.scale, q.extent(3)),
      options.order};
  detail::run_diagonal<decays, false>(
      problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, {}, {}}, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
