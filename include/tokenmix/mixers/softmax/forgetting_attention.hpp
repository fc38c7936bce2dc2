// SPDX-License-Identifier: Apache-2.0
/// @file Forgetting attention: causal softmax attention whose scores decay by a gate per token.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/score/forget_gates.hpp>
#include <tokenmix/simd/convert.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of forgetting attention.
template <class Q, class E, class G, class Sink = accumulator_t<Q>>
struct forgetting_inputs {
  tensor_view<const Q, 4> q{};          // (B, H, T, D)
  tensor_view<const E, 4> k{};          // (B, Hk, S, D)
  tensor_view<const E, 4> v{};          // (B, Hk, S, Dv)
  tensor_view<const G, 3> log_decay{};  // (B, Hg, S) of every key token: what options.gate makes the log gate of
  tensor_view<const Sink, 1> sinks{};   // (H) a logit per head that takes weight and gives no value; none if empty
};

/// Options of forgetting_attention: use with designated initialisers; the order of the fields is API.
template <class Mask = all_keys, class Gate = given_log_decay, class Sequences = whole_sequences, class Lse = float>
struct forgetting_options {
  Mask mask{};                    ///< whom a query does not see among itself and the keys before it
  Gate gate{};                    ///< given_log_decay or log_sigmoid_gate
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  Sequences sequences{};          ///< whole_sequences, lengths or packed; a cache's lengths for a decode step
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output: log of the sum of exp(score), sinks included; none if empty
};

namespace detail {

template <class Mask>
auto causal_and(const Mask& mask) {
  if constexpr (std::is_same_v<Mask, all_keys>) {
    return causal{};
  } else {
    return causal{} & mask;
  }
}

/// The log gates of `count` tokens of one head, as the gate makes them.
template <class T, class G, class Gate>
void load_log_gates(const tensor_view<const G, 3>& log_decay, const Gate& gate, index_t batch, index_t head,
                    index_t row, index_t count, double* to) {
  constexpr index_t L = simd::lanes<T>;
  alignas(64) T line[static_cast<std::size_t>(L)] = {};
  for (index_t s = 0; s < count; s += L) {
    const index_t n = std::min(L, count - s);
    for (index_t i = 0; i < n; ++i) line[i] = number<T>(log_decay(batch, head, row + s + i));
    if constexpr (!std::is_same_v<Gate, given_log_decay>)
      simd::store(line, gate.log_decay(simd::load(line), T(0), simd::batch<T>(T(0))));
    for (index_t i = 0; i < n; ++i) to[s + i] = static_cast<double>(line[i]);
  }
  assert_log_decays(to, count);
}

/// Softmax attention with gates that were summed: (sequences, heads).
template <class T, class Q, class E, class Sink, class O, class Mask, class Gate, class Sequences, class Lse,
          class Executor>
void attend_with_gates(const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 4> out,
                       const forgetting_options<Mask, Gate, Sequences, Lse>& options, const gate_sums<T>* sums,
                       index_t heads, Executor& on) {
  softmax_attention(
      inputs, out,
      softmax_options<decltype(causal_and(options.mask)), forget_gates<T>, Sequences, softmax_weights, no_edit,
                      no_rotary, Lse>{.mask = causal_and(options.mask),
                                      .score = {sums, heads, heads == 0 ? 1 : inputs.q.extent(1) / heads},
                                      .scale = options.scale,
                                      .sequences = options.sequences,
                                      .lse = options.lse},
      on);
}

}  // namespace detail

/// Forgetting attention (FoX): what a query sees of a key fades by the gates of the tokens after the key, its own included.
///
///     score[t, s] = scale q[t].k[s] + sum of log_gate[r] over s < r <= t      for the keys s <= t
///     out[t]      = sum over s of exp(score[t, s]) v[s] / (sum over s of exp(score[t, s]) + sinks)
///
/// with T <= S queries at the last T positions: a decode step is the same call with the keys, values and gates so far.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv); any strides, last axis contiguous.
///            log_decay: (B, Hg, S), H a multiple of Hk and of Hg. sinks: (H). lse: (B, H, T).
/// Aliasing   out and lse share no element with an input; inputs may share memory (packed QKV).
/// Numerics   as softmax_attention; M has the size of the decays too, each of which is within 3 u of itself, for any log gates
///            <= 0: they are sums from a key to a query, never a difference. Gates of 0 give the bits of causal softmax
///            attention. A log gate of -infinity hides all keys before its token, NaN included. The same bits for any
///            executor, batch neighbours, strides and split of the queries into calls.
/// Cost       as softmax_attention, and one addition per pair. Scratch besides: 4 numbers of 8 bytes per key and gate head,
///            filled anew by every call: about 2 ns each. A decode step over a kv_cache that sums only the gates of new
///            tokens is forgetting_attention with a forget_gate_cache (cache/forget_gate_cache.hpp).
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log gates above 0 are found
///            by an assertion where NDEBUG is not defined. Empty dimensions are legal.
/// Source     Lin et al. 2025 (Forgetting Transformer), equations 5 to 8.
template <class Q, class E, class G, class Sink, class O, class Mask = all_keys, class Gate = given_log_decay,
          class Sequences = whole_sequences, class Lse = float, executor Executor = calling_thread>
void forgetting_attention(const forgetting_inputs<Q, E, G, Sink>& inputs, tensor_view<O, 4> out,
                          const forgetting_options<Mask, Gate, Sequences, Lse>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(!Gate::takes_rate, "the gate is given_log_decay or log_sigmoid_gate");
  const auto& [q, k, v, log_decay, sinks] = inputs;
  detail::check_view("log_decay", log_decay);
  detail::check_same_extent("log_decay", log_decay, 0, "q", q, 0, "batch elements");
  detail::check_head_groups("q", q, 1, "log_decay", log_decay, 1, "query", "gate");
  detail::check_same_extent("log_decay", log_decay, 2, "k", k, 2, "keys");
  // Lengths and offsets say how much memory is needed, so they are checked before softmax_attention does.
  options.sequences.check(q.extent(0), q.extent(2), k.extent(2));
  if (out.data() != nullptr) detail::check_overlap("out", out, "log_decay", log_decay);

  scratch_frame frame;
  const index_t n = options.sequences.count(q.extent(0));
  const index_t heads = log_decay.extent(1);
  const auto at = [&](index_t i) { return options.sequences.at(i, q.extent(2), k.extent(2)); };
  auto* sums = frame.take<detail::gate_sums<T>>(n * heads);
  for (index_t i = 0; i < n * heads; ++i) {
    const index_t tokens = at(i / heads).keys;
    sums[i] = detail::gate_sums<T>(frame.take<double>(detail::gate_sums<T>::size(tokens)), tokens);
  }
  detail::run_tasks(on, n * heads, [&](index_t i) {
    const sequence seq = at(i / heads);
    detail::load_log_gates<T>(log_decay, options.gate, seq.batch, i % heads, seq.key_row, seq.keys,
                              sums[i].log_gates());
    sums[i].take(0, seq.keys);
  });
  detail::attend_with_gates<T>(softmax_inputs<Q, E, Sink>{.q = q, .k = k, .v = v, .sinks = sinks}, out, options, sums,
                               heads, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
