// SPDX-License-Identifier: Apache-2.0
/// @file The generalised delta rule: a transition that is the identity, or a diagonal, plus low rank.
#pragma once

#include <tokenmix/mixers/linear/detail/low_rank.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of the generalised delta rule.
template <class Q, class E, class G = accumulator_t<Q>, class State = accumulator_t<Q>>
struct generalized_delta_inputs {
  tensor_view<const Q, 4> q{};          // (B, H, T, D)
  tensor_view<const E, 4> k{};          // (B, Hk, T, D)
  tensor_view<const E, 4> v{};          // (B, Hv, T, Dv)
  tensor_view<const E, 4> a{};          // (B, Hk, T, D): where what b reads is written
  tensor_view<const E, 4> b{};          // (B, Hk, T, D): reads the state before the token
  tensor_view<const G, 4> log_decay{};  // (B, Hg, T, D): what options.gate makes the log decay of; identity if empty
  tensor_view<const State, 4> initial_state{};  // (n, Hv, D, Dv) for n sequences; zero if empty
  tensor_view<const State, 1> rate{};           // (Hg) of softplus_gate: A_log
  tensor_view<const State, 2> bias{};           // (Hg, D) of softplus_gate: dt_bias; zero if empty
};

/// Options of generalized_delta_rule: use with designated initialisers; the order of the fields is API.
template <class Gate = given_log_decay, class Sequences = whole_sequences, class State = float>
struct generalized_delta_options {
  Gate gate{};                                       ///< what makes the log decay
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, D, Dv), output; may be the initial state
};

/// The generalised delta rule: identity plus low rank (IPLR), diagonal plus low rank (DPLR).
///
///     S[t]   = (diag(decay[t]) + a[t] b[t]') S[t-1] + k[t] v[t]',      decay = exp(log_decay), 1 without
///     out[t] = scale q[t]' S[t]
///
/// The delta rule is a = -beta k, b = k and beta v for v; rwkv7 an instance with a decay.
///
/// Shapes     q: (B, H, T, D); k, a, b: (B, Hk, T, D); v: (B, Hv, T, Dv); out: (B, max(H, Hv), T, Dv); any strides, last axis
///            contiguous. H and Hv are multiples of Hk and one of them is Hk. log_decay: (B, Hg, T, D) with Hv a multiple of
///            Hg, or empty. States: (n, Hv, D, Dv), keys first.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   computed in float (double for double), u = 2^-24; the state is kept in that type. What the tokens of a chunk read
///            solves a triangular system by forward substitution: |error| <= 8 u |q| M sqrt(D / beta), where M is the largest
///            norm that the state's column ever had and beta the least of -a'b, for b of norm 1 and transitions that do not
///            grow; for any log decay <= 0, mixed in any way: every exponent taken is <= 0. A log decay of -infinity is a reset:
///            what the state held there is read by its token's b, as the formula has it, and does not survive otherwise. The
///            same bits for any executor, batch neighbours and strides, reversed as flipped, packed as alone, and for a
///            sequence cut into calls at multiples of 16 tokens.
/// Cost       8 D Dv operations per token; pairs within chunks of 16 tokens add about 4 * 16 (2 D + Dv), with a log decay
///            12 * 16 D. One token (T = 1) reads the state, and goes over it once more in cache to write it; it allocates nothing.
///            One sequence keeps as many workers busy as its heads have panels of value channels: time is not cut into blocks.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Yang et al. 2024 (DeltaNet), section 6; Peng et al. 2025 (RWKV-7), section 3. Kernels that keep S as (Dv, D)
///            write S (diag + a b'): their a reads and their b writes, the other way round.
template <class Q, class E, class G, class State, class O, class Gate = given_log_decay,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void generalized_delta_rule(const generalized_delta_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
                            const generalized_delta_options<Gate, Sequences, accumulator_t<Q>>& options = {},
                            Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, a, b, log_decay, initial_state, rate, bias] = inputs;
  detail::check_low_rank("q", q, k, v, a, b, initial_state, out, options, log_decay);
  const bool decays = log_decay.data() != nullptr;
  if (decays) {
    detail::check_gate("log_decay", log_decay, k, v);
    detail::check_gate_formula(log_decay, k.extent(3), "k has that many", rate, bias, Gate::takes_rate);
  } else {
    detail::check_no_gate(rate, bias);
  }
  const detail::low_rank_problem<Q, E, G, Gate> problem{q,
                                                        k,
                                                        v,
                                                        a,
                                                        b,
                                                        log_decay,
                                                        rate,
                                                        bias,
                                                        options.gate,
                                                        detail::scale_or_root<T>(options.scale, q.extent(3)),
                                                        options.order};
  const detail::recurrence_result<T, O> result{out, initial_state, options.final_state, {}, {}};
  if (decays) {
    detail::run_low_rank<true>(problem, result, options.sequences, on);
  } else {
    detail::run_low_rank<false>(problem, result, options.sequences, on);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
