// SPDX-License-Identifier: Apache-2.0
/// @file Retention: linear attention with a fixed decay per head.
#pragma once

#include <tokenmix/mixers/linear/gated_linear_attention.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of retention.
template <class Q, class E, class G, class State = accumulator_t<Q>>
struct retention_inputs {
  tensor_view<const Q, 4> q{};                  // (B, H, T, D)
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                  // (B, Hv, T, Dv)
  tensor_view<const G, 1> log_decay{};          // (Hg)
  tensor_view<const State, 4> initial_state{};  // (n, Hv, F, Dv) for n sequences; zero if empty
};

/// Options of retention: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Sequences = whole_sequences, class State = float>
struct retention_options {
  Feature feature{};                                 ///< of q and k: as_given, silu, ...
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given. Lightning attention: 1
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, F, Dv), output; may be the initial state
};

/// RetNet's log decay of head h: log(1 - 2^(-5 - h)).
inline double retention_log_decay(index_t head) { return std::log1p(-std::exp2(-5.0 - static_cast<double>(head))); }

/// Lightning attention's log decay of head h of H in layer l of n: -2^(-8 (h + 1) / H) (1 - l / (n - 1) + 1e-5), for a
/// power of two of heads.
inline double lightning_log_decay(index_t head, index_t heads, index_t layer = 0, index_t layers = 2) {
  const double slope = std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(heads));
  return -slope * (1 - static_cast<double>(layer) / static_cast<double>(layers - 1) + 1e-5);
}

/// Retention: RetNet, Lightning attention, TransNormer.
///
///     S[t]   = exp(log_decay[h]) S[t-1] + k[t] v[t]'
///     out[t] = scale q[t]' S[t]
///
/// Shapes     as gated_linear_attention; log_decay: (Hg), Hv a multiple of Hg.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   as gated_linear_attention: powers of a decay are exponentials of sums of its log, none of them above 1.
/// Cost       as gated_linear_attention with a gate per head.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Sun et al. 2023 (RetNet), equation 6; Qin et al. 2024 (Lightning attention), equation 4.
template <class Q, class E, class G, class State, class O, class Feature = as_given, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void retention(const retention_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
               const retention_options<Feature, Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  detail::check_view("log_decay", inputs.log_decay);
  const tensor_view<const G, 3> at_every_token(inputs.log_decay.data(),
                                               {inputs.k.extent(0), inputs.log_decay.extent(0), inputs.k.extent(2)},
                                               {0, inputs.log_decay.stride(0), 0});
  gated_linear_attention(gated_linear_inputs<Q, E, G, 3, State>{.q = inputs.q,
                                                                .k = inputs.k,
                                                                .v = inputs.v,
                                                                .log_decay = at_every_token,
                                                                .initial_state = inputs.initial_state},
                         out,
                         gated_linear_options<Feature, given_log_decay, key_channels, Sequences, accumulator_t<Q>>{
                             .feature = options.feature,
                             .scale = options.scale,
                             .order = options.order,
                             .sequences = options.sequences,
                             .final_state = options.final_state},
                         on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
