// SPDX-License-Identifier: Apache-2.0
/// @file States that decay and absorb a matrix: S = exp(log_decay) S + M.
#pragma once

#include <tokenmix/primitives/scan/operation.hpp>
#include <tokenmix/simd/math.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A decay in log space and what is added.
template <class X>
struct decayed_matrix {
  X log_decay;
  X matrix;
};

/// (B, H, T, D, Dv) matrices and their decays, which have extent 1 where they are repeated: (B, H, T, 1, 1) for a decay per
/// head, (B, H, T, D, 1) per row, (B, H, T, 1, Dv) per column.
template <class E, std::size_t R>
struct matrix_decay_view {
  tensor_view<E, R> log_decay{};
  tensor_view<E, R> matrix{};

  template <class X>
  using fields = decayed_matrix<X>;
  static constexpr std::array<const char*, 2> names{"log_decay", "matrix"};
  constexpr std::array<tensor_view<E, R>, 2> views() const { return {log_decay, matrix}; }
};

/// S -> exp(g) S + M, one after the other: (g1 + g2, exp(g2) M1 + M2). The states of linear attention from chunk to
/// chunk, or, with M = k v', from token to token. T is float or double.
///
/// Written to a plain tensor it is S, begun at the initial state, or at 0.
///
/// Numerics   |error| <= (8 + log2 n) u (sum of |decayed M|) for data whose roundings average out and |g| <= 1; an
///            exponent adds its own |g| u. Log decays are added from the start of their block of 128 steps, never
///            subtracted. A log decay of -infinity is a reset: the old state is not read, whatever it holds.
template <class T>
struct matrix_decay {
  template <class X>
  using value = decayed_matrix<X>;

  static constexpr value<T> identity() { return {T(0), T(0)}; }

  static TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> lift(const simd::batch<T>& state) {
    return {simd::batch<T>(T(0)), state};
  }
  TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> operator()(const value<simd::batch<T>>& before,
                                                          const value<simd::batch<T>>& now) const {
    const auto resets = now.log_decay == simd::batch<T>(-std::numeric_limits<T>::infinity());
    const simd::batch<T> kept = simd::fma(simd::exp(now.log_decay), before.matrix, now.matrix);
    return {simd::select(resets, now.log_decay, before.log_decay + now.log_decay),
            simd::select(resets, now.matrix, kept)};
  }
  static TOKENMIX_ALWAYS_INLINE simd::batch<T> read(const value<simd::batch<T>>& v) { return v.matrix; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
