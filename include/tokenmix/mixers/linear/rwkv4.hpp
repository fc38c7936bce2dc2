// SPDX-License-Identifier: Apache-2.0
/// @file RWKV-4: a softmax mean per channel whose weights decay with time, and a bonus for the present.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/exact_sum.hpp>
#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The state of RWKV-4 for n sequences, as views: weighted values, weights, and the log that both are relative to.
template <class T>
struct rwkv4_state {
  tensor_view<T, 3> values{};   // (n, H, D)
  tensor_view<T, 3> weights{};  // (n, H, D)
  tensor_view<T, 3> log{};      // (n, H, D), -infinity in the empty state
};

/// The tensors of RWKV-4. Channels do not mix: a model without heads has H = 1.
template <class E, class W = accumulator_t<E>, class State = accumulator_t<E>>
struct rwkv4_inputs {
  tensor_view<const E, 4> k{};               // (B, H, T, D)
  tensor_view<const E, 4> v{};               // (B, H, T, D)
  tensor_view<const W, 2> log_decay{};       // (H, D), <= 0: -exp(time_decay) of the published weights
  tensor_view<const W, 2> bonus{};           // (H, D): time_first
  tensor_view<const E, 4> receptance{};      // (B, H, T, D): out is times its sigmoid; none if empty
  rwkv4_state<const State> initial_state{};  // empty if its views are
};

/// Options of rwkv4: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct rwkv4_options {
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  rwkv4_state<State> final_state{};                  ///< output, all or none of it; may be the initial state
};

namespace detail {

/// Some registers of channels of one sequence.
template <class T>
struct rwkv4_lanes {
  simd::batch<T> values, weights, log;

  /// The mean of what the state holds and of one more value; the state stays.
  TOKENMIX_ALWAYS_INLINE simd::batch<T> with(const simd::batch<T>& k, const simd::batch<T>& bonus,
                                             const simd::batch<T>& v) const {
    simd::batch<T> rest;
    const simd::batch<T> other = simd::sum_and_rest<T>(k, bonus, rest);
    simd::batch<T> mine, its;
    factors(log, other, mine, its);
    its = simd::fma(its, rest, its);
    const simd::batch<T> sum = simd::fma(weights, mine, its);
    const simd::batch<T> mean = simd::fma(values, mine, v * its) / sum;
    return simd::select(sum == simd::batch<T>(T(0)), simd::batch<T>(T(0)), mean);
  }

  /// The state decays, then a value joins it.
  TOKENMIX_ALWAYS_INLINE void absorb(const simd::batch<T>& k, const simd::batch<T>& decay, const simd::batch<T>& v) {
    simd::batch<T> rest;
    const simd::batch<T> decayed = simd::sum_and_rest<T>(log, decay, rest);
    // What is forgotten is not read.
    const auto gone = decayed == simd::batch<T>(minus_infinity<T>);
    const simd::batch<T> zero(T(0));
    simd::batch<T> mine, its;
    log = factors(decayed, k, mine, its);
    mine = simd::fma(mine, rest, mine);
    values = simd::fma(simd::select(gone, zero, values), mine, v * its);
    weights = simd::fma(simd::select(gone, zero, weights), mine, its);
  }

 private:
  /// exp(a - max) and exp(b - max), of which one is 1; 0 where nothing has weight. The maximum.
  static TOKENMIX_ALWAYS_INLINE simd::batch<T> factors(const simd::batch<T>& a, const simd::batch<T>& b,
                                                       simd::batch<T>& of_a, simd::batch<T>& of_b) {
    const auto first = a >= b;
    const simd::batch<T> largest = simd::select(first, a, b);  // NaN in b stays
    const simd::batch<T> e = simd::exp(simd::select(first, b, a) - finite_reference<T>(largest));
    const simd::batch<T> one =
        simd::select(largest == simd::batch<T>(minus_infinity<T>), simd::batch<T>(T(0)), simd::batch<T>(T(1)));
    of_a = simd::select(first, one, e);
    of_b = simd::select(first, e, one);
    return largest;
  }
};

/// The checked arguments, and the loop over the tokens of one block of channels.
template <class E, class W, class T, class O>
struct rwkv4_problem {
  const rwkv4_inputs<E, W, T>& in;
  tensor_view<O, 4> out;
  const rwkv4_state<T>& final_state;
  bool reversed;

  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t vectors = 4;  ///< chains that hide each other's latency
  static constexpr index_t block = vectors * L;

  void run(const sequence& seq, index_t number, index_t head, index_t first) const {
    const index_t channels = std::min(block, out.extent(3) - first);
    const auto count = [&](index_t v) { return std::clamp<index_t>(channels - v * L, 0, L); };
    rwkv4_lanes<T> state[static_cast<std::size_t>(vectors)];
    simd::batch<T> decay[static_cast<std::size_t>(vectors)], bonus[static_cast<std::size_t>(vectors)];
    const auto is_empty = [&](index_t channel) {
      return in.initial_state.log.data() == nullptr || in.initial_state.log(number, head, channel) == minus_infinity<T>;
    };
    for (index_t v = 0; v < vectors; ++v) {
      const index_t at = first + v * L, n = count(v);
      const auto part = [&](const tensor_view<const T, 3>& x, T empty) {
        alignas(64) T line[static_cast<std::size_t>(L)];
        for (index_t i = 0; i < L; ++i) line[i] = i < n && !is_empty(at + i) ? x(number, head, at + i) : empty;
        return simd::load(line);
      };
      const auto parameter = [&](const tensor_view<const W, 2>& x) {
        alignas(64) T line[static_cast<std::size_t>(L)];
        for (index_t i = 0; i < L; ++i) line[i] = i < n ? static_cast<T>(x(head, at + i)) : T(0);
        return simd::load(line);
      };
      state[v] = {part(in.initial_state.values, T(0)), part(in.initial_state.weights, T(0)),
                  part(in.initial_state.log, minus_infinity<T>)};
      decay[v] = parameter(in.log_decay);
      bonus[v] = parameter(in.bonus);
    }
    const auto rows = [&](const tensor_view<const E, 4>& x) {
      return rows_of_tokens(x, seq.batch, head, seq.key_row, seq.keys, reversed);
    };
    const bool gated = in.receptance.data() != nullptr;
    const auto keys = rows(in.k), values = rows(in.v), receptance = gated ? rows(in.receptance) : keys;
    const auto results = rows_of_tokens(tensor_view<const O, 4>(out), seq.batch, head, seq.key_row, seq.keys, reversed);
    for (index_t t = 0; t < seq.keys; ++t) {
      O* to = const_cast<O*>(results[t]) + first;
      simd::unroll<vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        const index_t n = count(v);
        if (n == 0) return;
        const index_t at = first + v * L;
        const simd::batch<T> k = simd::load_as_n<T>(keys[t] + at, n);
        // What has no weight is not read.
        const simd::batch<T> x = simd::select(k == simd::batch<T>(minus_infinity<T>), simd::batch<T>(T(0)),
                                              simd::load_as_n<T>(values[t] + at, n));
        simd::batch<T> y = state[v].with(k, bonus[v], x);
        if (gated) y = y * simd::sigmoid(simd::load_as_n<T>(receptance[t] + at, n));
        state[v].absorb(k, decay[v], x);
        simd::store_as_n(to + v * L, y, n);
      });
    }
    if (final_state.log.data() == nullptr) return;
    alignas(64) T line[static_cast<std::size_t>(block)];
    const auto put = [&](const tensor_view<T, 3>& to, auto part) {
      for (index_t v = 0; v < vectors; ++v) simd::store(line + v * L, state[v].*part);
      for (index_t i = 0; i < channels; ++i) to(number, head, first + i) = line[i];
    };
    put(final_state.values, &rwkv4_lanes<T>::values);
    put(final_state.weights, &rwkv4_lanes<T>::weights);
    put(final_state.log, &rwkv4_lanes<T>::log);
  }
};

}  // namespace detail

/// RWKV-4's mix of time.
///
///     weight[t, s] = exp(k[s] + (t - 1 - s) log_decay)  for s < t,   exp(k[t] + bonus)  for s = t        in every channel
///     out[t]       = sigmoid(receptance[t]) * sum over s <= t of weight[t, s] v[s] / sum over s <= t of weight[t, s]
///
/// Shapes     k, v, receptance, out: (B, H, T, D), any strides, last axis contiguous. log_decay, bonus: (H, D). State: (n, H, D),
///            three times: sums of exp(... - log) v and of exp(... - log), and log.
/// Aliasing   out and the final state share no element with an input; each final part may be the initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= 8 u A + 4 u A1, A the mean of |v| under the weights, A1
///            that with every token's part times its distance. Exponents are relative to the largest so far, none exceeds 0,
///            and what rounding takes from a sum of logs is given back to the weights. A log decay of -infinity keeps
///            nothing, a k of -infinity gives no weight; a row without weight is zero. The same bits for any executor, batch
///            neighbours, strides and split into calls, reversed as flipped, packed as alone.
/// Cost       2 exponentials and a division per channel and token; k and v read once. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Peng et al. 2023 (RWKV), equations 14 to 16 and appendix D.
template <class E, class W, class State, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void rwkv4(const rwkv4_inputs<E, W, State>& inputs, tensor_view<O, 4> out,
           const rwkv4_options<Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [k, v, log_decay, bonus, receptance, initial] = inputs;
  detail::check_direction(options.order);
  detail::check_input("k", k);
  detail::check_input("v", v);
  detail::check_same_shape("v", v, "k", k);
  if (receptance.data() != nullptr) {
    detail::check_input("receptance", receptance);
    detail::check_same_shape("receptance", receptance, "k", k);
  }
  const index_t H = k.extent(1), D = k.extent(3);
  detail::check_view("log_decay", log_decay);
  detail::check_shape("log_decay", log_decay, {H, D}, "(H, D)");
  detail::check_view("bonus", bonus);
  detail::check_shape("bonus", bonus, {H, D}, "(H, D)");
  detail::check_sequences(options.sequences, k.extent(0), k.extent(2), k.extent(2), true);
  detail::check_result_rows(out, k.shape(), k, v, log_decay, bonus, receptance, initial.values, initial.weights,
                            initial.log);
  const auto& final = options.final_state;
  const extents<3> shape{options.sequences.count(k.extent(0)), H, D};
  const auto check_part = [&](const char* initial_name, const tensor_view<const T, 3>& part, const char* final_name,
                              const tensor_view<T, 3>& final_part, const auto&... others) {
    detail::check_state_part(initial_name, part, final_name, final_part, shape, "(sequences, H, D)", out, k, v,
                             log_decay, bonus, receptance, others...);
    if ((part.data() == nullptr) != (initial.log.data() == nullptr) ||
        (final_part.data() == nullptr) != (final.log.data() == nullptr))
      detail::fail_value(initial_name, " or ", final_name, " is missing: a state has values, weights and log");
  };
  check_part("initial_state.values", initial.values, "final_state.values", final.values, initial.weights, initial.log,
             final.weights);
  check_part("initial_state.weights", initial.weights, "final_state.weights", final.weights, initial.values,
             initial.log, final.log);
  check_part("initial_state.log", initial.log, "final_state.log", final.log, initial.values, initial.weights,
             final.values);

  const detail::rwkv4_problem<E, W, T, O> problem{inputs, out, final, options.order == order::reverse};
  const index_t blocks = (D + problem.block - 1) / problem.block;
  detail::run_tasks(on, shape[0] * H * blocks, [&](index_t task) {
    const index_t number = task / (H * blocks);
    problem.run(options.sequences.at(number, k.extent(2), k.extent(2)), number, task / blocks % H,
                task % blocks * problem.block);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
