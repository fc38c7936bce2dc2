// SPDX-License-Identifier: Apache-2.0
/// @file Parameters and states of diagonal models, from memory to registers of channels and back.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/pairs.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Complex numbers as the real ones that they lie as.
template <class T>
const T* real_numbers(const std::complex<T>* p) {
  return reinterpret_cast<const T*>(p);
}
template <class T>
T* real_numbers(std::complex<T>* p) {
  return reinterpret_cast<T*>(p);
}
template <class T>
  requires std::is_floating_point_v<T>
T* real_numbers(T* p) {
  return p;
}

/// (channels, states) numbers, at most a register of channels, as registers: state after state, part after part. Other lanes: 0.
/// The states are contiguous (a transpose), or the channels.
template <class P>
void load_diagonal_lines(const P* from, index_t channel_stride, index_t state_stride, index_t channels, index_t states,
                         real_part_t<P>* to) {
  using T = real_part_t<P>;
  constexpr index_t L = simd::lanes<T>;
  const T* const numbers = real_numbers(from);
  if (channel_stride != 1 || states == 1) {
    if (state_stride == 1 || states == 1) {
      simd::transpose_in(numbers, channel_stride * parts<P>, channels, states * parts<P>, to, L);
      return;
    }
  }
  for (index_t n = 0; n < states; ++n) {
    const T* const line = numbers + n * state_stride * parts<P>;
    if constexpr (parts<P> == 2) {
      const index_t all = 2 * channels;
      const simd::pairs<T> p = simd::separate<T>(simd::load_n(line, std::min(L, all)),
                                                 all > L ? simd::load_n(line + L, all - L) : simd::batch<T>(T(0)));
      simd::store(to + 2 * n * L, p.first);
      simd::store(to + (2 * n + 1) * L, p.second);
    } else {
      simd::store(to + n * L, simd::load_n(line, channels));
    }
  }
}

/// The way back.
template <class P>
void store_diagonal_lines(const real_part_t<P>* from, index_t channels, index_t states, P* to, index_t channel_stride,
                          index_t state_stride) {
  using T = real_part_t<P>;
  constexpr index_t L = simd::lanes<T>;
  T* const numbers = real_numbers(to);
  if (channel_stride != 1 || states == 1) {
    if (state_stride == 1 || states == 1) {
      simd::detail::transpose_out(from, L, channels, states * parts<P>, numbers, channel_stride * parts<P>,
                                  [](const simd::batch<T>& v, index_t) TOKENMIX_LAMBDA_INLINE { return v; });
      return;
    }
  }
  for (index_t n = 0; n < states; ++n) {
    T* const line = numbers + n * state_stride * parts<P>;
    if constexpr (parts<P> == 2) {
      simd::batch<T> a, b;
      simd::join<T>({simd::load(from + 2 * n * L), simd::load(from + (2 * n + 1) * L)}, a, b);
      const index_t all = 2 * channels;
      simd::store_n(line, a, std::min(L, all));
      if (all > L) simd::store_n(line + L, b, all - L);
    } else {
      simd::store_n(line, simd::load(from + n * L), channels);
    }
  }
}

/// The readout's factor into the output's lines, their imaginary parts negated; whether a transition of a channel is 0.
template <class P>
bool prepare_lines(const real_part_t<P>* transition, real_part_t<P>* output, index_t states, index_t channels,
                   real_part_t<P> factor) {
  using T = real_part_t<P>;
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> zero(T(0)), re(factor);
  const auto valid = simd::first_lanes<T>(channels);
  std::uint32_t resets = 0;
  for (index_t n = 0; n < states * parts<P>; n += parts<P>) {
    auto gone = simd::load(transition + n * L) == zero;
    simd::store(output + n * L, simd::load(output + n * L) * re);
    if constexpr (parts<P> == 2) {
      gone = gone & (simd::load(transition + (n + 1) * L) == zero);
      simd::store(output + (n + 1) * L, simd::load(output + (n + 1) * L) * (simd::batch<T>(T(-0.0)) - re));
    }
    resets |= simd::bits<T>(gone & valid);
  }
  return resets != 0;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
