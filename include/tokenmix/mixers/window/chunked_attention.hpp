// SPDX-License-Identifier: Apache-2.0
/// @file Attention within chunks of tokens, with neighbouring chunks if wanted.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/mask/chunks.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Options of chunked_attention: use with designated initialisers; the order of the fields is API.
template <class Mask = all_keys, class Score = plain_score, class Sequences = whole_sequences,
          class Normalizer = softmax_weights, class Lse = float>
struct chunked_options {
  index_t size = 0;               ///< tokens of a chunk, >= 1
  index_t before = 0;             ///< chunks before its own that a query sees
  index_t after = 0;              ///< and after it
  Mask mask{};                    ///< what is hidden within them: causal{}, say
  Score score{};                  ///< as in softmax_options
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  Sequences sequences{};          ///< whole_sequences, lengths or packed: chunks are counted from the first key of each
  Normalizer normalizer{};    ///< softmax_weights, or relu_squared_weights, laplace_weights, ... of unnormalised mixers
  tensor_view<Lse, 3> lse{};  ///< (B, H, T), output; none if empty
};

/// Attention of every token over the chunk of `size` tokens that it is in, and `before` chunks before and `after` after it.
///
///     out[t] = sum over the visible s with chunk(t) - before <= chunk(s) <= chunk(t) + after of weight[t, s] v[s],
///              chunk(p) = floor(p / size), weight as in softmax_attention, or the normaliser's
///
/// Shapes, aliasing, numerics, errors: as softmax_attention under the mask `chunks`, whose call this is; the last chunk may be
/// shorter. T < S: queries are the last T positions, so a prompt may be attended to in pieces, or token by token.
/// Cost       2 (D + Dv) operations per visible pair: size (1 + before + after) keys for each query.
/// Source     Ma et al. 2023 (MEGA), section 3.4 (chunks); Zhao et al. 2023 (MossFormer), section 2.3 (groups, squared ReLU).
template <class Q, class E, class Sink, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Normalizer = softmax_weights, class Lse = float,
          executor Executor = calling_thread>
void chunked_attention(const softmax_inputs<Q, E, Sink>& inputs, tensor_view<O, 4> out,  // (B, H, T, Dv)
                       const chunked_options<Mask, Score, Sequences, Normalizer, Lse>& options, Executor&& on = {}) {
  const auto run = [&](const auto& mask) {
    softmax_attention(
        inputs, out,
        softmax_options<std::remove_cvref_t<decltype(mask)>, Score, Sequences, Normalizer, no_edit, no_rotary, Lse>{
            .mask = mask,
            .score = options.score,
            .scale = options.scale,
            .sequences = options.sequences,
            .normalizer = options.normalizer,
            .lse = options.lse},
        on);
  };
  const chunks within{.size = options.size, .before = options.before, .after = options.after};
  if constexpr (std::is_same_v<Mask, all_keys>) {
    run(within);
  } else {
    run(within & options.mask);
  }
}

/// The same with the usual four tensors.
template <class Q, class E, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Normalizer = softmax_weights, class Lse = float,
          executor Executor = calling_thread>
void chunked_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                       tensor_view<const E, 4> k,  // (B, Hk, S, D)
                       tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                       tensor_view<O, 4> out,      // (B, H, T, Dv)
                       const chunked_options<Mask, Score, Sequences, Normalizer, Lse>& options, Executor&& on = {}) {
  chunked_attention(softmax_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
