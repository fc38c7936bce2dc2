// SPDX-License-Identifier: Apache-2.0
/// @file The minimal long short-term memory, whose gates do not see the state.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/state_space/candidate.hpp>
#include <tokenmix/mixers/state_space/detail/gated_recurrence.hpp>
#include <tokenmix/primitives/feature_map.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of min_lstm.
template <class E, class State = accumulator_t<E>>
struct min_lstm_inputs {
  tensor_view<const E, 3> forget_gate{};        // (B, T, C), before the sigmoid
  tensor_view<const E, 3> input_gate{};         // (B, T, C), before the sigmoid
  tensor_view<const E, 3> candidate{};          // (B, T, C)
  tensor_view<const State, 2> initial_state{};  // (n, C): h itself; zero if empty
};

/// What the two gates are worth.
enum class min_lstm_gates : unsigned char {
  normalized,  ///< f / (f + i) and i / (f + i): a mean, of a size that does not depend on time
  separate,    ///< f and i
};

/// Options of min_lstm: use with designated initialisers; the order of the fields is API.
template <class Candidate = as_given, class Sequences = whole_sequences, class State = float>
struct min_lstm_options {
  Candidate candidate{};  ///< as_given, positive_candidate (the paper's log-space form) or any callable of a register
  min_lstm_gates gates = min_lstm_gates::normalized;
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 2> final_state{};               ///< (n, C), output; may be the initial state
};

namespace detail {

template <class Candidate>
struct min_lstm_rule {
  static constexpr std::size_t inputs = 3, parameters = 0, states = 1;
  const Candidate& candidate;
  bool normalized;

  template <class Batch, std::size_t P>
  TOKENMIX_ALWAYS_INLINE void step(const std::array<Batch, 3>& x, const std::array<Batch, P>&, std::array<Batch, 1>& h,
                                   bool) const {
    using T = typename Batch::value_type;
    const Batch zero(T(0)), one(T(1));
    if (!normalized) {
      h[0] = kept_and_written<T>(gated<T>(one, x[0]), h[0], gated<T>(candidate(x[2]), x[1]));
      return;
    }
    // f : i = 1 + e^-x[1] : 1 + e^-x[0], all of it divided by about the largest of the three exponentials, a power of two: nothing
    // overflows, and one of the terms is about 1. Minus infinity is far enough away at -10^30.
    const Batch least(T(-1e30)), minus_log2_e(T(-0x1.71547652b82fep+0));
    const Batch f = simd::max_or_second<T>(least, x[0]), i = simd::max_or_second<T>(least, x[1]);
    // Rounded before they are compared and shifted: at 10^30 the difference of an exact product is no exponent.
    const Batch of_f = simd::in_register<T>(f * minus_log2_e), of_i = simd::in_register<T>(i * minus_log2_e);
    const Batch largest = simd::max_or_second<T>(zero, simd::max_or_second<T>(of_f, of_i));
    const Batch shift = zero - simd::nearest_integer<T>(largest);
    const Batch unit = simd::power_of_two<T>(shift);
    const Batch keep = unit + simd::exp2_either_sign<T>(of_i + shift);
    const Batch write = unit + simd::exp2_either_sign<T>(of_f + shift);
    const Batch inverse = simd::divide<T>(one, keep + write);
    h[0] = kept_and_written<T>(keep * inverse, h[0], write * inverse * candidate(x[2]));
  }
};

}  // namespace detail

/// minLSTM.
///
///     f[t]   = sigmoid(forget_gate[t]),   i[t] = sigmoid(input_gate[t])                                   in every channel
///     out[t] = h[t] = f[t] / (f[t] + i[t]) h[t-1] + i[t] / (f[t] + i[t]) g(candidate[t]),   g = options.candidate
///
/// and with gates = separate without the denominators. With positive_candidate this is the paper's log-space unit, whose value
/// it computes without logs: nothing overflows, and gates that are both closed have the ratio that they tend to.
///
/// Shapes     forget_gate, input_gate, candidate, out: (B, T, C), any strides, last axis contiguous. State: (n, C).
/// Aliasing   out may be any of the three token tensors itself; the final state may be the initial one itself; otherwise no
///            element is shared.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= u sum of the magnitudes that h is made of, each 16
///            times and 12 times more for every token since, and either 3 (|forget_gate| + |input_gate|) times more. What keeps nothing does not read the state. The same bits for any
///            executor, batch neighbours, strides and split into calls, reversed as flipped, packed as alone.
/// Cost       2 exponentials and 1 division per element (separate: 2 and 2); inputs read and out written once. Scratch: C numbers
///            per worker. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Feng et al. 2024, Were RNNs all we needed?, section 3.2 and appendix B.
template <class E, class State, class O, class Candidate = as_given, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void min_lstm(const min_lstm_inputs<E, State>& inputs, tensor_view<O, 3> out,
              const min_lstm_options<Candidate, Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  using rule = detail::min_lstm_rule<detail::kernel_activation<Candidate>>;
  const auto problem = detail::one_state_recurrence<rule, E>({"forget_gate", "input_gate", "candidate"},
                                                             {inputs.forget_gate, inputs.input_gate, inputs.candidate},
                                                             out, inputs.initial_state, options.final_state);
  problem.check(options.order, options.sequences);
  problem.run(rule{detail::activation_of(options.candidate), options.gates == min_lstm_gates::normalized},
              options.order, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
