// SPDX-License-Identifier: Apache-2.0
/// @file Attention with bounded-memory control: slots that hold softmax means of all keys and values so far.
#pragma once

#include <tokenmix/mixers/linear/detail/slots.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of ABC with M slots. The state of n sequences is three: keys, values and log masses of the slots.
template <class Q, class E, class A, class State = accumulator_t<Q>>
struct abc_inputs {
  tensor_view<const Q, 4> q{};                   // (B, H, T, D)
  tensor_view<const E, 4> k{};                   // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                   // (B, Hk, T, Dv)
  tensor_view<const A, 4> logits{};              // (B, Hk, T, M): how much a token counts in a slot, in logs
  tensor_view<const State, 4> initial_keys{};    // (n, Hk, D, M); zero if empty
  tensor_view<const State, 4> initial_values{};  // (n, Hk, M, Dv); zero if empty
  tensor_view<const double, 3> initial_mass{};   // (n, Hk, M): the log of the sum of exp(logits); -infinity if empty
};

/// Options of abc_attention: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct abc_options {
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_keys{};                ///< (n, Hk, D, M), output; may be the initial keys
  tensor_view<State, 4> final_values{};              ///< (n, Hk, M, Dv), output; may be the initial values
  tensor_view<double, 3> final_mass{};               ///< (n, Hk, M), output; may be the initial masses
};

namespace detail {

/// What a row of logits writes to its slots, with the log masses of the slots in `mass`: a slot's mean moves by
/// sigmoid(logit - mass) towards the token, and keeps the rest.
template <class T, class A>
void write_to_slots(const A* logits, double* mass, index_t slots, T* write, T* log_decay) {
  constexpr index_t L = simd::lanes<double>;
  const simd::batch<double> zero(0.0), nothing(minus_infinity<double>);
  alignas(64) double line[3][static_cast<std::size_t>(L)] = {};
  for (index_t i = 0; i < slots; i += L) {
    const index_t n = std::min(L, slots - i);
    for (index_t j = 0; j < n; ++j) line[0][j] = static_cast<double>(static_cast<T>(logits[i + j]));
    const simd::batch<double> logit = simd::load(line[0]);
    const simd::batch<double> before = simd::load_n(mass + i, n);
    const simd::batch<double> difference = logit - before;  // infinite for the first token: all of it, and a reset
    const simd::batch<double> growth = simd::softplus(difference);
    const auto absent = logit == nothing;
    simd::store(line[1], simd::select(absent, zero, simd::sigmoid(difference)));
    simd::store(line[2], simd::select(absent, zero, zero - growth));
    simd::store_n(mass + i, simd::select(absent, before, simd::select(before == nothing, logit, before + growth)), n);
    for (index_t j = 0; j < n; ++j) {
      write[i + j] = static_cast<T>(line[1][j]);
      log_decay[i + j] = static_cast<T>(line[2][j]);
    }
  }
}

/// What tokens write to slots by their logits; the log masses of the slots are remembered.
template <class T, class A>
struct abc_rows {
  const tensor_view<const A, 4>& logits;             // (B, Hk, T, M)
  const tensor_view<const double, 3>& initial_mass;  // (n, Hk, M) or empty
  const tensor_view<double, 3>& final_mass;          // (n, Hk, M) or empty

  void begin(index_t number, index_t head, double* mass) const {
    for (index_t i = 0; i < logits.extent(3); ++i)
      mass[i] = initial_mass.data() == nullptr ? minus_infinity<double> : initial_mass(number, head, i);
  }
  void row(index_t batch, index_t head, index_t t, double* mass, T* write, T* log_decay) const {
    write_to_slots(logits.row(batch, head, t), mass, logits.extent(3), write, log_decay);
  }
  void end(index_t number, index_t head, const double* mass) const {
    for (index_t i = 0; i < logits.extent(3) && final_mass.data() != nullptr; ++i)
      final_mass(number, head, i) = mass[i];
  }
};

}  // namespace detail

/// Attention with bounded-memory control (ABC).
///
///     K[t]   = sum over s <= t of exp(logits[s]) k[s] / sum over s <= t of exp(logits[s])     per slot; V[t] likewise of v
///     out[t] = V[t]' softmax(scale K[t]' q[t])                                                over the M slots
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); any strides, last axis contiguous, H a
///            multiple of Hk. logits: (B, Hk, T, M). States: (n, Hk, D, M), (n, Hk, M, Dv) and (n, Hk, M) for n sequences.
/// Aliasing   out and the final states share no element with an input; each final one may be its initial one itself.
/// Numerics   as gated_slot_attention: the means are moved towards every token by a sigmoid in (0, 1], for logits of any size;
///            masses are double, since they grow without end. A logit of -infinity does not count. The same bits for any
///            executor, batch neighbours and strides, reversed as flipped, packed as alone, and for a sequence cut at
///            multiples of 16 tokens.
/// Cost       as gated_slot_attention, and two exponentials and a logarithm in double per token and slot.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Peng et al. 2022 (ABC), equations 3 to 6, with the control of section 3.3 as a prefix softmax.
template <class Q, class E, class A, class State, class O, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void abc_attention(const abc_inputs<Q, E, A, State>& inputs, tensor_view<O, 4> out,
                   const abc_options<Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, logits, initial_keys, initial_values, initial_mass] = inputs;
  const detail::slot_states<T> states{initial_keys, initial_values, options.final_keys, options.final_values};
  detail::check_slots(q, k, v, "logits", logits, states, out, options, initial_mass);
  const index_t n = options.sequences.count(q.extent(0));
  detail::check_state_part("initial_mass", initial_mass, "final_mass", options.final_mass,
                           {n, k.extent(1), logits.extent(3)}, "(sequences, Hk, slots)", out, options.final_keys,
                           options.final_values, q, k, v, logits, initial_keys, initial_values);

  const detail::abc_rows<T, A> rows{logits, initial_mass, options.final_mass};
  detail::attend_slots(q, k, v, logits.extent(3), detail::scale_or_root<T>(options.scale, q.extent(3)), states, out,
                       options.order, options.sequences, on, rows);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
