// SPDX-License-Identifier: Apache-2.0
/// @file The checked arguments of a mixer with a diagonal decay and one write per token.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/mixers/linear/normalizer.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What has a decay of its own.
enum class decay : unsigned char { none, head, key_channel, value_channel };

/// The checked arguments. Views of one number per token have one channel; heads of all but q and k divide Hv.
template <class Q, class E, class G, class W, class Feature, class Gate, class Normalizer>
struct diagonal_problem {
  using T = accumulator_t<Q>;
  tensor_view<const Q, 4> q;          // (B, H, T, D), H a multiple of Hk
  tensor_view<const E, 4> k;          // (B, Hk, T, D)
  tensor_view<const E, 4> v;          // (B, Hv, T, Dv)
  tensor_view<const G, 4> log_decay;  // (B, Hg, T, 1, D or Dv)
  tensor_view<const W, 4> beta;       // (B, Hb, T, 1 or Dv)
  tensor_view<const T, 1> rate;       // (Hg) or empty
  tensor_view<const T, 2> bias;       // (Hg, 1, D or Dv) or empty
  const Feature& feature;
  const Gate& gate;
  const Normalizer& normalizer;
  T scale;
  tokenmix::order order;

  bool reversed() const { return order == tokenmix::order::reverse; }
  token_rows<const Q> query_rows(const sequence& seq, index_t query_head) const {
    return rows_of_tokens(q, seq.batch, query_head, seq.query_row, seq.queries, reversed());
  }
  token_rows<const E> key_rows(const sequence& seq, index_t key_head) const {
    return rows_of_tokens(k, seq.batch, key_head, seq.key_row, seq.keys, reversed());
  }
  /// Of a view whose heads divide the value heads.
  template <class X>
  token_rows<const X> value_rows(const tensor_view<const X, 4>& view, const sequence& seq, index_t value_head) const {
    const index_t head = value_head / (v.extent(1) / view.extent(1));
    return rows_of_tokens(view, seq.batch, head, seq.key_row, seq.keys, reversed());
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
