// SPDX-License-Identifier: Apache-2.0
/// @file Attention as a scan: one learned query per head, and its softmax attention over every prefix.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/primitives/arithmetic.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <optional>
#include <string>

namespace tokenmix::inline TOKENMIX_ABI {

/// The state of an attention scan over n sequences, as views: the softmax state of what came so far.
template <class T>
struct scanned_attention {
  tensor_view<T, 2> m{};    // (n, H) maximum of the scores, -infinity in the empty state
  tensor_view<T, 2> l{};    // (n, H) sum of exp(score - m)
  tensor_view<T, 3> acc{};  // (n, H, Dv) sum of exp(score - m) v
};

/// The tensors of attention_scan.
template <class Q, class E, class State = accumulator_t<Q>>
struct attention_scan_inputs {
  tensor_view<const Q, 2> q{};                     // (H, D)
  tensor_view<const E, 4> k{};                     // (B, Hk, T, D)
  tensor_view<const E, 4> v{};                     // (B, Hk, T, Dv)
  scanned_attention<const State> initial_state{};  // empty if its views are
};

/// Options of attention_scan: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct attention_scan_options {
  std::optional<double> scale{};                     ///< of q.k; 1 / sqrt(D) if not given
  tokenmix::order order = tokenmix::order::forward;  ///< forward: over prefixes; reverse: over suffixes
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  scanned_attention<State> final_state{};            ///< output, all or none of it; may be the initial state
};

namespace detail {

/// The checked arguments, and the scan of one head of one sequence.
template <class Q, class E, class T, class O>
struct attention_scan_problem {
  const attention_scan_inputs<Q, E, T>& in;
  tensor_view<O, 4> out;
  const scanned_attention<T>& final_state;
  T scale;
  bool reversed;

  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t together = 64;  ///< tokens whose scores become factors at once

  /// What the tokens do to a sum: sum = sum keep + x enter, and what it is read by.
  struct factors {
    alignas(64) T keep[static_cast<std::size_t>(together)];
    alignas(64) T enter[static_cast<std::size_t>(together)];
    alignas(64) T read[static_cast<std::size_t>(together)];
  };

  void run(const sequence& seq, index_t number, index_t head) const {
    scratch_frame frame;
    const index_t D = in.k.extent(3), Dv = in.v.extent(3);
    T* query = frame.take<T>(whole_registers<T>(D));  // scale * q
    for (index_t d = 0; d < D; ++d) query[d] = scale * static_cast<T>(in.q(head, d));
    T* acc = frame.take<T>(whole_registers<T>(Dv));
    T m = minus_infinity<T>, l = T(0);
    std::fill_n(acc, whole_registers<T>(Dv), T(0));
    if (const auto& s = in.initial_state; s.m.data() != nullptr && s.m(number, head) != minus_infinity<T>) {
      m = s.m(number, head);
      l = s.l(number, head);
      for (index_t c = 0; c < Dv; ++c) acc[c] = s.acc(number, head, c);
    }
    const index_t key_head = head / (out.extent(1) / in.k.extent(1));
    const auto keys = rows_of_tokens(in.k, seq.batch, key_head, seq.key_row, seq.keys, reversed);
    const auto values = rows_of_tokens(in.v, seq.batch, key_head, seq.key_row, seq.keys, reversed);
    token_rows<O> results{};
    if (seq.keys > 0) {
      const index_t row = seq.key_row + (reversed ? seq.keys - 1 : 0);
      results = {out.row(seq.batch, head, row), reversed ? -out.stride(2) : out.stride(2)};
    }
    factors f;
    for (index_t t = 0; t < seq.keys; t += together) {
      const index_t n = std::min(together, seq.keys - t);
      for (index_t i = 0; i < n; ++i) f.enter[i] = score(query, keys[t + i], D);
      weigh(f, n, m, l);
      for (index_t c = 0; c < Dv; c += simd::max_tile_vectors * L) {
        const index_t registers = std::min(simd::max_tile_vectors, (Dv - c + L - 1) / L);
        simd::with_tile_vectors(registers,
                                [&](auto vectors) { absorb<vectors>(f, values, results, t, n, c, Dv, acc + c); });
      }
    }
    const auto& to = final_state;
    if (to.m.data() == nullptr) return;
    to.m(number, head) = m;
    to.l(number, head) = l;
    for (index_t c = 0; c < Dv; ++c) to.acc(number, head, c) = acc[c];
  }

 private:
  static T score(const T* query, const E* key, index_t D) {
    simd::batch<T> sum(T(0));
    index_t d = 0;
    for (; d + L <= D; d += L) sum = simd::fma(simd::load(query + d), simd::load_as<T>(key + d), sum);
    if (d < D) sum = simd::fma(simd::load_n(query + d, D - d), simd::load_as_n<T>(key + d, D - d), sum);
    return simd::reduce_add(sum);
  }

  // Scores in f.enter become factors; m and l go past the tokens.
  static void weigh(factors& f, index_t n, T& m, T& l) {
    for (index_t i = 0; i < n; ++i) {
      const T before = m;
      m = f.enter[i] > m ? f.enter[i] : m;  // a NaN score leaves the maximum alone, and makes its weight NaN
      const T reference = m == minus_infinity<T> ? T(0) : m;
      f.keep[i] = before - reference;
      f.enter[i] -= reference;
    }
    for (index_t i = 0; i < n; i += L) {
      const index_t valid = std::min(L, n - i);
      simd::store_n(f.keep + i, simd::exp(simd::load_n(f.keep + i, valid)), valid);
      simd::store_n(f.enter + i, simd::exp(simd::load_n(f.enter + i, valid)), valid);
    }
    for (index_t i = 0; i < n; ++i) {
      l = multiply_add(l, f.keep[i], f.enter[i]);
      f.read[i] = l == T(0) ? T(0) : T(1) / l;
    }
  }

  template <index_t Vectors>
  static TOKENMIX_NOINLINE void absorb(const factors& f, const token_rows<const E>& values,
                                       const token_rows<O>& results, index_t t, index_t n, index_t first, index_t Dv,
                                       T* acc) {
    simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[v] = simd::load(acc + v * L); });
    const index_t last = std::min(L, Dv - first - (Vectors - 1) * L);  // lanes of the last register
    for (index_t i = 0; i < n; ++i) {
      const E* from = values[t + i] + first;
      O* to = results[t + i] + first;
      const simd::batch<T> keep(f.keep[i]), enter(f.enter[i]), read(f.read[i]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        if (v + 1 < Vectors || last == L) {
          sum[v] = simd::fma(simd::load_as<T>(from + v * L), enter, sum[v] * keep);
          simd::store_as(to + v * L, sum[v] * read);
        } else {
          sum[v] = simd::fma(simd::load_as_n<T>(from + v * L, last), enter, sum[v] * keep);
          simd::store_as_n(to + v * L, sum[v] * read, last);
        }
      });
    }
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(acc + v * L, sum[v]); });
  }
};

}  // namespace detail

/// Attention as a scan (Aaren): softmax attention of one query per head over every prefix of the tokens.
///
///     out[t] = sum over s <= t of exp(scale q.k[s]) v[s] / sum over s <= t of exp(scale q.k[s])
///
/// Shapes     q: (H, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); last axes contiguous but q's, otherwise any
///            strides; H a multiple of Hk. State: (n, H), (n, H) and (n, H, Dv) for n sequences.
/// Aliasing   out and the final state share no element with an input; each final part may be the initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= (8 + T + D scale max |q k|) u A, A the mean of |v| under
///            the weights, and T the tokens so far; in practice sqrt(T). Weights are relative to the largest score so
///            far. The same bits for any executor, batch neighbours, strides and split into calls, reversed as flipped,
///            packed as alone. NaN reaches what comes after it, no other.
/// Cost       2 D + 4 Dv operations and 2 exponentials per token and head; k and v are read once per query head. One token
///            allocates nothing. A head of a sequence is one task: fewer of them than workers leave workers idle, and one long
///            sequence of one head runs on one. (Many workers for it: inclusive_scan with online_softmax, over scores and values.)
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Feng et al. 2024 (Attention as an RNN), section 3.
template <class Q, class E, class State, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void attention_scan(const attention_scan_inputs<Q, E, State>& inputs, tensor_view<O, 4> out,
                    const attention_scan_options<Sequences, accumulator_t<Q>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, initial] = inputs;
  detail::check_direction(options.order);
  detail::check_view("q", q);
  detail::check_input("k", k);
  detail::check_input("v", v);
  detail::check_same_extent("k", k, 3, "q", q, 1, "channels");
  detail::check_head_groups("q", q, 0, "k", k, 1);
  detail::check_shape("v", v, {k.extent(0), k.extent(1), k.extent(2), v.extent(3)}, "(B, Hk, T, Dv) of k");
  detail::check_sequences(options.sequences, k.extent(0), k.extent(2), k.extent(2), true);
  const index_t H = q.extent(0), T_ = k.extent(2), n = options.sequences.count(k.extent(0));
  detail::check_result_rows(out, {k.extent(0), H, T_, v.extent(3)}, q, k, v, initial.m, initial.l, initial.acc);
  const auto& final = options.final_state;
  detail::check_state_part("initial_state.m", initial.m, "final_state.m", final.m, {n, H}, "(sequences, H)", out, q, k,
                           v, initial.l, initial.acc, final.l, final.acc);
  detail::check_state_part("initial_state.l", initial.l, "final_state.l", final.l, {n, H}, "(sequences, H)", out, q, k,
                           v, initial.m, initial.acc, final.acc);
  detail::check_state_part("initial_state.acc", initial.acc, "final_state.acc", final.acc, {n, H, v.extent(3)},
                           "(sequences, H, Dv)", out, q, k, v, initial.m, initial.l);
  const auto check_all_or_none = [&](const std::string& name, const auto& state) {
    if (state.m.data() == nullptr) {
      if (state.l.data() != nullptr || state.acc.data() != nullptr)
        detail::fail_value(name, ".m is missing: a state has m, l and acc");
      return;
    }
    detail::check_shape((name + ".l").c_str(), state.l, {n, H}, "(sequences, H)");
    detail::check_shape((name + ".acc").c_str(), state.acc, {n, H, v.extent(3)}, "(sequences, H, Dv)");
  };
  check_all_or_none("initial_state", initial);
  check_all_or_none("final_state", final);

  const detail::attention_scan_problem<Q, E, T, O> problem{
      inputs, out, final, detail::scale_or_root<T>(options.scale, q.extent(1)), options.order == order::reverse};
  detail::run_tasks(on, n * H,
                    [&](index_t task) { problem.run(options.sequences.at(task / H, T_, T_), task / H, task % H); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
