// SPDX-License-Identifier: Apache-2.0
/// @file Exponentials of gates: of either sign, in few instructions, and one whose complement does not cancel.
#pragma once

#include <tokenmix/simd/exponential.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// An integer near x: the nearest, where integers have neighbours.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> nearest_integer(const xsimd::batch<T, arch>& x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_roundscale_ps(x.data, 0x08));
  } else {
    return batch<T>(_mm512_roundscale_pd(x.data, 0x08));
  }
#else
  const batch<T> shifter(detail::exponential<T>::shifter);
  return (x + shifter) - shifter;
#endif
}

/// 2^x of either sign, as cheap as exp2_nonpositive: 1 / (1 + 2^-x) needs no care at its ends.
///
/// Numerics   relative to the result, float: 1.9e-7, double: 2.6e-16. Infinity where the result is not finite; below the least
///            normal number subnormal or +0, and +0 at -infinity. NaN gives NaN.
/// Cost       AVX-512: 7 instructions for floats, 13 for doubles; elsewhere 12 and 18.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp2_either_sign(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    const batch<T> f(_mm512_reduce_ps(x.data, 0x09));
    return batch<T>(_mm512_scalef_ps(detail::polynomial(f, E::power).data, x.data));
  } else {
    const batch<T> f(_mm512_reduce_pd(x.data, 0x09));
    return batch<T>(_mm512_scalef_pd(detail::polynomial(f, E::power).data, x.data));
  }
#else
  // Biased as in exp_nonpositive. The largest exponent is one at which half the result is finite and the result is not.
  constexpr T shifter = E::shifter - E::least_exponent, most = T(2.4) - E::least_exponent;
  const batch<T> bounded = min_or_second(batch<T>(most), max_or_second(batch<T>(E::least_exponent), batch<T>(x)));
  const batch<T> shifted = bounded + batch<T>(shifter);
  const batch<T> f = bounded - (shifted - batch<T>(shifter));
  // In a register, so that no compiler fuses this product with the sum that follows it.
  return in_register<T>(detail::polynomial(f, E::doubled_power) * detail::bits_as<T>(detail::as_exponent(shifted)));
#endif
}

/// e^-x of either sign in one step: what gates are made of.
///
/// Numerics   as exp2_either_sign, and |x| times as much for the rounding of x log2(e).
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp_of_minus(const xsimd::batch<T, arch>& x) {
  return exp2_either_sign<T>(x * batch<T>(-detail::exponential<T>::log2_e));
}

/// e^-x of either sign, x less a multiple of ln 2 first.
///
/// Numerics   relative to the result, float: 1.7e-7 + 2.8e-9 |x|, without fma and in double as exp. Infinity where the result is
///            not finite; below the least normal number subnormal or +0. NaN gives NaN.
/// Cost       floats on AVX-512: 11 instructions, no comparison among them; elsewhere 14.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp_of_minus_reduced(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
  if constexpr (std::is_same_v<T, double> || !detail::has_fma) {
    return exp<T>(x ^ batch<T>(T(-0.0)));
  } else {
#if defined(__AVX512F__)
    // e^104 is infinite, e^-104 rounds to zero.
    const batch<T> bounded = min_or_second(batch<T>(T(104)), max_or_second(batch<T>(T(-104)), batch<T>(x)));
    const batch<T> n = nearest_integer<T>(bounded * batch<T>(-E::log2_e));
    const batch<T> r = fma(n, batch<T>(E::ln2), bounded);
    return batch<T>(_mm512_scalef_ps(detail::polynomial(r, E::of_minus).data, n.data));
#else
    // The bits of the power of two before: zero for the least n, which is below the normal numbers; the largest is one at which
    // that power is finite and its double is not.
    constexpr T shifter = E::shifter - E::least_exponent;
    const batch<T> bounded = min_or_second(batch<T>(-E::least), max_or_second(batch<T>(T(-89)), batch<T>(x)));
    const batch<T> shifted = fma(bounded, batch<T>(-E::log2_e), batch<T>(shifter));
    const batch<T> r = fma(shifted - batch<T>(shifter), batch<T>(E::ln2), bounded);
    const batch<T> half = detail::bits_as<T>(detail::as_exponent(shifted)), p = detail::polynomial(r, E::of_minus);
    return in_register<T>((p + p) * half);
#endif
  }
}

/// 2^n for integers n <= 0 of any size; +0 below the normal numbers, or the subnormal ones. NaN gives NaN or a number.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> power_of_two(const xsimd::batch<T, arch>& n) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_scalef_ps(_mm512_set1_ps(1.0f), n.data));
  } else {
    return batch<T>(_mm512_scalef_pd(_mm512_set1_pd(1.0), n.data));
  }
#else
  using E = detail::exponential<T>;
  constexpr T least = E::least_exponent - T(1);  // whose exponent bits are zero
  const batch<T> bounded = max_or_second(batch<T>(n), batch<T>(least));
  return detail::bits_as<T>(detail::as_exponent<T>(bounded + batch<T>(E::shifter - least)));
#endif
}

/// 2^x and 1 - 2^x.
template <class T>
struct power_and_rest {
  batch<T> value, rest;
};

/// 2^x for x <= 0 and what it leaves of 1, which does not cancel.
///
/// Numerics   float: 1.8e-7, double: 4e-16, relative to either. Exactly 1 and 0 at 0; value is exactly +0 below 2^-150
///            (double: 2^-1075), elsewhere than on AVX-512 already below 2^-126.5 (2^-1022.5). NaN gives NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE power_and_rest<T> exp2_and_rest(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
  // Far enough down that the power is zero; the fraction of minus infinity would be NaN.
  const batch<T> bounded =
      max_or_second(batch<T>(E::least_exponent - static_cast<T>(E::fraction_bits + 2)), batch<T>(x));
  const batch<T> n = nearest_integer<T>(bounded);
  const batch<T> f = bounded - n, whole = power_of_two<T>(n);
  const batch<T> less = f * detail::polynomial(f, E::centred);  // 2^f - 1
  return {fma(less, whole, whole), fnma(less, whole, batch<T>(T(1)) - whole)};
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
