// SPDX-License-Identifier: Apache-2.0
/// @file HGRN: a recurrence whose forget gate has a lower bound that grows with the layer, real and complex.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/state_space/detail/gated_recurrence.hpp>
#include <tokenmix/mixers/state_space/detail/gates.hpp>
#include <tokenmix/primitives/feature_map.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of hgrn.
template <class E, class W = accumulator_t<E>, class State = accumulator_t<E>>
struct hgrn_inputs {
  tensor_view<const E, 3> forget_gate{};        // (B, T, C), before the sigmoid
  tensor_view<const E, 3> candidate{};          // (B, T, C), before options.candidate
  tensor_view<const W, 1> lower_bound{};        // (C), in [0, 1]; 0 if empty
  tensor_view<const State, 2> initial_state{};  // (n, C); zero if empty
};

/// Options of hgrn: use with designated initialisers; the order of the fields is API.
template <class Candidate = silu, class Sequences = whole_sequences, class State = float>
struct hgrn_options {
  Candidate candidate{};                             ///< silu as in the paper, as_given or any callable of a register
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 2> final_state{};               ///< (n, C), output; may be the initial state
};

/// A complex state of n sequences.
template <class T>
struct complex_hgrn_state {
  tensor_view<T, 2> real{};       // (n, C)
  tensor_view<T, 2> imaginary{};  // (n, C)
};

/// The tensors of complex_hgrn.
template <class E, class W = accumulator_t<E>, class State = accumulator_t<E>>
struct complex_hgrn_inputs {
  tensor_view<const E, 3> forget_gate{};            // (B, T, C), before the sigmoid: of the modulus
  tensor_view<const E, 3> real{};                   // (B, T, C), before options.candidate
  tensor_view<const E, 3> imaginary{};              // (B, T, C), before options.candidate
  tensor_view<const W, 1> angle{};                  // (C): by which the state turns at every token
  tensor_view<const W, 1> lower_bound{};            // (C), in [0, 1]; 0 if empty
  complex_hgrn_state<const State> initial_state{};  // zero if empty
};

/// Options of complex_hgrn: use with designated initialisers; the order of the fields is API.
template <class Candidate = silu, class Sequences = whole_sequences, class State = float>
struct complex_hgrn_options {
  Candidate candidate{};                             ///< silu as in the paper, as_given or any callable of a register
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  complex_hgrn_state<State> final_state{};           ///< output; may be the initial state
};

namespace detail {

/// The forget gate and what it leaves, of a logit and a lower bound.
template <class T>
TOKENMIX_ALWAYS_INLINE sigmoid_and_rest<T> bounded_gate(const simd::batch<T>& x, const simd::batch<T>& bound) {
  const auto closed = sigmoid_both<T>(x ^ simd::batch<T>(T(-0.0)));  // its rest, which is kept, is exactly 0 far below
  const simd::batch<T> range = simd::batch<T>(T(1)) - bound;
  return {simd::fma(range, closed.rest, bound), range * closed.value};
}

template <class W, class Candidate>
struct hgrn_rule {
  static constexpr std::size_t inputs = 2, parameters = 1, states = 1;
  tensor_view<const W, 1> lower_bound;
  const Candidate& candidate;

  template <class T>
  T parameter(std::size_t, index_t channel) const {
    return lower_bound.data() == nullptr ? T(0) : static_cast<T>(lower_bound(channel));
  }
  template <class Batch>
  Batch prepared(std::size_t, const Batch& x) const {
    return x;
  }
  template <class Batch>
  TOKENMIX_ALWAYS_INLINE void step(const std::array<Batch, 2>& x, const std::array<Batch, 1>& bound,
                                   std::array<Batch, 1>& h, bool) const {
    using T = typename Batch::value_type;
    const auto gate = bounded_gate<T>(x[0], bound[0]);
    h[0] = kept_and_written<T>(gate.value, h[0], gate.rest * candidate(x[1]));
  }
};

template <class W, class Candidate>
struct complex_hgrn_rule {
  static constexpr std::size_t inputs = 3, parameters = 3, states = 2;
  tensor_view<const W, 1> angle, lower_bound;
  const Candidate& candidate;

  template <class T>
  T parameter(std::size_t p, index_t channel) const {
    if (p == 0) return lower_bound.data() == nullptr ? T(0) : static_cast<T>(lower_bound(channel));
    const double turn = static_cast<double>(static_cast<T>(angle(channel)));
    return static_cast<T>(p == 1 ? std::cos(turn) : std::sin(turn));
  }
  template <class Batch>
  Batch prepared(std::size_t, const Batch& x) const {
    return x;
  }
  template <class Batch>
  TOKENMIX_ALWAYS_INLINE void step(const std::array<Batch, 3>& x, const std::array<Batch, 3>& p,
                                   std::array<Batch, 2>& h, bool) const {
    using T = typename Batch::value_type;
    const Batch zero(T(0));
    const auto gate = bounded_gate<T>(x[0], p[0]);
    const auto none = gate.value == zero;  // keeps nothing: the state is not read
    const Batch real = simd::select(none, zero, h[0]), imaginary = simd::select(none, zero, h[1]);
    const Batch a = gate.value * p[1], b = gate.value * p[2];
    h[0] = simd::fma(a, real, simd::fma(zero - b, imaginary, gate.rest * candidate(x[1])));
    h[1] = simd::fma(a, imaginary, simd::fma(b, real, gate.rest * candidate(x[2])));
  }
};

template <class W>
void check_hgrn_parameter(const char* name, const tensor_view<const W, 1>& view, index_t channels) {
  check_view(name, view);
  check_extent(name, view, 0, "channels", channels, "forget_gate has that many");
}
template <class W>
void check_lower_bound(const tensor_view<const W, 1>& bound, index_t channels) {
  if (bound.data() == nullptr) return;
  check_hgrn_parameter("lower_bound", bound, channels);
  for (index_t c = 0; c < channels; ++c) {
    const double value = static_cast<double>(static_cast<accumulator_t<W>>(bound(c)));
    if (!(value >= 0 && value <= 1)) fail_value("lower_bound[", c, "] is ", value, ": expected 0 to 1");
  }
}

}  // namespace detail

/// HGRN with real numbers.
///
///     f[t]   = lower_bound + (1 - lower_bound) sigmoid(forget_gate[t])                                    in every channel
///     out[t] = h[t] = f[t] h[t-1] + (1 - f[t]) g(candidate[t]),   g = options.candidate
///
/// The output gate and norm of the published layer come after it.
///
/// Shapes     forget_gate, candidate, out: (B, T, C), any strides, last axis contiguous. lower_bound: (C). State: (n, C).
/// Aliasing   out may be forget_gate or candidate itself; the final state may be the initial one itself; otherwise no element is
///            shared.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= u sum of the magnitudes that h is made of, each 16
///            times and 12 times more for every token since, and either 3 |forget_gate| times more. 1 - f does not cancel; a gate of 0 does not read the state. The
///            same bits for any executor, batch neighbours, strides and split into calls, reversed as flipped, packed as alone.
/// Cost       1 exponential and 1 division per element, and the candidate's; inputs read and out written once. Scratch: 2 C
///            numbers per worker. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say, also for a lower bound outside [0, 1]; nothing is written then.
///            Empty dimensions are legal.
/// Source     Qin et al. 2023, Hierarchically gated recurrent neural network, section 3.
template <class E, class W, class State, class O, class Candidate = silu, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void hgrn(const hgrn_inputs<E, W, State>& inputs, tensor_view<O, 3> out,
          const hgrn_options<Candidate, Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  using rule = detail::hgrn_rule<W, detail::kernel_activation<Candidate>>;
  const auto problem =
      detail::one_state_recurrence<rule, E>({"forget_gate", "candidate"}, {inputs.forget_gate, inputs.candidate}, out,
                                            inputs.initial_state, options.final_state);
  problem.check(options.order, options.sequences, inputs.lower_bound);
  detail::check_lower_bound(inputs.lower_bound, inputs.forget_gate.extent(2));
  problem.run(rule{inputs.lower_bound, detail::activation_of(options.candidate)}, options.order, options.sequences, on);
}

/// HGRN with complex numbers: the state also turns, by an angle that each channel has.
///
///     f[t] = lower_bound + (1 - lower_bound) sigmoid(forget_gate[t])                                      in every channel
///     h[t] = f[t] exp(i angle) h[t-1] + (1 - f[t]) (g(real[t]) + i g(imaginary[t])),   g = options.candidate
///
/// out_real and out_imaginary are the parts of h. Everything else is as for hgrn; either part of the output may be any of the
/// three token tensors itself.
template <class E, class W, class State, class O, class Candidate = silu, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void complex_hgrn(const complex_hgrn_inputs<E, W, State>& inputs, tensor_view<O, 3> out_real,  // (B, T, C)
                  std::type_identity_t<tensor_view<O, 3>> out_imaginary,                       // (B, T, C)
                  const complex_hgrn_options<Candidate, Sequences, accumulator_t<E>>& options = {},
                  Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  using rule = detail::complex_hgrn_rule<W, detail::kernel_activation<Candidate>>;
  const detail::gated_recurrence<rule, E, O> problem{{"forget_gate", "real", "imaginary"},
                                                     {inputs.forget_gate, inputs.real, inputs.imaginary},
                                                     {"out_real", "out_imaginary"},
                                                     {out_real, out_imaginary},
                                                     {"initial_state.real", "initial_state.imaginary"},
                                                     {inputs.initial_state.real, inputs.initial_state.imaginary},
                                                     {"final_state.real", "final_state.imaginary"},
                                                     {options.final_state.real, options.final_state.imaginary}};
  problem.check(options.order, options.sequences, inputs.angle, inputs.lower_bound);
  detail::check_hgrn_parameter("angle", inputs.angle, inputs.forget_gate.extent(2));
  detail::check_lower_bound(inputs.lower_bound, inputs.forget_gate.extent(2));
  problem.run(rule{inputs.angle, inputs.lower_bound, detail::activation_of(options.candidate)}, options.order,
              options.sequences, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
