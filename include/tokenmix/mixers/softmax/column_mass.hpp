// SPDX-License-Identifier: Apache-2.0
/// @file How much weight each key takes over all queries.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/softmax/weights.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The weight that every key takes, summed over the queries: what cache eviction and token pruning go by.
///
///     mass[s] = sum over t of exp(score[t, s] - lse[t])
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); mass: (B, H, S).
/// Aliasing   mass shares no element with an input.
/// Numerics   weights as softmax_attention_weights; their sum is taken in double, in an order that depends on T alone.
/// Cost       2 D operations per visible pair, twice; S doubles of scratch per worker.
/// Errors     as softmax_attention.
/// Source     Zhang et al. 2023 (H2O), section 3.
template <class Q, class E, class Sink, class O, class Mask = all_keys, class Score = plain_score,
          class Normalizer = softmax_weights, class Rotary = no_rotary, class Lse = float,
          executor Executor = calling_thread>
  requires Normalizer::sums_to_one
void attention_column_mass(
    const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 3> mass,
    const softmax_options<Mask, Score, whole_sequences, Normalizer, no_edit, Rotary, Lse>& options = {},
    Executor&& on = {}) {
  using T = accumulator_t<Q>;
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  detail::check_weights(inputs, options);
  const index_t S = k.extent(2);
  const index_t heads = q.extent(1);
  detail::check_output("mass", mass);
  detail::check_shape("mass", mass, {q.extent(0), heads, S}, "(B, H, S)");
  detail::check_overlap("mass", mass, "q", q);
  detail::check_overlap("mass", mass, "k", k);

  const key_value_views<E> source{{k, {}, {}, {}}};
  const auto problem = detail::weights_problem<T>(inputs, source, options);
  detail::run_tasks(on, q.extent(0) * heads, [&](index_t task) {
    scratch_frame frame;
    const index_t b = task / heads;
    const index_t h = task % heads;
    double* sum = frame.take<double>(S);
    std::fill(sum, sum + S, 0.0);
    const sequence seq = options.sequences.at(b, q.extent(2), S);
    detail::for_each_tile<T>(0, q.extent(2), [&](index_t row, index_t n) {
      detail::weights_of_group(problem, seq, h, row, n, sinks, detail::zero_logit_of<Normalizer>(),
                               [&](const auto& t, const detail::key_chunk& chunk, const T* weights) {
                                 for (index_t j = 0; j < chunk.count; ++j) {
                                   for (index_t i = 0; i < n; ++i) {
                                     sum[chunk.key + j] += static_cast<double>(weights[j * t.width + i]);
                                   }
                                 }
                               });
    });
    O* to = mass.row(b, h);
    for (index_t s = 0; s < S; ++s) to[s] = O(static_cast<T>(sum[s]));
  });
}

/// The same with q and k alone.
template <class Q, class E, class O, class Options = softmax_options<>, executor Executor = calling_thread>
void attention_column_mass(tensor_view<const Q, 4> q, tensor_view<const E, 4> k, tensor_view<O, 3> mass,
                           const Options& options = {}, Executor&& on = {}) {
  attention_column_mass(softmax_inputs<Q, E>{.q = q, .k = k}, mass, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
