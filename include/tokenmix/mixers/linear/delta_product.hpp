// SPDX-License-Identifier: Apache-2.0
/// @file The delta product: several steps of the delta rule per token.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/delta_product_rule.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of the delta product, n >= 1 steps per token.
template <class Q, class E, class W, class G = accumulator_t<Q>, class State = accumulator_t<Q>>
struct delta_product_inputs {
  tensor_view<const Q, 4> q{};          // (B, H, T, D)
  tensor_view<const E, 5> k{};          // (B, Hk, T, n, D)
  tensor_view<const E, 5> v{};          // (B, Hv, T, n, Dv)
  tensor_view<const W, 4> beta{};       // (B, Hb, T, n): how much a step replaces, in [0, 2]
  tensor_view<const G, 3> log_decay{};  // (B, Hg, T): what options.gate makes the log decay of; no gate if empty
  tensor_view<const State, 4> initial_state{};  // (sequences, Hv, F, Dv); zero if empty
  tensor_view<const State, 1> rate{};           // (Hg) of softplus_gate: A_log
  tensor_view<const State, 2> bias{};           // (Hg, 1) of softplus_gate: dt_bias; zero if empty
};

/// Options of delta_product: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Gate = given_log_decay, class Sequences = whole_sequences,
          class State = float>
struct delta_product_options {
  Feature feature{};                                 ///< of q and k: as_given, l2_normalized, ...
  Gate gate{};                                       ///< given_log_decay, log_sigmoid_gate or softplus_gate
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< of the tokens: forward or reverse; steps keep theirs
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (sequences, Hv, F, Dv), output; may be the initial state
};

/// The delta product, gated or not: a token's transition is a product of n (generalised) Householder matrices.
///
///     S      = decay[t] S[t-1],      decay = exp(log_decay), 1 without
///     S      = S + beta[t][i] k[t][i] (v[t][i] - S'k[t][i])'      for i = 0 .. n - 1
///     out[t] = scale q[t]' S[t]
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, n, D); v: (B, Hv, T, n, Dv); out: (B, max(H, Hv), T, Dv); any strides, last axis
///            contiguous. H and Hv are multiples of Hk and one of them is Hk. beta: (B, Hb, T, n), log_decay: (B, Hg, T) or
///            empty, Hv a multiple of Hb and of Hg. F is the width of the features, D as a rule. States: (sequences, Hv, F, Dv).
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   as gated_delta_rule, each step being one of its tokens: |error| <= 4 u |q| M sqrt(D / beta). A log decay of
///            -infinity is a reset: what the state held is not read, NaN included. The same bits for any executor, batch
///            neighbours and strides, reversed as flipped, packed as alone, and for a sequence cut into calls at multiples of
///            16 tokens.
/// Cost       (4 n + 2) F Dv operations per token; pairs of the 16 steps that are solved for together add about
///            2 * 16 n (F + Dv / 2). One token (T = 1) reads the state, and goes over it once more in cache to write it; it
///            allocates nothing.
///            One sequence keeps as many workers busy as its heads have panels of value channels: time is not cut into blocks.
/// Errors     shape_error and value_error as the messages say; nothing is written then. A beta outside [0, 2] and
///            a log decay above 0 are found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Siems et al. 2025 (DeltaProduct), equation 4; its gated form has a decay per token, before the first step.
template <class Q, class E, class W, class G, class State, class O, class Feature = as_given,
          class Gate = given_log_decay, class Sequences = whole_sequences, executor Executor = calling_thread>
void delta_product(const delta_product_inputs<Q, E, W, G, State>& inputs, tensor_view<O, 4> out,
                   const delta_product_options<Feature, Gate, Sequences, accumulator_t<Q>>& options = {},
                   Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, beta, log_decay, initial_state, rate, bias] = inputs;
  detail::check_direction(options.order);
  detail::check_input("k", k);
  detail::check_input("v", v);
  if (k.extent(3) < 1) detail::fail_shape("k has no steps: at least 1 per token is needed");
  detail::check_same_extent("v", v, 3, "k", k, 3, "steps");
  const tensor_view<const E, 4> first_k = detail::rows_of_step(k, 0), first_v = detail::rows_of_step(v, 0);
  detail::check_tokens(q, first_k, first_v, true);
  detail::check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  detail::check_view("beta", beta);
  detail::check_same_extent("beta", beta, 3, "k", k, 3, "steps");
  detail::check_gate("beta", detail::rows_of_step(beta, 0), first_k, first_v);
  const bool decays = log_decay.data() != nullptr;
  if (decays) {
    detail::check_gate("log_decay", log_decay, first_k, first_v);
    detail::check_gate_formula(log_decay, 1, "it is of a head", rate, bias, Gate::takes_rate);
  } else {
    detail::check_no_gate(rate, bias);
  }
  const index_t F = detail::check_feature(options.feature, k.extent(4), q.extent(1), k.extent(1));
  detail::check_results(out, {q.extent(0), std::max(q.extent(1), v.extent(1)), q.extent(2), v.extent(4)}, initial_state,
                        options.final_state, {options.sequences.count(q.extent(0)), v.extent(1), F, v.extent(4)}, q, k,
                        v, beta, log_decay);
  detail::assert_betas(beta, options.sequences, q.extent(0));

  const detail::delta_product_problem<Q, E, G, W, Feature, Gate> problem{
      q,
      k,
      v,
      beta,
      detail::with_channels(log_decay),
      rate,
      bias,
      options.feature,
      options.gate,
      detail::scale_or_root<T>(options.scale, q.extent(3)),
      options.order};
  const detail::recurrence_shape shape{std::max(q.extent(1), v.extent(1)), k.extent(1), v.extent(1), v.extent(4),
                                       options.order};
  const auto run = [&](auto gated) {
    detail::run_recurrence<T, O>(
        shape, {out, initial_state, options.final_state, {}, {}}, options.sequences, q.extent(0), q.extent(2),
        k.extent(2),
        [&](scratch_frame& frame) {
          return detail::delta_product_rule<std::remove_const_t<decltype(problem)>, gated.value>(problem, frame);
        },
        on);
  };
  if (decays) {
    run(std::true_type{});
  } else {
    run(std::false_type{});
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
