// SPDX-License-Identifier: Apache-2.0
/// @file What a softmax attention is told besides its tensors.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/all_keys.hpp>
#include <tokenmix/primitives/normalizer.hpp>
#include <tokenmix/primitives/position/rotary_inside.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Leaves weights as they are.
struct no_edit {};

/// Options of softmax_attention and its relatives: use with designated initialisers; the order of the fields is API.
template <class Mask = all_keys, class Score = plain_score, class Sequences = whole_sequences,
          class Normalizer = softmax_weights, class Edit = no_edit, class Rotary = no_rotary, class Lse = float>
struct softmax_options {
  Mask mask{};                    ///< who sees whom: masks, their & | !, or a lambda of an index
  Score score{};                  ///< what happens to scores before the softmax: modifiers, their |, or a lambda
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  Sequences sequences{};          ///< whole_sequences, lengths or packed
  Normalizer normalizer{};        ///< softmax_weights, softmax_off_by_one, sigmoid_weights, ...
  Edit edit{};                ///< a callable (weight, index) -> weight between the softmax and V; costs a second pass
  Rotary rotary{};            ///< rotary embedding of q and k by their positions, inside the kernel
  tensor_view<Lse, 3> lse{};  ///< (B, H, T), output: log of the sum of exp(score), sinks included; none if empty
  std::span<const index_t> rows{};  ///< for softmax_attention_weights: the rows wanted, all if empty
};

/// The tensors of a softmax attention, where four in a row are not enough.
template <class Q, class E, class Sink = accumulator_t<Q>>
struct softmax_inputs {
  tensor_view<const Q, 4> q{};         // (B, H, T, D)
  tensor_view<const E, 4> k{};         // (B, Hk, S, D)
  tensor_view<const E, 4> v{};         // (B, Hk, S, Dv)
  tensor_view<const Sink, 1> sinks{};  // (H) a logit per head that takes weight and gives no value; none if empty
  tensor_view<const E, 4> extra_k{};   // (B|1, Hk, P, D) keys before all others: a prefix, memory slots; none if empty
  tensor_view<const E, 4> extra_v{};   // (B|1, Hk, P, Dv)
};

namespace detail {

/// The scale of the options, or 1 / sqrt(D).
template <class Options>
double scale_of(const Options& options, index_t channels) {
  return options.scale ? *options.scale : 1.0 / std::sqrt(static_cast<double>(std::max<index_t>(channels, 1)));
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
