// SPDX-License-Identifier: Apache-2.0
/// @file The minimal gated recurrent unit, whose gate does not see the state.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/state_space/candidate.hpp>
#include <tokenmix/mixers/state_space/detail/gated_recurrence.hpp>
#include <tokenmix/primitives/feature_map.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of min_gru.
template <class E, class State = accumulator_t<E>>
struct min_gru_inputs {
  tensor_view<const E, 3> gate{};               // (B, T, C), before the sigmoid
  tensor_view<const E, 3> candidate{};          // (B, T, C)
  tensor_view<const State, 2> initial_state{};  // (n, C): h itself; zero if empty
};

/// Options of min_gru: use with designated initialisers; the order of the fields is API.
template <class Candidate = as_given, class Sequences = whole_sequences, class State = float>
struct min_gru_options {
  Candidate candidate{};  ///< as_given, positive_candidate (the paper's log-space form) or any callable of a register
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 2> final_state{};               ///< (n, C), output; may be the initial state
};

namespace detail {

template <class Candidate>
struct min_gru_rule {
  static constexpr std::size_t inputs = 2, parameters = 0, states = 1;
  const Candidate& candidate;

  template <class Batch, std::size_t P>
  TOKENMIX_ALWAYS_INLINE void step(const std::array<Batch, 2>& x, const std::array<Batch, P>&, std::array<Batch, 1>& h,
                                   bool) const {
    using T = typename Batch::value_type;
    const auto z = sigmoid_both<T>(x[0]);
    h[0] = kept_and_written<T>(z.rest, h[0], z.value * candidate(x[1]));
  }
};

}  // namespace detail

/// minGRU.
///
///     z[t]   = sigmoid(gate[t])                                                                           in every channel
///     out[t] = h[t] = (1 - z[t]) h[t-1] + z[t] f(candidate[t]),   f = options.candidate
///
/// With positive_candidate this is the paper's log-space unit, whose value it computes without logs.
///
/// Shapes     gate, candidate, out: (B, T, C), any strides, last axis contiguous. State: (n, C).
/// Aliasing   out may be gate or candidate itself; the final state may be the initial one itself; otherwise no element is shared.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= u sum of the magnitudes that h is made of, each 12
///            times and 8 times more for every token since, and either 3 |gate| times more. 1 - z does not cancel; a gate of infinity does not read the state.
///            The same bits for any executor, batch neighbours, strides and split into calls, reversed as flipped, packed as
///            alone.
/// Cost       1 exponential and 1 division per element, twice that with positive_candidate; inputs read and out written once.
///            Scratch: C numbers per worker. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Feng et al. 2024, Were RNNs all we needed?, section 3.1 and appendix B.
template <class E, class State, class O, class Candidate = as_given, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void min_gru(const min_gru_inputs<E, State>& inputs, tensor_view<O, 3> out,
             const min_gru_options<Candidate, Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  using rule = detail::min_gru_rule<detail::kernel_activation<Candidate>>;
  const auto problem = detail::one_state_recurrence<rule, E>({"gate", "candidate"}, {inputs.gate, inputs.candidate},
                                                             out, inputs.initial_state, options.final_state);
  problem.check(options.order, options.sequences);
  problem.run(rule{detail::activation_of(options.candidate)}, options.order, options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
