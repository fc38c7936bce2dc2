// SPDX-License-Identifier: Apache-2.0
/// @file RG-LRU, the real-gated linear recurrent unit of Griffin and RecurrentGemma.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/state_space/detail/gated_recurrence.hpp>
#include <tokenmix/mixers/state_space/detail/gates.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of rg_lru.
template <class E, class W = accumulator_t<E>, class State = accumulator_t<E>>
struct rg_lru_inputs {
  tensor_view<const E, 3> x{};                  // (B, T, C)
  tensor_view<const E, 3> recurrence_gate{};    // (B, T, C), before the sigmoid
  tensor_view<const E, 3> input_gate{};         // (B, T, C), before the sigmoid
  tensor_view<const W, 1> lambda{};             // (C)
  tensor_view<const State, 2> initial_state{};  // (n, C); zero if empty
};

/// What happens to the first input of a sequence that has no initial state.
enum class rg_lru_start : unsigned char {
  scaled,  ///< it is scaled by sqrt(1 - a^2) as all others: the paper
  whole,   ///< it is not: RecurrentGemma's code
};

/// Options of rg_lru: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct rg_lru_options {
  double c = 8;  ///< how much a gate can add to the decay
  rg_lru_start start = rg_lru_start::scaled;
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 2> final_state{};               ///< (n, C), output; may be the initial state
};

namespace detail {

template <class W>
struct rg_lru_rule {
  static constexpr std::size_t inputs = 3, parameters = 1, states = 1;
  tensor_view<const W, 1> lambda;
  double c;
  bool starts_whole;

  template <class T>
  T parameter(std::size_t, index_t channel) const {
    return static_cast<T>(lambda(channel));
  }
  template <class Batch>
  Batch prepared(std::size_t, const Batch& x) const {
    using T = typename Batch::value_type;
    return simd::softplus(x) * Batch(static_cast<T>(-c * 0x1.71547652b82fep+0));  // log2 a of a gate that is open
  }
  template <class Batch>
  TOKENMIX_ALWAYS_INLINE void step(const std::array<Batch, 3>& x, const std::array<Batch, 1>& rate,
                                   std::array<Batch, 1>& h, bool first) const {
    using T = typename Batch::value_type;
    const auto a = simd::exp2_and_rest<T>(gated<T>(rate[0], x[1]));
    Batch size = simd::sqrt<T>(simd::fma(a.rest, a.value, a.rest));  // 1 - a^2 = (1 - a) (1 + a)
    if (first && starts_whole) size = Batch(T(1));
    h[0] = kept_and_written<T>(a.value, h[0], size * gated<T>(x[0], x[2]));
  }
};

}  // namespace detail

/// RG-LRU.
///
///     log a[t] = -c softplus(lambda) sigmoid(recurrence_gate[t])                                          in every channel
///     out[t]   = h[t] = a[t] h[t-1] + sqrt(1 - a[t]^2) sigmoid(input_gate[t]) x[t]
///
/// The paper's text has a = sigmoid(lambda)^(c r), which would be softplus(-lambda); its appendix, its code and this function
/// have softplus(lambda), so that a larger lambda forgets more.
///
/// Shapes     x, recurrence_gate, input_gate, out: (B, T, C), any strides, last axis contiguous. lambda: (C). State: (n, C).
/// Aliasing   out may be any of the three token tensors itself; the final state may be the initial one itself; otherwise no
///            element is shared.
/// Numerics   computed in float (double for double), u = 2^-24. 1 - a^2 is (1 - a) (1 + a), of a difference that does not cancel:
///            what is written is exact within (16 + 3 |r| + 3 |i|) u, r and i being the gates before the sigmoid, a within
///            (12 + (8 + 3 |r|) |log a|) u. |error| <= sum of the magnitudes that h is made of, each times the first, and the
///            second once more for every token since; and (1 + sqrt(softplus(lambda)))
///            2^-61 |x| where log a is below the normal numbers. What keeps nothing does not read the state. The same bits for
///            any executor, batch neighbours, strides and split into calls, reversed as flipped, packed as alone.
/// Cost       3 exponentials, a division and a square root per element; inputs read and out written once. Scratch: 2 C
///            numbers per worker. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     De et al. 2024 (Griffin), equations 1 to 4 and appendix A.
template <class E, class W, class State, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void rg_lru(const rg_lru_inputs<E, W, State>& inputs, tensor_view<O, 3> out,
            const rg_lru_options<Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  using rule = detail::rg_lru_rule<W>;
  const auto problem = detail::one_state_recurrence<rule, E>({"x", "recurrence_gate", "input_gate"},
                                                             {inputs.x, inputs.recurrence_gate, inputs.input_gate}, out,
                                                             inputs.initial_state, options.final_state);
  problem.check(options.order, options.sequences, inputs.lambda);
  detail::check_view("lambda", inputs.lambda);
  detail::check_extent("lambda", inputs.lambda, 0, "channels", inputs.x.extent(2), "x has that many");
  if (!(options.c >= 0)) detail::fail_value("c is ", options.c, ": a decay grows with its gate, expected 0 or more");
  problem.run(rule{inputs.lambda, options.c, options.start == rg_lru_start::whole}, options.order, options.sequences,
              on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
