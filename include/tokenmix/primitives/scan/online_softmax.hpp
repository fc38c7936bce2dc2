// SPDX-License-Identifier: Apache-2.0
/// @file Softmax-weighted means of all values so far: the state (m, l, acc) as an operation of a scan.
#pragma once

#include <tokenmix/primitives/scan/log_sum_exp.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// m: the largest score; l: the sum of exp(score - m); acc: the sum of exp(score - m) value.
template <class X>
struct softmax_sums {
  X m;
  X l;
  X acc;
};

/// A value and its score.
template <class X>
struct scored_value {
  X score;
  X value;
};

/// Softmax states; the empty one is (-infinity, 0, 0). m and l may have extent 1 where they are repeated, along the
/// channels.
template <class E, std::size_t R>
struct online_softmax_view {
  tensor_view<E, R> m{};
  tensor_view<E, R> l{};
  tensor_view<E, R> acc{};

  template <class X>
  using fields = softmax_sums<X>;
  static constexpr std::array<const char*, 3> names{"m", "l", "acc"};
  constexpr std::array<tensor_view<E, R>, 3> views() const { return {m, l, acc}; }
};

/// Tokens: (B, H, T, 1) scores and (B, H, T, Dv) values.
template <class E, std::size_t R>
struct scored_view {
  tensor_view<E, R> score{};
  tensor_view<E, R> value{};

  template <class X>
  using fields = scored_value<X>;
  static constexpr std::array<const char*, 2> names{"score", "value"};
  constexpr std::array<tensor_view<E, R>, 2> views() const { return {score, value}; }
};

/// Softmax attention of one query as a prefix scan: every step is the mean of the values so far, weighted by exp(score).
///
/// Takes tokens (scored_view) or states of several tokens (online_softmax_view); written to a plain tensor it is acc / l.
///
/// Numerics   |error| <= (8 + log2 n) u (weighted mean of |value|) for data whose roundings average out. A score of
///            -infinity is not seen, whatever its value holds; where nothing was seen the mean is 0. A NaN score or
///            value gives NaN from there on.
/// Source     Feng et al. 2024, Attention as an RNN, section 3.2; Milakov and Gimelshein 2018, section 3.1.
template <class T>
struct online_softmax {
  template <class X>
  using value = softmax_sums<X>;
  using lanes = simd::batch<T>;

  static constexpr value<T> identity() { return {-std::numeric_limits<T>::infinity(), T(0), T(0)}; }

  static TOKENMIX_ALWAYS_INLINE value<lanes> lift(const scored_value<lanes>& x) {
    const auto unseen = x.score == lanes(-std::numeric_limits<T>::infinity());
    const lanes zero(T(0));
    return {x.score, simd::select(unseen, zero, lanes(T(1))), simd::select(unseen, zero, x.value)};
  }
  TOKENMIX_ALWAYS_INLINE value<lanes> operator()(const value<lanes>& before, const value<lanes>& now) const {
    const detail::common_exponent<T> to(before.m, now.m);
    return {to.m, simd::fma(before.l, to.before, detail::product(now.l, to.now)),
            simd::fma(before.acc, to.before, detail::product(now.acc, to.now))};
  }
  static TOKENMIX_ALWAYS_INLINE lanes read(const value<lanes>& v) {
    return simd::select(v.l == lanes(T(0)), lanes(T(0)), detail::quotient(v.acc, v.l));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
