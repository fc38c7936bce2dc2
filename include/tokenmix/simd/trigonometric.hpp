// SPDX-License-Identifier: Apache-2.0
/// @file Sine and cosine together, and angles brought into one turn.
#pragma once

#include <tokenmix/simd/polynomial.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

template <class T>
struct turns;

// pi / 2 in three parts, the first two short enough for exact products with the quadrants of several thousand turns; the
// series of (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2 up to pi / 4.
template <>
struct turns<float> {
  static constexpr float magic = 0x1.8p23f;
  static constexpr float quarter[3] = {0x1.92p0f, 0x1.fb4p-12f, 0x1.4442d2p-24f};
  static constexpr float sine[] = {-1.0f / 6, 1.0f / 120, -1.0f / 5040, 1.0f / 362880};
  static constexpr float cosine[] = {1.0f / 24, -1.0f / 720, 1.0f / 40320, -1.0f / 3628800};
};
template <>
struct turns<double> {
  static constexpr double magic = 0x1.8p52;
  static constexpr double quarter[3] = {0x1.921fb5444p0, 0x1.68c234c4cp-39, 0x1.98a2e03707345p-77};
  static constexpr double sine[] = {-1.0 / 6,         1.0 / 120,          -1.0 / 5040,          1.0 / 362880,
                                    -1.0 / 39916800,  1.0 / 6227020800.0, -1.0 / 1307674368000.0,
                                    1.0 / 355687428096000.0};
  static constexpr double cosine[] = {1.0 / 24,
                                      -1.0 / 720,
                                      1.0 / 40320,
                                      -1.0 / 3628800,
                                      1.0 / 479001600.0,
                                      -1.0 / 87178291200.0,
                                      1.0 / 20922789888000.0,
                                      -1.0 / 6402373705728000.0};
};

/// x - count pi / 2, the count being a whole number.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> less_quarters(const batch<T>& x, const batch<T>& count) {
  const batch<T> minus = batch<T>(T(0)) - count;
  batch<T> r = fma(minus, batch<T>(turns<T>::quarter[0]), x);
  r = fma(minus, batch<T>(turns<T>::quarter[1]), r);
  return fma(minus, batch<T>(turns<T>::quarter[2]), r);
}

/// The whole number nearest to x * factor, where that is < 2^22 (float) or 2^51.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> nearest_whole(const batch<T>& x, T factor) {
  const batch<T> magic(turns<T>::magic);
  return fma(x, batch<T>(factor), magic) - magic;
}

}  // namespace detail

/// The angle less whole turns, in about [-pi, pi].
///
/// Numerics   within 1 ULP of pi for |x| up to 10^4; NaN for NaN and infinities.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> in_one_turn(const xsimd::batch<T, arch>& x) {
  const batch<T> whole = detail::nearest_whole<T>(x, T(0.15915494309189533577));
  return detail::less_quarters<T>(x, whole * batch<T>(T(4)));
}

/// sin(x) and cos(x).
///
/// Numerics   float: error below 1.2 u, double below 1.5 u, for |x| up to 10^4 (u = 2^-24, 2^-53: absolute); NaN for NaN and
///            infinities.
template <class T>
TOKENMIX_ALWAYS_INLINE void sine_cosine(const xsimd::batch<T, arch>& x, batch<T>& sine, batch<T>& cosine) {
  using I = integer_of<T>;
  using constants = detail::turns<T>;
  const batch<T> magic(constants::magic);
  const batch<T> shifted = fma(x, batch<T>(T(0.63661977236758134308)), magic);
  const batch<I> quadrant = detail::bits_as<I>(shifted);
  const batch<T> r = detail::less_quarters<T>(x, shifted - magic);
  const batch<T> square = r * r;
  const batch<T> s = fma(square * detail::polynomial<T>(square, constants::sine), r, r);
  const batch<T> half = fma(square, batch<T>(T(-0.5)), batch<T>(T(1)));
  const batch<T> c = fma(square * square, detail::polynomial<T>(square, constants::cosine), half);
  const auto odd = mask_cast<T>((quadrant & batch<I>(I(1))) == batch<I>(I(1)));
  const auto sine_below = mask_cast<T>((quadrant & batch<I>(I(2))) == batch<I>(I(2)));
  const auto cosine_below = mask_cast<T>(((quadrant + batch<I>(I(1))) & batch<I>(I(2))) == batch<I>(I(2)));
  const batch<T> zero(T(0));
  const batch<T> of_sine = select(odd, c, s), of_cosine = select(odd, s, c);
  sine = select(sine_below, zero - of_sine, of_sine);
  cosine = select(cosine_below, zero - of_cosine, of_cosine);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
