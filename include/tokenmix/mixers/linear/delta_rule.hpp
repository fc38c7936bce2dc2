// SPDX-License-Identifier: Apache-2.0
/// @file The delta rule: a token replaces what the state holds under its key.
#pragma once

#include <tokenmix/mixers/linear/detail/delta.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of the delta rule. beta has rank 3, (B, Hb, T), or 4, (B, Hb, T, Dv).
template <class Q, class E, class W, std::size_t R, class State = accumulator_t<Q>>
struct delta_inputs {
  tensor_view<const Q, 4> q{};                  // (B, H, T, D)
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                  // (B, Hv, T, Dv)
  tensor_view<const W, R> beta{};               // (B, Hb, T) or (B, Hb, T, Dv): how much is replaced, in [0, 2]
  tensor_view<const State, 4> initial_state{};  // (n, Hv, F, Dv) for n sequences; zero if empty
  tensor_view<const W, R> write{};              // as beta: how much is written, where that is not how much is erased
};

/// Options of delta_rule: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Sequences = whole_sequences, class State = float>
struct delta_options {
  Feature feature{};                                 ///< of q and k: as_given, l2_normalized, ...
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, F, Dv), output; may be the initial state
};

/// The delta rule.
///
///     u[t]   = beta[t] (v[t] - S[t-1]' k[t]),      or write[t] v[t] - beta[t] S[t-1]' k[t]
///     S[t]   = S[t-1] + k[t] u[t]',      which is (I - beta k k') S[t-1] + beta k v'
///     out[t] = scale q[t]' S[t]
///
/// Shapes     as gated_linear_attention; beta: (B, Hb, T) or (B, Hb, T, Dv), Hv a multiple of Hb; write: as beta,
///            or empty.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   computed in float (double for double), u = 2^-24; the state is kept in that type. Tokens are solved for one
///            after the other, whatever the keys and beta: |error| <= 4 u |q| M sqrt(D / beta), where M is
///            the largest norm that the state's column ever had and beta the least of the call, for keys of norm 1 and beta <= 1.
///            The same bits for any executor, batch neighbours and strides, reversed as flipped, packed as alone, and for a
///            sequence cut into calls at multiples of 16 tokens.
/// Cost       6 F Dv operations per token, in one pass over a panel of the state in cache. One token (T = 1) reads the state, and
///            goes over it once more in cache to write it; it allocates nothing.
///            One sequence keeps as many workers busy as its heads have panels of value channels: time is not cut into blocks.
/// Errors     shape_error and value_error as the messages say; nothing is written then. A beta outside [0, 2] is
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Schlag et al. 2021, equation 24; Yang et al. 2024 (DeltaNet), section 3.
template <class Q, class E, class W, std::size_t R, class State, class O, class Feature = as_given,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void delta_rule(const delta_inputs<Q, E, W, R, State>& inputs, tensor_view<O, 4> out,
                const delta_options<Feature, Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, beta, initial_state, write] = inputs;
  const index_t F = detail::check_delta(q, k, v, beta, write, initial_state, out, options);
  static_cast<void>(F);
  const unnormalized no_sum;
  const given_log_decay no_gate;
  const detail::diagonal_problem<Q, E, T, W, Feature, given_log_decay, unnormalized> problem{
      q,
      k,
      v,
      {},
      detail::with_channels(beta),
      {},
      {},
      options.feature,
      no_gate,
      no_sum,
      detail::scale_or_root<T>(options.scale, q.extent(3)),
      options.order,
      detail::with_channels(write)};
  detail::run_diagonal<detail::decay::none, true, R == 4>(
      problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, {}, {}}, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
