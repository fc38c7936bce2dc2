// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/mixers/softmax/options.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Softmax attention: every query takes the mean of the values, weighted by how well their keys match.
///
///     score[t, s] = modify(scale * sum over d of q[t, d] k[s, d])      for the keys s that query t sees
///     out[t]      = sum over s of exp(score[t, s]) v[s] / (sum over s of exp(score[t, s]) + sinks)
///
/// with one key head for every H / Hk query heads in a row (MHA, GQA, MQA).
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv); any strides, last axis contiguous.
///            sinks: (H). extra_k: (B|1, Hk, P, D) and extra_v: (B|1, Hk, P, Dv) stand before all other keys. lse: (B, H, T).
/// Aliasing   out and lse share no element with an input; inputs may share memory (packed QKV).
/// Numerics   computed in float (double for double), u = 2^-24. |error| <= (2 + D / 64) u A (1 + M), where A is the mean of |v|
///            under the weights and M that of scale * sum |q k|, under the weights or under weights times |v|, whichever is
///            more, for D >= 64 and M >= 1; below that, 8 u A and 4 u A (1 + M), whichever is more: the exponential and the
///            division take 2 u each. 16-bit outputs add half a unit of theirs. The
///            bound does not grow with S. |error of lse| <= 4 u max(1, |lse|) + max(2, sqrt D) u M. A query that sees no key
///            gives zeros and lse = -inf (its sink's logit if it has one). NaN in a visible key or query makes its rows NaN,
///            in a visible value its channel; what is masked, by -inf from a modifier too, is not seen.
///            The same bits for any executor, batch neighbours, strides, split of the queries into calls, and key source.
/// Cost       2 (D + Dv) operations per visible pair; K and V are read once per group of up to 4 tiles of 64 queries.
///            Scratch per worker: (256 + D + (log2(S / 256) + 2) (Dv + 2)) tile widths, kept between calls. Nothing of size T S.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Vaswani et al. 2017, section 3.2.1; the online form of Milakov and Gimelshein 2018 on tiles as in Dao et al. 2022.
template <class Q, class E, class Sink, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Normalizer = softmax_weights, class Edit = no_edit,
          class Rotary = no_rotary, class Lse = float, executor Executor = calling_thread>
void softmax_attention(const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 4> out,
                       const softmax_options<Mask, Score, Sequences, Normalizer, Edit, Rotary, Lse>& options = {},
                       Executor&& on = {}) {
  const auto& [q, k, v, sinks, extra_k, extra_v] = inputs;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  if (extra_k.extent(2) != 0) detail::check_extra_keys(q, k, v, extra_k, extra_v);
  detail::check_attention(q, k.extent(2), extra_k.extent(2), sinks, options);
  detail::check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, options, q, k, v, extra_k,
                                 extra_v);

  detail::attend(q, key_value_views<E>{{k, v, extra_k, extra_v}}, options,
                 detail::attention_output<O, Lse, Sink>{out, options.lse, sinks, detail::zero_logit_of<Normalizer>()},
                 on);
}

/// The same with the usual four tensors.
template <class Q, class E, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Normalizer = softmax_weights, class Edit = no_edit,
          class Rotary = no_rotary, class Lse = float, executor Executor = calling_thread>
void softmax_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                       tensor_view<const E, 4> k,  // (B, Hk, S, D)
                       tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                       tensor_view<O, 4> out,      // (B, H, T, Dv)
                       const softmax_options<Mask, Score, Sequences, Normalizer, Edit, Rotary, Lse>& options = {},
                       Executor&& on = {}) {
  softmax_attention(softmax_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
