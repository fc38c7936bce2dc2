// SPDX-License-Identifier: Apache-2.0
/// @file The weights of softmax attention themselves, for selected rows or as a mean over heads.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/softmax/attention.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// A softmax's weights of a group of tiles, tile by tile and chunk by chunk, after a pass that takes the sums.
template <class Problem, class Sink, class Use>
void weights_of_group(const Problem& problem, const sequence& seq, index_t head, index_t first_row, index_t rows,
                      const tensor_view<const Sink, 1>& sinks, bool zero_logit, Use&& use) {
  using T = typename Problem::T;
  scratch_frame frame;
  query_lanes<Problem> lanes(problem, frame);
  lanes.go_to(seq, head);
  query_tile<T> tile = lanes.tile(first_row, rows, frame);
  tile_group<T> tiles{&tile, 1};
  const attention_output<T, T, Sink> sums_only{{}, {}, sinks, zero_logit};
  const row_sums<T> sums = take_sums(lanes, tiles, frame, [&](const query_tile<T>& t, T* m, T* l, T* reference) {
    std::replace_copy(m, m + t.width, reference, minus_infinity<T>, T(0));
    sums_only.finish(m, l, t.count, t.width, seq.batch, [&](index_t) { return head; }, [](index_t i) { return i; });
  });
  for_each_leaf(lanes, tiles, [&](query_tile<T>& t) {
    weights_of_leaf(
        lanes, t,
        [&](query_tile<T>&, index_t lane, const simd::batch<T>& s, const auto&) { return sums.weight(0, lane, s); },
        [&](index_t, const key_chunk& chunk, const T* weights) { use(t, chunk, weights); });
  });
}

/// f(first_row, rows) for every tile of the rows [first, first + count).
template <class T, class F>
void for_each_tile(index_t first, index_t count, F&& f) {
  constexpr index_t most = simd::max_tile_vectors * simd::lanes<T>;
  for (index_t row = 0; row < count; row += most) f(first + row, std::min(most, count - row));
}

template <class Q, class E, class Sink, class Options>
void check_weights(const softmax_inputs<Q, E, Sink>& inputs, const Options& options) {
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  check_input("q", q);
  check_input("k", k);
  check_same_extent("k", k, 3, "q", q, 3, "channels");
  check_head_groups("q", q, 1, "k", k, 1);
  check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  if (extra_k.extent(2) != 0) fail_value("extra_k is given: weights are of k's keys only");
  check_attention(q, k.extent(2), 0, sinks, options);
}

template <class T, class Q, class E, class Sink, class Options>
auto weights_problem(const softmax_inputs<Q, E, Sink>& inputs, const key_value_views<E>& source,
                     const Options& options) {
  return score_problem<T, Q, key_value_views<E>, decltype(options.mask), decltype(options.score),
                       decltype(options.rotary)>{inputs.q,       source,
                                                 options.mask,   options.score,
                                                 options.rotary, static_cast<T>(scale_of(options, inputs.q.extent(3)))};
}

}  // namespace detail

/// The weights that softmax attention multiplies the values by.
///
///     weights[r, s] = exp(score[t, s] - lse[t])   for t = options.rows[r], or t = r if no rows are given; 0 where s is not visible
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); weights: (B, H, R, S).
/// Aliasing   weights shares no element with an input.
/// Numerics   as softmax_attention, each weight within (2 + D / 64) u (1 + M); a row sums to 1 less its sink's share, or is 0.
/// Cost       2 D operations per visible pair, twice; nothing of size T S but `weights` itself.
/// Errors     shape_error as softmax_attention; value_error if a row is outside [0, T).
template <class Q, class E, class Sink, class O, class Mask = all_keys, class Score = plain_score,
          class Normalizer = softmax_weights, class Rotary = no_rotary, class Lse = float,
          executor Executor = calling_thread>
  requires Normalizer::sums_to_one
void softmax_attention_weights(
    const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 4> weights,
    const softmax_options<Mask, Score, whole_sequences, Normalizer, no_edit, Rotary, Lse>& options = {},
    Executor&& on = {}) {
  using T = accumulator_t<Q>;
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  detail::check_weights(inputs, options);
  const index_t S = k.extent(2);
  const index_t rows = options.rows.empty() ? q.extent(2) : static_cast<index_t>(options.rows.size());
  detail::check_output("weights", weights);
  detail::check_shape("weights", weights, {q.extent(0), q.extent(1), rows, S}, "(B, H, R, S)");
  detail::check_overlap("weights", weights, "q", q);
  detail::check_overlap("weights", weights, "k", k);
  detail::check_rows(options.rows, q.extent(2));

  const key_value_views<E> source{{k, {}, {}, {}}};
  const auto problem = detail::weights_problem<T>(inputs, source, options);
  const index_t heads = q.extent(1);
  detail::run_tasks(on, q.extent(0) * heads, [&](index_t task) {
    const index_t b = task / heads;
    const index_t h = task % heads;
    const sequence seq = options.sequences.at(b, q.extent(2), S);
    detail::for_each_run(options.rows, rows, [&](index_t place, index_t first, index_t count) {
      detail::for_each_tile<T>(first, count, [&](index_t row, index_t n) {
        O* to = weights.row(b, h, place + row - first);
        for (index_t i = 0; i < n; ++i) std::fill_n(to + i * weights.stride(2), S, O(T(0)));
        detail::weights_of_group(problem, seq, h, row, n, sinks, detail::zero_logit_of<Normalizer>(),
                                 [&](const auto& t, const detail::key_chunk& chunk, const T* from) {
                                   simd::transpose_out(from, t.width, n, chunk.count, to + chunk.key,
                                                       weights.stride(2));
                                 });
      });
    });
  });
}

/// The mean over heads of the same weights.
///
/// Shapes     weights: (B, R, S). Heads are added in order.
template <class Q, class E, class Sink, class O, class Mask = all_keys, class Score = plain_score,
          class Normalizer = softmax_weights, class Rotary = no_rotary, class Lse = float,
          executor Executor = calling_thread>
  requires Normalizer::sums_to_one
void softmax_attention_weights(
    const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 3> weights,
    const softmax_options<Mask, Score, whole_sequences, Normalizer, no_edit, Rotary, Lse>& options = {},
    Executor&& on = {}) {
  using T = accumulator_t<Q>;
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  detail::check_weights(inputs, options);
  const index_t S = k.extent(2);
  const index_t rows = options.rows.empty() ? q.extent(2) : static_cast<index_t>(options.rows.size());
  detail::check_output("weights", weights);
  detail::check_shape("weights", weights, {q.extent(0), rows, S}, "(B, R, S)");
  detail::check_overlap("weights", weights, "q", q);
  detail::check_overlap("weights", weights, "k", k);
  detail::check_rows(options.rows, q.extent(2));

  const key_value_views<E> source{{k, {}, {}, {}}};
  const auto problem = detail::weights_problem<T>(inputs, source, options);
  constexpr index_t most = simd::max_tile_vectors * simd::lanes<T>;
  const index_t blocks = (rows + most - 1) / most;
  const T share = T(1) / static_cast<T>(std::max<index_t>(q.extent(1), 1));
  detail::run_tasks(on, q.extent(0) * blocks, [&](index_t task) {
    scratch_frame frame;
    const index_t b = task / blocks;
    const index_t first_place = task % blocks * most;
    const index_t places = std::min(most, rows - first_place);
    T* sum = frame.take<T>(places * S);  // (places, S)
    T* of_chunk = frame.take<T>(most * detail::chunk_keys);
    std::fill(sum, sum + places * S, T(0));
    const sequence seq = options.sequences.at(b, q.extent(2), S);
    for (index_t h = 0; h < q.extent(1); ++h) {
      const auto chosen = options.rows.empty() ? options.rows
                                               : options.rows.subspan(static_cast<std::size_t>(first_place),
                                                                      static_cast<std::size_t>(places));
      detail::for_each_run(chosen, places, [&](index_t place, index_t first, index_t count) {
        const index_t row = options.rows.empty() ? first_place + first : first;
        detail::weights_of_group(problem, seq, h, row, count, sinks, detail::zero_logit_of<Normalizer>(),
                                 [&](const auto& t, const detail::key_chunk& chunk, const T* from) {
                                   simd::transpose_out(from, t.width, count, chunk.count, of_chunk, detail::chunk_keys);
                                   for (index_t i = 0; i < count; ++i) {
                                     T* to = sum + (place + i) * S + chunk.key;
                                     for (index_t j = 0; j < chunk.count; ++j)
                                       to[j] += of_chunk[i * detail::chunk_keys + j];
                                   }
                                 });
      });
    }
    for (index_t i = 0; i < places; ++i) {
      O* to = weights.row(b, first_place + i);
      for (index_t s = 0; s < S; ++s) to[s] = O(sum[i * S + s] * share);
    }
  });
}

/// The same with q and k alone.
template <class Q, class E, class O, std::size_t R, class Options = softmax_options<>,
          executor Executor = calling_thread>
void softmax_attention_weights(tensor_view<const Q, 4> q, tensor_view<const E, 4> k, tensor_view<O, R> weights,
                               const Options& options = {}, Executor&& on = {}) {
  softmax_attention_weights(softmax_inputs<Q, E>{.q = q, .k = k}, weights, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
