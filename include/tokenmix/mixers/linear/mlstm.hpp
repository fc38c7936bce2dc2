// SPDX-License-Identifier: Apache-2.0
/// @file The mLSTM: a matrix memory under exponential gates, kept relative to a running maximum.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/mlstm_rule.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of mLSTM. A state of n sequences is three: S, z and m.
template <class Q, class E, class G, class State = accumulator_t<Q>>
struct mlstm_inputs {
  tensor_view<const Q, 4> q{};                  // (B, H, T, D)
  tensor_view<const E, 4> k{};                  // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                  // (B, Hk, T, Dv)
  tensor_view<const G, 3> input_gate{};         // (B, Hk, T): the log of the input gate, any number
  tensor_view<const G, 3> log_decay{};          // (B, Hk, T): what options.gate makes the log of the forget gate of
  tensor_view<const State, 4> initial_state{};  // (n, Hk, D, Dv) S; zero if empty
  tensor_view<const State, 3> initial_sum{};    // (n, Hk, D) z; zero if empty
  tensor_view<const State, 2> initial_max{};    // (n, Hk) m; 0 if empty and there is an initial state
};

/// Options of mlstm: use with designated initialisers; the order of the fields is API.
template <class Gate = given_log_decay, class Sequences = whole_sequences, class State = float>
struct mlstm_options {
  Gate gate{};                                       ///< given_log_decay or log_sigmoid_gate
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  double epsilon = 0;                                ///< added to what outputs are divided by
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hk, D, Dv), output; may be the initial state
  tensor_view<State, 3> final_sum{};                 ///< (n, Hk, D), output; may be the initial sum
  tensor_view<State, 2> final_max{};                 ///< (n, Hk), output; may be the initial maximum
};

/// mLSTM, the matrix memory of xLSTM.
///
///     m[t]   = max(log_decay[t] + m[t-1], input_gate[t])
///     S[t]   = exp(log_decay[t] + m[t-1] - m[t]) S[t-1] + exp(input_gate[t] - m[t]) k[t] v[t]',   z[t] likewise with k[t]
///     out[t] = scale q[t]' S[t] / (max(|scale q[t]' z[t]|, exp(-m[t])) + epsilon)
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); any strides, last axis contiguous, H a
///            multiple of Hk. input_gate, log_decay: (B, Hk, T). State: (n, Hk, D, Dv), (n, Hk, D) and (n, Hk); what S and z stand
///            for is exp(m) times them, and m = -infinity is the empty state.
/// Aliasing   out and the final state share no element with an input; each final part may be the initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24. Numerator and denominator have an error of 8 u A + 2 u A1: A is
///            the recurrence on absolute values, A1 that with every token's part times its distance; for any input gate and
///            any log decay <= 0, mixed in any way: exponents are sums of gates in double and none exceeds 0. Outputs
///            below the smallest normal number may become 0. A log decay of -infinity is a reset: what the state held is not
///            read, NaN included. The same bits for any executor, batch
///            neighbours and strides, reversed as flipped, packed as alone, and for a sequence cut at multiples of 16 tokens.
/// Cost       as gated_linear_attention with a gate per head, but for blocks of time, which there are none of. One token passes
///            over the state once and allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Beck et al. 2024 (xLSTM), equations 19 to 27, and appendix A.3.
template <class Q, class E, class G, class State, class O, class Gate = given_log_decay,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void mlstm(const mlstm_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
           const mlstm_options<Gate, Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  static_assert(!Gate::takes_rate, "the gate is given_log_decay or log_sigmoid_gate");
  const auto& [q, k, v, input_gate, log_decay, initial_state, initial_sum, initial_max] = inputs;
  detail::check_direction(options.order);
  detail::check_tokens(q, k, v, true);
  detail::check_same_extent("v", v, 1, "k", k, 1, "heads");
  detail::check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  const index_t Hk = k.extent(1), D = k.extent(3);
  for (const auto& [name, gate] : {std::pair{"input_gate", &input_gate}, std::pair{"log_decay", &log_decay}}) {
    detail::check_view(name, *gate);
    detail::check_shape(name, *gate, {k.extent(0), Hk, k.extent(2)}, "(B, Hk, T)");
  }
  const index_t n = options.sequences.count(q.extent(0));
  detail::check_results(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, initial_state, options.final_state,
                        {n, Hk, D, v.extent(3)}, q, k, v, input_gate, log_decay);
  detail::check_state_part("initial_sum", initial_sum, "final_sum", options.final_sum, {n, Hk, D}, "(sequences, Hk, D)",
                           out, options.final_state, q, k, v, input_gate, log_decay, initial_state, initial_max);
  detail::check_state_part("initial_max", initial_max, "final_max", options.final_max, {n, Hk}, "(sequences, Hk)", out,
                           options.final_state, options.final_sum, q, k, v, input_gate, log_decay, initial_state,
                           initial_sum);

  // m and z side by side, and copies: tasks that share a head all read them, one writes them.
  scratch_frame frame;
  const bool starts_empty = initial_state.data() == nullptr && initial_sum.data() == nullptr;
  const extents<3> shape{n, Hk, D + 1};
  const tensor_view<T, 3> before(frame.take<T>(n * Hk * (D + 1)), shape), after(frame.take<T>(n * Hk * (D + 1)), shape);
  const auto each = [&](auto&& f) {
    for (index_t i = 0; i < n; ++i) {
      for (index_t h = 0; h < Hk; ++h) f(i, h);
    }
  };
  each([&](index_t i, index_t h) {
    before(i, h, 0) = starts_empty ? detail::minus_infinity<T> : T(0);
    if (initial_max.data() != nullptr) before(i, h, 0) = initial_max(i, h);
    for (index_t d = 0; d < D; ++d) before(i, h, d + 1) = initial_sum.data() == nullptr ? T(0) : initial_sum(i, h, d);
  });
  const detail::mlstm_problem<Q, E, G, Gate> problem{q,
                                                     k,
                                                     v,
                                                     input_gate,
                                                     log_decay,
                                                     options.gate,
                                                     detail::scale_or_root<T>(options.scale, D),
                                                     static_cast<T>(options.epsilon),
                                                     options.order};
  const detail::recurrence_shape heads{q.extent(1), Hk, Hk, v.extent(3), options.order};
  detail::run_recurrence<T, O>(
      heads, detail::recurrence_result<T, O>{out, initial_state, options.final_state, before, after}, options.sequences,
      q.extent(0), q.extent(2), k.extent(2), [&](scratch_frame& own) { return detail::mlstm_rule(problem, own); }, on);
  each([&](index_t i, index_t h) {
    if (options.final_max.data() != nullptr) options.final_max(i, h) = after(i, h, 0);
    for (index_t d = 0; d < D && options.final_sum.data() != nullptr; ++d)
      options.final_sum(i, h, d) = after(i, h, d + 1);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
