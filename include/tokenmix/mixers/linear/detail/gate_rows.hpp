// SPDX-License-Identifier: Apache-2.0
/// @file Rows of what gates are given as, made log decays.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/gate.hpp>

#include <algorithm>
#include <cassert>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// x (rows, stride) = log decays that a gate makes of the first `width` numbers of every row; zeros behind them.
///
/// rate: (heads) or empty; bias: (heads, 1 or width) or empty. `biases`: room for a row.
template <class T, class Gate>
void apply_gate([[maybe_unused]] const Gate& gate, [[maybe_unused]] const tensor_view<const T, 1>& rate,
                [[maybe_unused]] const tensor_view<const T, 2>& bias, [[maybe_unused]] index_t head,
                [[maybe_unused]] T* x, [[maybe_unused]] index_t rows, [[maybe_unused]] index_t stride,
                [[maybe_unused]] index_t width, [[maybe_unused]] T* biases) {
  if constexpr (!std::is_same_v<Gate, given_log_decay>) {
    constexpr index_t L = simd::lanes<T>;
    const T rate_of_head = rate.data() == nullptr ? T(0) : rate(head);
    for (index_t i = 0; i < stride; ++i) {
      const index_t channel = bias.extent(1) == 1 ? 0 : std::min(i, width - 1);
      biases[i] = bias.data() == nullptr ? T(0) : bias(head, channel);
    }
    const simd::batch<T> zero(T(0));
    for (index_t t = 0; t < rows; ++t) {
      for (index_t i = 0; i < stride; i += L) {
        T* at = x + t * stride + i;
        const simd::batch<T> log = gate.log_decay(simd::load(at), rate_of_head, simd::load(biases + i));
        simd::store(at, simd::select(simd::first_lanes<T>(std::clamp<index_t>(width - i, 0, L)), log, zero));
      }
    }
  }
#if !defined(NDEBUG)
  for (index_t i = 0; i < rows * stride; ++i) assert(!(x[i] > T(0)) && "a log decay is above 0");
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
