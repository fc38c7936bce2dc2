// SPDX-License-Identifier: Apache-2.0
/// @file Gated slot attention: softmax attention over slots that forget by a gate of their own.
#pragma once

#include <tokenmix/mixers/linear/detail/slots.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of gated slot attention with M slots. The state of n sequences is two: keys and values of the slots.
template <class Q, class E, class G, class State = accumulator_t<Q>>
struct gated_slot_inputs {
  tensor_view<const Q, 4> q{};                   // (B, H, T, D)
  tensor_view<const E, 4> k{};                   // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                   // (B, Hk, T, Dv)
  tensor_view<const G, 4> log_decay{};           // (B, Hk, T, M): what options.gate makes the log decay of
  tensor_view<const G, 4> write{};               // (B, Hk, T, M): what a token writes to a slot; 1 - decay if empty
  tensor_view<const State, 4> initial_keys{};    // (n, Hk, D, M); zero if empty
  tensor_view<const State, 4> initial_values{};  // (n, Hk, M, Dv); zero if empty
};

/// Options of gated_slot_attention: use with designated initialisers; the order of the fields is API.
template <class Gate = given_log_decay, class Sequences = whole_sequences, class State = float>
struct gated_slot_options {
  Gate gate{};                                       ///< given_log_decay or log_sigmoid_gate
  std::optional<double> scale{};                     ///< of q; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_keys{};                ///< (n, Hk, D, M), output; may be the initial keys
  tensor_view<State, 4> final_values{};              ///< (n, Hk, M, Dv), output; may be the initial values
};

namespace detail {

/// What tokens write to slots and how these decay; nothing is remembered.
template <class T, class G, class Gate>
struct gated_slot_rows {
  const tensor_view<const G, 4>& log_decay;  // (B, Hk, T, M)
  const tensor_view<const G, 4>& write;      // the same, or empty
  const Gate& gate;

  void begin(index_t, index_t, double*) const {}
  void end(index_t, index_t, double*) const {}
  void row(index_t batch, index_t head, index_t t, double*, T* to_write, T* to_log_decay) const {
    constexpr index_t L = simd::lanes<T>;
    const index_t M = log_decay.extent(3);
    const simd::batch<T> zero(T(0));
    const G* log_row = log_decay.row(batch, head, t);
    for (index_t i = 0; i < M; i += L) {
      const index_t n = std::min(L, M - i);
      const simd::batch<T> log = gate.log_decay(simd::load_as_n<T>(log_row + i, n), T(0), zero);
      simd::store_n(to_log_decay + i, log, n);
      const simd::batch<T> written =
          write.data() == nullptr ? zero - simd::expm1(log) : simd::load_as_n<T>(write.row(batch, head, t) + i, n);
      simd::store_n(to_write + i, written, n);
    }
    assert_log_decays(to_log_decay, M);
  }
};

}  // namespace detail

/// Gated slot attention.
///
///     K[t]   = K[t-1] diag(decay[t]) + k[t] write[t]',   V[t] = diag(decay[t]) V[t-1] + write[t] v[t]',   decay = exp(log_decay)
///     out[t] = V[t]' softmax(scale K[t]' q[t])            over the M slots
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); any strides, last axis contiguous, H a
///            multiple of Hk. log_decay, write: (B, Hk, T, M). States: (n, Hk, D, M) and (n, Hk, M, Dv) for n sequences.
/// Aliasing   out and the final states share no element with an input; each final one may be its initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24; states are kept in that type. Scores, and values of slots, have
///            the error of gated_linear_attention; a score's error is a relative one of its slot's weight. A log decay of
///            -infinity is a reset of a slot: what it held is not read, NaN included. The same bits for any executor, batch
///            neighbours and strides, reversed as flipped, packed as alone, and for a sequence cut at multiples of 16 tokens.
/// Cost       4 M (D + Dv) operations per token, as gated_linear_attention with a gate per channel. Scratch per worker:
///            256 (2 + H / Hk) M numbers for a block of tokens, and the states of a head. One token passes over the states once
///            and allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are
///            found by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Zhang et al. 2024 (Gated Slot Attention), equations 8 and 9.
template <class Q, class E, class G, class State, class O, class Gate = given_log_decay,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void gated_slot_attention(const gated_slot_inputs<Q, E, G, State>& inputs, tensor_view<O, 4> out,
                          const gated_slot_options<Gate, Sequences, accumulator_t<Q>>& options = {},
                          Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  static_assert(!Gate::takes_rate, "the gate is given_log_decay or log_sigmoid_gate");
  const auto& [q, k, v, log_decay, write, initial_keys, initial_values] = inputs;
  const detail::slot_states<T> states{initial_keys, initial_values, options.final_keys, options.final_values};
  if (write.data() != nullptr) {
    detail::check_input("write", write);
    detail::check_same_shape("write", write, "log_decay", log_decay);
  }
  detail::check_slots(q, k, v, "log_decay", log_decay, states, out, options, write);

  const detail::gated_slot_rows<T, G, Gate> rows{log_decay, write, options.gate};
  detail::attend_slots(q, k, v, log_decay.extent(3), detail::scale_or_root<T>(options.scale, q.extent(3)), states, out,
                       options.order, options.sequences, on, rows);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
