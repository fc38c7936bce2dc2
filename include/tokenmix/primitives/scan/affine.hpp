// SPDX-License-Identifier: Apache-2.0
/// @file First-order recurrences: h = a h + b.
#pragma once

#include <tokenmix/primitives/scan/operation.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The map h -> a h + b.
template <class X>
struct affine_map {
  X a;
  X b;
};

/// Affine maps in two tensors. b has the shape of the scan; a may have extent 1 along any axis, which repeats it: a
/// decay per head, per channel, fixed over time.
template <class E, std::size_t R>
struct affine_view {
  tensor_view<E, R> a{};
  tensor_view<E, R> b{};

  template <class X>
  using fields = affine_map<X>;
  static constexpr std::array<const char*, 2> names{"a", "b"};
  constexpr std::array<tensor_view<E, R>, 2> views() const { return {a, b}; }
};

/// h -> a h + b, one after the other: (a2 a1) h + (a2 b1 + b2). T is float, double or std::complex of them.
///
/// Written to a plain tensor it is h, begun at the initial state (a plain tensor too), or at 0: h[t] = a[t] h[t - 1]
/// + b[t].
///
/// Numerics   |error| <= (4 + log2 n) u (sum of |a[t] ... a[s+1] b[s]|) for data whose roundings average out.
///            Products of a are taken from the start of a block, or of a block of blocks: they underflow harmlessly;
///            they overflow, and h is then infinite or NaN, where |a| > 1 over many steps. This is plain arithmetic:
///            0 h is NaN where h is infinite or NaN, so that a = 0 does not forget such a state; affine_with_reset
///            does.
template <class T>
struct affine {
  template <class X>
  using value = affine_map<X>;

  static constexpr value<T> identity() { return {T(1), T(0)}; }

  template <class X>
  static TOKENMIX_ALWAYS_INLINE value<X> lift(const X& h) {
    return {X(T(1)), h};
  }
  template <class X>
  TOKENMIX_ALWAYS_INLINE value<X> operator()(const value<X>& before, const value<X>& now) const {
    return {detail::product(now.a, before.a), detail::multiply_add(now.a, before.b, now.b)};
  }
  template <class X>
  static TOKENMIX_ALWAYS_INLINE X read(const value<X>& v) {
    return v.b;
  }
};

/// The same for real numbers, where a = 0 is a reset: it does not read the old state, whatever that holds.
///
/// Numerics   as affine. A product of decays that underflows stays the least normal number, so that it is told from a
///            reset: a NaN or infinity passes through any number of decays that are not 0.
template <class T>
struct affine_with_reset {
  template <class X>
  using value = affine_map<X>;

  static constexpr value<T> identity() { return {T(1), T(0)}; }

  static TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> lift(const simd::batch<T>& h) {
    return {simd::batch<T>(T(1)), h};
  }
  TOKENMIX_ALWAYS_INLINE value<simd::batch<T>> operator()(const value<simd::batch<T>>& before,
                                                          const value<simd::batch<T>>& now) const {
    const simd::batch<T> zero(T(0));
    const auto resets = now.a == zero;
    const simd::batch<T> a = detail::product(now.a, before.a);
    const simd::batch<T> decayed = simd::select(a == zero, simd::batch<T>(std::numeric_limits<T>::min()), a);
    return {simd::select(resets | (before.a == zero), zero, decayed),
            simd::select(resets, now.b, simd::fma(now.a, before.b, now.b))};
  }
  static TOKENMIX_ALWAYS_INLINE simd::batch<T> read(const value<simd::batch<T>>& v) { return v.b; }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
