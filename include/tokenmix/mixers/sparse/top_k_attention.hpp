// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention of every query over the keys with its largest scores, and the choice of keys by an indexer.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/sparse/detail/choose.hpp>
#include <tokenmix/mixers/sparse/detail/chosen_values.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>
#include <tokenmix/primitives/mask/spans.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Options of top_k_attention; the order of the fields is API.
template <class Mask = all_keys, class Score = plain_score, class Sequences = whole_sequences, class Rotary = no_rotary,
          class Lse = float>
struct top_k_options {
  index_t k = 0;                  ///< keys of each query, 0 to S; all that it sees if there are no more
  Mask mask{};                    ///< who sees whom, before keys are chosen
  Score score{};                  ///< what happens to scores before keys are chosen by them
  std::optional<double> scale{};  ///< of q.k, > 0; 1 / sqrt(D) if not given
  Sequences sequences{};          ///< whole_sequences, lengths or packed
  Rotary rotary{};                ///< rotary embedding of q and k by their positions, inside the kernel
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output; none if empty
};

/// The tensors of an indexer: scores that are cheaper than those of the attention.
template <class E>
struct indexer_inputs {
  tensor_view<const E, 4> q{};                       // (B, Hi, T, Di)
  tensor_view<const E, 3> k{};                       // (B, S, Di)
  tensor_view<const accumulator_t<E>, 3> weights{};  // (B, Hi, T)
};

/// Options of top_k_indexer.
template <class Mask = all_keys>
struct top_k_indexer_options {
  Mask mask{};  ///< who sees whom; it is asked about head 0
};

namespace detail {

/// Rows of queries that are scored together: their scores stay in the cache next to the core.
inline constexpr index_t chosen_rows = 32;

/// The k largest visible scores of one query, as ascending keys; returns how many.
template <class T, class Mask>
index_t choose_keys(const Mask& mask, const query_block& query, const T* scores, index_t k, index_t* chosen) {
  scratch_frame frame;
  T* seen = nullptr;
  index_t* key_of = nullptr;
  index_t n = 0;
  const T* from = scores;
  index_t shift = 0;
  index_t spans_met = 0;
  for (const span& run : spans(mask, query)) {
    ++spans_met;
    if (spans_met == 1 && run.visible == coverage::all) {  // one run of keys is read where it lies
      from = scores + run.begin;
      shift = run.begin;
      n = run.end - run.begin;
      continue;
    }
    if (seen == nullptr) {
      seen = frame.take<T>(query.keys);
      key_of = frame.take<index_t>(query.keys);
      for (index_t i = 0; i < n; ++i) seen[i] = from[i], key_of[i] = shift + i;
      from = seen;
    }
    for (index_t key = run.begin; key < run.end; ++key) {
      if (run.visible == coverage::some &&
          !mask_at(mask, index{query.batch, query.head_first, query.query_first, key, query.queries, query.keys})) {
        continue;
      }
      seen[n] = scores[key];
      key_of[n++] = key;
    }
  }
  const index_t count = std::min(n, k);
  index_t* order = frame.take<index_t>(n);
  select_largest(from, n, count, false, order);
  for (index_t i = 0; i < count; ++i) chosen[i] = key_of == nullptr ? shift + order[i] : key_of[order[i]];
  return count;
}

/// Scores what a block of rows of one head sees: add(tile first, tile last) for every span of keys.
template <class Mask, class Add>
void for_each_seen_tile(const Mask& mask, const query_block& rows, index_t width, const Add& add) {
  index_t done = 0;
  for (const span& run : spans(mask, rows)) {
    const index_t first = std::max(done, run.begin / width * width);
    done = std::min((run.end + width - 1) / width * width, (rows.keys + width - 1) / width * width);
    if (first < done) add(first, std::min(done, rows.keys));
  }
}

}  // namespace detail

namespace detail {

/// Softmax attention over the keys that a choice has left. Arguments are checked.
template <class Q, class E, class O, class Options, class Executor>
void attend_chosen(const tensor_view<const Q, 4>& q, const key_value_views<E>& source, const tensor_view<O, 4>& out,
                   const Options& options, Executor& on) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<T, accumulator_t<E>>, "q and k compute in different types");
  using problem_type = score_problem<T, Q, key_value_views<E>, decltype(options.mask), decltype(options.score),
                                     decltype(options.rotary)>;
  const problem_type problem{
      q, source, options.mask, options.score, options.rotary, static_cast<T>(scale_of(options, q.extent(3)))};
  using lse_type = std::remove_cvref_t<decltype(options.lse(0, 0, 0))>;
  const attention_output<O, lse_type, T> result{out, options.lse, {}, false};
  constexpr index_t L = simd::lanes<T>;
  const index_t channels = source.value_width(), stride = (channels + L - 1) / L * L;
  key_choice(problem, options.k)
      .run(options.sequences, on,
           [&](const sequence& seq, index_t key_head, index_t count, const auto& head_of, const auto& row_of,
               running_choice<T>& choice) {
             scratch_frame frame;
             const index_t width = (count + L - 1) / L * L;
             T* m = frame.take<T>(width);
             T* l = frame.take<T>(width);
             T* acc = frame.take<T>(width * stride);
             std::fill_n(m, width, minus_infinity<T>);
             std::fill_n(l, width, T(0));
             for (index_t r = 0; r < count; ++r) {
               const index_t chosen = choice.finish(r);
               const index_t* keys = choice.keys(r);
               attend_known(
                   choice.scores(r), chosen,
                   [&](index_t i) TOKENMIX_LAMBDA_INLINE { return source.values(seq, key_head, keys[i]).data; },
                   channels, m + r, l + r, acc + r * stride);
             }
             result.template write_rows<true>(seq.batch, count, width, channels, stride, m, l, acc, head_of,
                                              [&](index_t r) { return seq.query_row + row_of(r); });
           });
}

}  // namespace detail

/// Softmax attention of every query over the k visible keys with the largest scores.
///
///     score[t, s] = modify(scale * sum over d of q[t, d] k[s, d])
///     list(t)     = the k first of the visible s by falling score; ties by index, NaN last
///     out[t]      = softmax over the s of list(t) of score[t, s], times v[s]
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv).
/// Aliasing   out and lse share no element with an input.
/// Numerics   keys are chosen by the scores of softmax_attention, bit for bit: one fma chain over ascending channels of scale q and
///            k, in float (double for double). The error is that of softmax_attention with a mask that shows the chosen keys; a
///            score of -infinity is not chosen. The same bits for any executor, batch neighbours and strides. With k = S
///            it is softmax_attention.
/// Cost       2 D operations per visible pair, then 2 Dv k per query; which keys are chosen costs a comparison per pair and a list
///            entry for the few that were among the k best when they came, about k (1 + ln(S / k)) where scores come in no order.
///            Scratch per worker, beside that of the scores: lists of 2 k + 128 entries for up to 256 queries. Nothing of size T S.
/// Errors     shape_error and value_error as the messages say, if k is negative or above S for one; nothing is written then.
/// Source     Gupta et al. 2021, Memory-efficient transformers via top-k attention.
template <class Q, class E, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Rotary = no_rotary, class Lse = float,
          executor Executor = calling_thread>
void top_k_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                     tensor_view<const E, 4> k,  // (B, Hk, S, D)
                     tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                     tensor_view<O, 4> out,      // (B, H, T, Dv)
                     const top_k_options<Mask, Score, Sequences, Rotary, Lse>& options, Executor&& on = {}) {
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  const index_t keys = k.extent(2);
  if (options.k < 0 || options.k > keys) {
    detail::fail_value("options.k is ", options.k, ", k has ", keys, " keys");
  }
  if (options.scale && !(*options.scale > 0)) {
    detail::fail_value("options.scale is ", *options.scale, ", expected more than 0: the largest scores are chosen");
  }
  detail::check_attention(q, keys, 0, tensor_view<const accumulator_t<Q>, 1>(), options);
  detail::check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, options, q, k, v);
  if (options.k == keys) {  // nothing is left out
    softmax_attention(q, k, v, out,
                      softmax_options{.mask = options.mask,
                                      .score = options.score,
                                      .scale = options.scale,
                                      .sequences = options.sequences,
                                      .rotary = options.rotary,
                                      .lse = options.lse},
                      on);
    return;
  }
  detail::attend_chosen(q, key_value_views<E>{k, v, {}, {}}, out, options, on);
}

/// For every query the k visible keys that an indexer scores highest: one list for all heads of gathered_attention.
///
///     score[t][s] = sum over j of weights[j][t] relu(q[j][t].k[s])         ties by index, NaN last
///
/// With one head, weights of 1 and q scaled by nothing it ranks by a low-dimensional product where that is positive.
///
/// Shapes     q: (B, Hi, T, Di); k: (B, S, Di); weights: (B, Hi, T); indices: (B, 1, T, k), ascending, k <= S; counts: (B, 1, T):
///            less than k where fewer keys are visible; entries behind the counted ones are 0.
/// Aliasing   the outputs share no memory with an input.
/// Numerics   products are fma chains over ascending channels, heads are added in ascending order, in float (double for double).
/// Cost       2 Hi Di operations per visible pair; scratch per worker: 64 rows of S scores.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     DeepSeek-AI 2025, DeepSeek-V3.2-Exp, equation 1 (lightning indexer).
template <class E, class Mask = all_keys, executor Executor = calling_thread>
void top_k_indexer(const indexer_inputs<E>& inputs, tensor_view<index_t, 4> indices,  // (B, 1, T, k)
                   tensor_view<index_t, 3> counts,                                    // (B, 1, T)
                   const top_k_indexer_options<Mask>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  const auto& [q, k, weights] = inputs;
  detail::check_input("q", q);
  detail::check_input("k", k);
  detail::check_view("weights", weights);
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  detail::check_same_extent("k", k, 2, "q", q, 3, "channels");
  const index_t B = q.extent(0), H = q.extent(1), queries = q.extent(2), D = q.extent(3), keys = k.extent(1);
  detail::check_shape("weights", weights, {B, H, queries}, "(B, Hi, T)");
  detail::check_output("indices", indices);
  const index_t most = indices.extent(3);
  detail::check_shape("indices", tensor_view<const index_t, 4>(indices), {B, 1, queries, most}, "(B, 1, T, k)");
  if (most > keys) detail::fail_shape("indices has room for ", most, " keys, k has ", keys, ": k is at most S");
  detail::check_view("counts", tensor_view<const index_t, 3>(counts));
  detail::check_shape("counts", tensor_view<const index_t, 3>(counts), {B, 1, queries}, "(B, 1, T)");
  detail::check_writable_strides("counts", tensor_view<const index_t, 3>(counts));
  detail::check_overlap("counts", counts, "indices", indices);
  mask_check(options.mask, B, 1, queries, keys);
  const index_t blocks = (queries + detail::chosen_rows - 1) / detail::chosen_rows;
  const index_t stride = detail::padded_scores<T>(keys), shift = keys - queries;
  detail::run_tasks(on, B * blocks, [&](index_t task) {
    const index_t b = task / blocks, first = task % blocks * detail::chosen_rows;
    const index_t count = std::min(detail::chosen_rows, queries - first);
    scratch_frame frame;
    T* rows = frame.take<T>(count * D);
    T* products = frame.take<T>(count * stride);
    T* scores = frame.take<T>(count * stride);
    std::fill_n(scores, count * stride, T(0));
    for (index_t h = 0; h < H; ++h) {
      for (index_t r = 0; r < count; ++r) simd::convert_row(q.row(b, h, first + r), rows + r * D, D);
      detail::for_each_seen_tile(
          options.mask, {b, 0, 1, first + shift, first + count + shift, queries, keys}, detail::score_tile_keys<T>,
          [&](index_t from, index_t to) {
            detail::score_rows(rows, D, count, D, k.row(b, 0), k.stride(1), keys, from, to, products, stride);
            for (index_t r = 0; r < count; ++r) {
              const T weight = weights(b, h, first + r);
              const T* product = products + r * stride;
              T* score = scores + r * stride;
              const simd::batch<T> zero(T(0)), factor(weight);
              for (index_t s = from; s < to; s += simd::lanes<T>) {  // both have room for whole registers
                const simd::batch<T> x = simd::load(product + s);
                simd::store(score + s, simd::fma(factor, simd::select(x < zero, zero, x), simd::load(score + s)));
              }
            }
          });
    }
    for (index_t r = 0; r < count; ++r) {
      const index_t at = first + r + shift;
      index_t* list = most == 0 ? nullptr : indices.row(b, 0, first + r);
      std::fill_n(list, most, index_t{0});
      counts(b, 0, first + r) =
          detail::choose_keys(options.mask, {b, 0, 1, at, at + 1, queries, keys}, scores + r * stride, most, list);
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
