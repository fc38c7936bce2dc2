// SPDX-License-Identifier: Apache-2.0
/// @file Linear attention: weights that are inner products of features, so that all keys are one matrix.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of linear attention, where q, k and v are not enough.
template <class Q, class E, class State = accumulator_t<Q>>
struct linear_inputs {
  tensor_view<const Q, 4> q{};                  // (B, H, T, D)
  tensor_view<const E, 4> k{};                  // (B, Hk, S, D)
  tensor_view<const E, 4> v{};                  // (B, Hv, S, Dv)
  tensor_view<const State, 4> initial_state{};  // (n, Hv, F, Dv) for n sequences and features of width F; zero if empty
  tensor_view<const State, 3> initial_sum{};    // (n, Hk, F) the sum of the keys' features; zero if empty
};

/// Options of linear_attention: use with designated initialisers; the order of the fields is API.
template <class Feature = as_given, class Normalizer = unnormalized, class Sequences = whole_sequences,
          class State = float>
struct linear_options {
  Feature feature{};                                 ///< of q and k: as_given, elu_plus_one, ..., a callable
  Normalizer normalizer{};                           ///< unnormalized, sum_plus, clamped or mean_plus
  std::optional<double> scale{};                     ///< of the features of q; 1 if not given
  tokenmix::order order = tokenmix::order::forward;  ///< whom a query sees
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};               ///< (n, Hv, F, Dv), output; may be the initial state
  tensor_view<State, 3> final_sum{};                 ///< (n, Hk, F), output; may be the initial sum
};

/// Linear attention: softmax's exponential replaced by an inner product of features.
///
///     S[t]   = S[t-1] + feature(k[t]) v[t]',   z[t] = z[t-1] + feature(k[t])
///     out[t] = scale feature(q[t])' S[t] / normaliser(scale feature(q[t])' z[t])
///
/// over the tokens that the order lets a query see: those to t, those from t on, or all.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hv, S, Dv); out: (B, max(H, Hv), T, Dv); any strides, last axis
///            contiguous. H and Hv are multiples of Hk and one of them is Hk: H / Hk query heads in a row read one state, or
///            Hv / Hk states share a key. S = T unless bidirectional. States: (n, Hv, F, Dv) and (n, Hk, F) for n sequences.
/// Aliasing   out and the final states share no element with an input; a final state may be the initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24; states are kept in that type. Before the division |error| <=
///            8 u A + 2 u A1: A is the same sum of absolute values, A1 that with every token's part times its distance. The
///            sum of weights has the same bound; a sum near zero is the caller's choice of normaliser. NaN reaches the
///            queries that see it, no other. The same bits for any executor, batch neighbours and strides, reversed as
///            flipped, packed as alone, and for a sequence cut into calls at multiples of 16 tokens.
/// Cost       4 F Dv operations per token: some rows of the state stay in registers while 16 tokens go by. One token (T = 1)
///            passes over the state once and allocates nothing. Scratch per task: the states of a key head, and 16 rows of
///            everything. Where an executor has more workers than there are panels of 64 value channels, 4096 tokens and more
///            are computed in blocks of time at once: half as much work again or more, about four states per worker, the
///            same bits.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Katharopoulos et al. 2020, equations 8 to 20; LinFusion (Liu et al. 2024) for mean_plus.
template <class Q, class E, class State, class O, class Feature = as_given, class Normalizer = unnormalized,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void linear_attention(const linear_inputs<Q, E, State>& inputs, tensor_view<O, 4> out,
                      const linear_options<Feature, Normalizer, Sequences, accumulator_t<Q>>& options = {},
                      Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<State, T>, "a state is kept in the computing type");
  const auto& [q, k, v, initial_state, initial_sum] = inputs;
  const bool recurrent = options.order != order::bidirectional;
  detail::check_tokens(q, k, v, recurrent);
  detail::check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), recurrent);
  const index_t n = options.sequences.count(q.extent(0));
  const index_t F = detail::check_feature(options.feature, k.extent(3), q.extent(1), k.extent(1));
  const index_t heads = std::max(q.extent(1), v.extent(1));
  detail::check_results(out, {q.extent(0), heads, q.extent(2), v.extent(3)}, initial_state, options.final_state,
                        {n, v.extent(1), F, v.extent(3)}, q, k, v);
  detail::check_sums(initial_sum, options.final_sum, {n, k.extent(1), F}, Normalizer::takes_sum, out,
                     options.final_state, q, k, v, initial_state);

  // Tasks that share a key head all read its sum, and one of them writes it: in place they need a copy.
  scratch_frame frame;
  tensor_view<const T, 3> sum_before = initial_sum;
  if (initial_sum.data() != nullptr && options.final_sum.data() != nullptr) {
    const tensor_view<T, 3> copy(frame.take<T>(n * k.extent(1) * F), {n, k.extent(1), F});
    for (index_t i = 0; i < n; ++i) {
      for (index_t h = 0; h < k.extent(1); ++h) std::copy_n(initial_sum.row(i, h), F, copy.row(i, h));
    }
    sum_before = copy;
  }
  const given_log_decay no_gate;
  const detail::diagonal_problem<Q, E, T, T, Feature, given_log_decay, Normalizer> problem{
      q,
      k,
      v,
      {},
      {},
      {},
      {},
      options.feature,
      no_gate,
      options.normalizer,
      static_cast<T>(options.scale.value_or(1.0)),
      options.order};
  detail::run_diagonal<detail::decay::none, false>(
      problem, detail::recurrence_result<T, O>{out, initial_state, options.final_state, sum_before, options.final_sum},
      options.sequences, on);
}

/// The same with the usual four tensors, from an empty state.
template <class Q, class E, class O, class Feature = as_given, class Normalizer = unnormalized,
          class Sequences = whole_sequences, executor Executor = calling_thread>
void linear_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                      tensor_view<const E, 4> k,  // (B, Hk, S, D)
                      tensor_view<const E, 4> v,  // (B, Hv, S, Dv)
                      tensor_view<O, 4> out,      // (B, max(H, Hv), T, Dv)
                      const linear_options<Feature, Normalizer, Sequences, accumulator_t<Q>>& options = {},
                      Executor&& on = {}) {
  linear_attention(linear_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
