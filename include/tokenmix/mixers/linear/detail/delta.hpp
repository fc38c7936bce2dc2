// SPDX-License-Identifier: Apache-2.0
/// @file What the delta rules check alike.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Everything but the gate; the width of the features.
template <class Q, class E, class W, std::size_t R, class T, class O, class Options, class... Gates>
index_t check_delta(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k,
                    const tensor_view<const E, 4>& v, const tensor_view<const W, R>& beta,
                    const tensor_view<const W, R>& write, const tensor_view<const T, 4>& initial_state,
                    const tensor_view<O, 4>& out, const Options& options, const Gates&... gates) {
  static_assert(R == 3 || R == 4, "beta is (B, Hb, T) or (B, Hb, T, Dv)");
  check_direction(options.order);
  check_tokens(q, k, v, true);
  check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  check_gate("beta", beta, k, v);
  if constexpr (R == 4) check_extent("beta", beta, 3, "channels", v.extent(3), "v has that many");
  if (write.data() != nullptr) {
    check_gate("write", write, k, v);
    if constexpr (R == 4) check_extent("write", write, 3, "channels", v.extent(3), "v has that many");
  }
  const index_t F = check_feature(options.feature, k.extent(3), q.extent(1), k.extent(1));
  check_results(out, {q.extent(0), std::max(q.extent(1), v.extent(1)), q.extent(2), v.extent(3)}, initial_state,
                options.final_state, {options.sequences.count(q.extent(0)), v.extent(1), F, v.extent(3)}, q, k, v, beta,
                write, gates...);
  assert_betas(with_channels(beta), options.sequences, q.extent(0));
  return F;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
