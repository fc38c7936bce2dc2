// SPDX-License-Identifier: Apache-2.0
/// @file What the mixers with a diagonal decay hand to their rule.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/mixers/linear/normalizer.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What has a decay of its own.
enum class decay : unsigned char { none, head, key_channel, value_channel };

/// The checked arguments. Views of one number per token have one channel; heads of all but q and k divide Hv.
template <class Q, class E, class G, class W, class Feature, class Gate, class Normalizer, class V = E>
struct diagonal_problem {
  using T = accumulator_t<Q>;
  tensor_view<const Q, 4> q;          // (B, H, T, D), H a multiple of Hk
  tensor_view<const E, 4> k;          // (B, Hk, T, D)
  tensor_view<const V, 4> v;          // (B, Hv, T, Dv)
  tensor_view<const G, 4> log_decay;  // (B, Hg, T, 1, D or Dv)
  tensor_view<const W, 4> beta;       // (B, Hb, T, 1 or Dv)
  tensor_view<const T, 1> rate;       // (Hg) or empty
  tensor_view<const T, 2> bias;       // (Hg, 1, D or Dv) or empty
  const Feature& feature;
  const Gate& gate;
  const Normalizer& normalizer;
  T scale;
  tokenmix::order order;
  tensor_view<const W, 4> write{};  // (B, Hb, T, 1 or Dv), or empty: as beta
  tensor_view<const T, 2> bonus{};  // (Hk, D), of a rule that reads the state before the token

  /// (Hg, tokens), not 0 where a token of a gate head begins anew because decays of key channels are steep; empty: seen from
  /// log_decay. What is given a part of the channels must still cut its tokens as if it had all.
  tensor_view<const unsigned char, 2> cuts{};
  index_t first_of_cuts = 0;  // the token, in the order in which they are met, of its first column

  bool reversed() const { return order == tokenmix::order::reverse; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
