// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention of every query over the keys with its largest scores.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/sparse/detail/choose.hpp>
#include <tokenmix/mixers/sparse/detail/chosen_values.hpp>

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
             for (index_t r = 0; r < count; ++r) choice.finish(r);
             const auto value = [&](index_t key)
                                    TOKENMIX_LAMBDA_INLINE { return source.values(seq, key_head, key).data; };
             for (index_t r = 0; r < count; ++r) {
               const index_t* keys = choice.keys(r);
               // Rows of values lie apart: those of the next query are asked for meanwhile.
               const index_t next = std::min(r + 1, count - 1), last = choice.count(next) - 1;
               const index_t* keys_ahead = choice.keys(next);
               attend_known(
                   choice.scores(r), choice.count(r),
                   [&](index_t i) TOKENMIX_LAMBDA_INLINE {
                     if (i <= last) simd::prefetch_row(value(keys_ahead[i]), channels);
                     return value(keys[i]);
                   },
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
///            entry for those that were among the k best when they came, about k (1 + ln(S / k)) where scores come in no order and
///            all where every score is above the one before. Scratch per worker, beside that of the scores: lists of 2 k + 128 entries
///            for up to 64 queries, and their outputs. Nothing of size T S.
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
  detail::attend_chosen(q, key_value_views<E>{{k, v, {}, {}}}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
