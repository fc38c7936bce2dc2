// SPDX-License-Identifier: Apache-2.0
/// @file One token of a selective scan for a register of channels: states in the lanes, as they lie in memory.
#pragma once

#include <tokenmix/mixers/state_space/detail/selective_states.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <cassert>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Rows of states, `stride` apart: 0 where all channels have the same.
template <class T>
struct selective_state_rows {
  T* at = nullptr;
  index_t stride = 0;

  selective_state_rows from(index_t channel, index_t state) const { return {at + channel * stride + state, stride}; }
  void next_channel() { at += stride; }
};

/// One token: delta, written and y have room for whole registers of channels, the rows N states.
template <class T>
struct selective_token {
  index_t channels = 0;
  index_t states = 0;
  const T* delta = nullptr;    // (channels)
  const T* written = nullptr;  // (channels): delta x
  selective_state_rows<const T> A;
  selective_state_rows<const T> b, c;  // one row for all channels, or constant: a row for each
  selective_state_rows<const T> initial;
  selective_state_rows<T> final;
  T* y = nullptr;  // (channels)
};

/// New states of up to L channels, up to L states of each: to rows of h, and to memory.
template <class T, bool Whole>
TOKENMIX_ALWAYS_INLINE void selective_step_states(const selective_token<T>& token, index_t channel, index_t channels,
                                                  index_t s, index_t states, T* h) {
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  const auto load = [states](const selective_state_rows<const T>& rows)
                        TOKENMIX_LAMBDA_INLINE { return Whole ? simd::load(rows.at) : simd::load_n(rows.at, states); };
  alignas(64) T scaled[static_cast<std::size_t>(L)];
  simd::store(scaled, simd::load(token.delta + channel) * V(log2_e<T>));
  const T* written = token.written + channel;
  auto A = token.A.from(channel, s), initial = token.initial.from(channel, s), b = token.b.from(channel, s);
  auto final = token.final.from(channel, s);
  for (index_t l = 0; l < channels; ++l) {
    const V rate = load(A);
    assert(simd::bits(rate > V(T(0))) == 0 && "the real part of A is at most 0");
    const V state = simd::decayed<T>(V(scaled[l]) * rate, load(initial), V(written[l]) * load(b));
    simd::store(h + l * L, state);
    if constexpr (Whole) {
      simd::store(final.at, state);
    } else {
      simd::store_n(final.at, state, states);
    }
    A.next_channel(), initial.next_channel(), b.next_channel(), final.next_channel();
  }
}

/// All states and y: the operations of selective_states in its order, so that a token has the same bits alone as among others. States
/// stand in the lanes as they lie in memory, and in the lanes of channels only to be summed.
template <class T>
TOKENMIX_NOINLINE void selective_step(const selective_token<T>& token) {
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  alignas(64) T h[static_cast<std::size_t>(L * L)] = {};
  for (index_t channel = 0; channel < token.channels; channel += L) {
    const index_t channels = std::min(L, token.channels - channel);
    V sum(T(0));
    for (index_t s = 0; s < token.states; s += L) {
      const index_t states = std::min(L, token.states - s);
      const auto c = token.c.from(channel, s);
      V columns[static_cast<std::size_t>(L)];
      if (states == L) {
        selective_step_states<T, true>(token, channel, channels, s, states, h);
      } else {
        selective_step_states<T, false>(token, channel, channels, s, states, h);
      }
      simd::load_transposed(h, L, columns);
      if (c.stride != 0) {
        V of_c[static_cast<std::size_t>(L)];
        simd::load_transposed_n(c.at, c.stride, channels, states, of_c);
        for (index_t n = 0; n < states; ++n) sum = simd::fma(of_c[n], columns[n], sum);
      } else if (states == L) {
        simd::unroll<L>([&](auto n) TOKENMIX_LAMBDA_INLINE { sum = simd::fma(V(c.at[n]), columns[n], sum); });
      } else {
        for (index_t n = 0; n < states; ++n) sum = simd::fma(V(c.at[n]), columns[n], sum);
      }
    }
    simd::store(token.y + channel, sum);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
