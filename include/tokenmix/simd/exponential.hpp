// SPDX-License-Identifier: Apache-2.0
/// @file Exponentials: exp, exp2, expm1, and the cheap one of softmax.
#pragma once

#include <tokenmix/simd/polynomial.hpp>

#include <bit>
#include <cstdint>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

template <class T>
struct exponential;

// Polynomials are minimax fits of this library (relative error in the comment), `2^f` with p(0) = 1 and p(1) = 2.
template <>
struct exponential<float> {
  static constexpr int fraction_bits = 23;
  static constexpr float shifter = 0x1.8p23f;  // adding it rounds to an integer, which stands in the last bits
  static constexpr float log2_e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.62e4p-1f;  // 15 bits: its products with exponents are exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float least = -0x1.5d589ep+6f;    // the least argument with a normal result
  static constexpr float greatest = 0x1.62e42ep+6f;  // the greatest with a finite one
  static constexpr float least_exponent = -126.0f;
  static constexpr float greatest_exponent = 0x1.fffffep+6f;  // the greatest number below 128
  // 2 * 2^f on [-1/2, 1/2]: 9.5e-8; 2^f on [0, 1]: 9.3e-8
  static constexpr float doubled_power[] = {2.0f,           0x1.62e42ap+0f, 0x1.ebf9bap-2f,
                                            0x1.c6b69ap-4f, 0x1.3ceaf8p-6f, 0x1.5bfd58p-9f};
  static constexpr float power[] = {1.0f,           0x1.62e4c8p-1f, 0x1.ebd8a0p-3f,
                                    0x1.c94440p-5f, 0x1.269deap-7f, 0x1.eca704p-10f};
  // exp(r) = 1 + r + r^2 q(r), 3/4 <= e^r <= 3/2: 3e-9
  static constexpr float natural[] = {0x1.000006p-1f, 0x1.5554d4p-3f, 0x1.55442ap-5f, 0x1.11f3d8p-7f, 0x1.7fafp-10f};
  // 2^f = 1 + f q(f), 3/4 <= 2^f <= 3/2: 3e-9
  static constexpr float binary[] = {0x1.62e43p-1f, 0x1.ebfbf2p-3f,  0x1.c6affp-5f,
                                     0x1.3b16bp-7f, 0x1.5e9becp-10f, 0x1.5716eap-13f};
  static constexpr float ln2 = 0x1.62e43p-1f;
  // e^-r, |r| <= ln(2) / 2: 1.01e-7
  static constexpr float of_minus[] = {1.0f,           -0x1.fffff8p-1f, 0x1.fffdc4p-2f,
                                       -0x1.5559ep-3f, 0x1.573acep-5f,  -0x1.0fdccp-7f};
  // (2^f - 1) / f, |f| <= 1/2: 2.3e-8
  static constexpr float centred[] = {0x1.62e43p-1f,  0x1.ebfbep-3f,  0x1.c6af6cp-5f,
                                      0x1.3b2a54p-7f, 0x1.5f089p-10f, 0x1.44138ap-13f};
};

template <>
struct exponential<double> {
  static constexpr int fraction_bits = 52;
  static constexpr double shifter = 0x1.8p52;
  static constexpr double log2_e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42fefa3800p-1;  // 42 bits
  static constexpr double ln2_low = 0x1.ef35793c76730p-45;
  static constexpr double least = -0x1.6232bdd7abcd2p+9;
  static constexpr double greatest = 0x1.62e42fefa39efp+9;
  static constexpr double least_exponent = -1022.0;
  static constexpr double greatest_exponent = 0x1.fffffffffffffp+9;
  // 5.7e-18; 3.4e-18
  static constexpr double doubled_power[] = {2.0,
                                             0x1.62e42fefa39efp+0,
                                             0x1.ebfbdff82c5a6p-2,
                                             0x1.c6b08d704a12cp-4,
                                             0x1.3b2ab6fb9fda6p-6,
                                             0x1.5d87fe789e96fp-9,
                                             0x1.4309130f6cbdbp-12,
                                             0x1.ffcbfc6685ee5p-16,
                                             0x1.62bfc6596be6ap-19,
                                             0x1.b52522bc20bcdp-23,
                                             0x1.e61d4332035bap-27,
                                             0x1.e9731780488cp-31};
  static constexpr double power[] = {1.0,
                                     0x1.62e42fefa39f5p-1,
                                     0x1.ebfbdff82c00cp-3,
                                     0x1.c6b08d7066acep-5,
                                     0x1.3b2ab6f70937bp-7,
                                     0x1.5d87ff542c7afp-10,
                                     0x1.4308f9683496dp-13,
                                     0x1.ffcfdde85b470p-17,
                                     0x1.628e4302c3881p-20,
                                     0x1.b86b72ac13419p-24,
                                     0x1.c26c632c6cce9p-28,
                                     0x1.58df36d138073p-31};
  // exp(r) - 1 = r + r^2 q(r), |r| <= ln(2) / 2: 2.7e-18, and 2.7e-10 where the result is rounded to float
  static constexpr double natural[] = {0x1.0000000000001p-1,  0x1.5555555555557p-3,  0x1.5555555554d37p-5,
                                       0x1.11111111100d9p-7,  0x1.6c16c16f0bd78p-10, 0x1.a01a01abea34ep-13,
                                       0x1.a019f391c714cp-16, 0x1.71de022892f0dp-19, 0x1.28022a13c2075p-22,
                                       0x1.af4dff7748063p-26, 0x1.e63285e5b08e6p-30};
  static constexpr double natural_of_float[] = {0x1.0000002dafd9dp-1, 0x1.555555a68ad72p-3,  0x1.55549eabd652cp-5,
                                                0x1.11101d5683a11p-7, 0x1.6d8397059e2e7p-10, 0x1.a2a388a193047p-13};
  // 1.8e-17
  static constexpr double binary[] = {0x1.62e42fefa39f3p-1,  0x1.ebfbdff82c598p-3,  0x1.c6b08d7048f31p-5,
                                      0x1.3b2ab6fba1e1cp-7,  0x1.5d87fe7bbbe3bp-10, 0x1.43091309610b5p-13,
                                      0x1.ffcbee3b037b0p-17, 0x1.62bfd49eec3a5p-20, 0x1.b54167a852b7dp-24,
                                      0x1.e605f94978d22p-28, 0x1.c063808ab2e97p-32};
  // 9e-17
  static constexpr double centred[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c590p-3,  0x1.c6b08d704a35cp-5,
                                       0x1.3b2ab6fba385fp-7,  0x1.5d87fe77fec17p-10, 0x1.4309130378460p-13,
                                       0x1.ffcc0009c0969p-17, 0x1.62bfe46117445p-20, 0x1.b51cad8709e42p-24,
                                       0x1.e5e9f548e5725p-28, 0x1.f71a2ca6e7e97p-32};
};

/// The last bits of a number that a shifter was added to, as an exponent's bits.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<integer_of<T>> as_exponent(const batch<T>& shifted) {
  using I = integer_of<T>;
  using U = std::make_unsigned_t<I>;
  return bits_as<I>(bits_as<U>(shifted) << exponential<T>::fraction_bits);
}

/// n = the integer nearest to x / ln 2 (in float: to 0.085 less), and what is left: r = x - n ln 2.
///
/// The offset keeps e^r between 3/4 and 3/2, where the roundings of r and of e^r - 1 weigh least.
template <class T>
struct natural_parts {
  batch<T> shifted;
  batch<T> n;
  batch<T> r;
};

template <class T>
TOKENMIX_ALWAYS_INLINE natural_parts<T> split_natural(const batch<T>& x, T shifter = exponential<T>::shifter) {
  using E = exponential<T>;
  natural_parts<T> parts;
  if constexpr (std::is_same_v<T, float>) {
    parts.shifted = fma(x, batch<T>(E::log2_e), batch<T>(-0.085f)) + batch<T>(shifter);
  } else {
    parts.shifted = fma(x, batch<T>(E::log2_e), batch<T>(shifter));
  }
  parts.n = parts.shifted - batch<T>(shifter);
  parts.r = fma(parts.n, batch<T>(-E::ln2_low), fma(parts.n, batch<T>(-E::ln2_high), x));
  return parts;
}

/// p 2^n for p near 1; exactly +0 where !(x >= least), infinity where x > greatest, NaN where x is NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> scaled_by_power(const batch<T>& p, const batch<T>& n, const batch<T>& shifted,
                                                const batch<T>& x, T least, T greatest) {
#if defined(__AVX512F__)
  static_cast<void>(shifted);
  if constexpr (std::is_same_v<T, float>) {
    const __mmask16 normal = _mm512_cmp_ps_mask(x.data, _mm512_set1_ps(least), _CMP_NLT_UQ);
    const __m512 result = _mm512_maskz_scalef_ps(normal, p.data, n.data);
    return select(x > batch<T>(greatest), batch<T>(std::numeric_limits<T>::infinity()), batch<T>(result));
  } else {
    const __mmask8 normal = _mm512_cmp_pd_mask(x.data, _mm512_set1_pd(least), _CMP_NLT_UQ);
    const __m512d result = _mm512_maskz_scalef_pd(normal, p.data, n.data);
    return select(x > batch<T>(greatest), batch<T>(std::numeric_limits<T>::infinity()), batch<T>(result));
  }
#else
  static_cast<void>(n);
  using I = integer_of<T>;
  const batch<T> normal = bits_as<T>(bits_as<I>(p) + as_exponent(shifted));
  const batch<T> bounded = select(x > batch<T>(greatest), batch<T>(std::numeric_limits<T>::infinity()), normal);
  return select(x >= batch<T>(least), bounded, select(x == x, batch<T>(T(0)), x));
#endif
}

/// exp(x) for x in [-708, 709], with NaN for NaN.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> exp_inside(const batch<double>& x) {
  using E = exponential<double>;
  const natural_parts<double> at = split_natural(x, E::shifter + 1023.0);
  const batch<double> q =
      Goal == precision::of_float ? polynomial(at.r, E::natural_of_float) : polynomial(at.r, E::natural);
  const batch<double> p = batch<double>(1.0) + fma(at.r * at.r, q, at.r);
  return p * bits_as<double>(as_exponent(at.shifted));
}

/// e^(x log_base) where least <= x <= greatest; +0 below, infinity above, NaN for NaN. For floats where there is no fma.
TOKENMIX_ALWAYS_INLINE batch<float> power_through_double(const batch<float>& x, double log_base, float least,
                                                         float greatest) {
  const batch<float> bounded = select(x < batch<float>(least), batch<float>(least), at_most(x, greatest));
  const batch<float> inside = through_double(bounded, [=](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return exp_inside<precision::of_float>(wide * batch<double>(log_base));
  });
  const batch<float> finite = select(x < batch<float>(least), batch<float>(0.0f), inside);
  return select(x > batch<float>(greatest), batch<float>(std::numeric_limits<float>::infinity()), finite);
}

/// exp(x) - 1 for x in [-40, 709], with NaN for NaN.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> expm1_inside(const batch<double>& x) {
  using E = exponential<double>;
  const natural_parts<double> at = split_natural(x, E::shifter + 1022.0);  // half the power: 2^1024 is out of reach
  const batch<double> q =
      Goal == precision::of_float ? polynomial(at.r, E::natural_of_float) : polynomial(at.r, E::natural);
  const batch<double> half_power = bits_as<double>(as_exponent(at.shifted));
  const batch<double> square = at.r * at.r;
  const batch<double> v = fma(square, q, at.r);
  const batch<double> base = half_power - batch<double>(0.5);
  batch<double> half = fma(half_power, v, base);
  if constexpr (Goal == precision::of_double) {  // what r, v and the sum lost in rounding: it shows where they cancel
    const batch<double> reduced = fma(at.n, batch<double>(-E::ln2_high), x);
    const batch<double> lost_r = fma(at.n, batch<double>(-E::ln2_low), reduced - at.r);
    const batch<double> lost = fma(square, q, at.r - v) + lost_r;
    half = half + fma(half_power, lost, fma(half_power, v, base - half));
  }
  return half + half;
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> expm1_double(const batch<double>& x) {
  using E = exponential<double>;
  const batch<double> bounded = select(x < batch<double>(-40.0), batch<double>(-40.0), at_most(x, E::greatest));
  const batch<double> result = expm1_inside<Goal>(bounded);
  const batch<double> finite =
      select(x > batch<double>(E::greatest), batch<double>(std::numeric_limits<double>::infinity()), result);
  return select(x == batch<double>(0.0), x, finite);  // keeps -0
}

}  // namespace detail

/// e^x, where e^x is normal.
///
/// Numerics   float: 0.96 ULP; double: 1.0 ULP. exp(0) = 1 exactly; +0 below ln of the least normal number, infinity
///            above ln of the greatest; exp(NaN) is NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
  if constexpr (std::is_same_v<T, float> && !detail::has_fma) {
    return detail::power_through_double(x, 1.0, E::least, E::greatest);
  } else {
    const auto at = detail::split_natural<T>(x);
    const batch<T> p = batch<T>(T(1)) + fma(at.r * at.r, detail::polynomial(at.r, E::natural), at.r);
    return detail::scaled_by_power<T>(p, at.n, at.shifted, x, E::least, E::greatest);
  }
}

/// 2^x, where 2^x is normal.
///
/// Numerics   float: 1.0 ULP; double: 1.1 ULP, 1.4 without fma. Edges as in exp; integers give exact powers.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp2(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
  if constexpr (std::is_same_v<T, float> && !detail::has_fma) {
    return detail::power_through_double(x, 0x1.62e42fefa39efp-1, E::least_exponent, E::greatest_exponent);
  } else {
    const batch<T> moved = std::is_same_v<T, float> ? x - batch<T>(T(0.085)) : batch<T>(x);  // as in split_natural
    const batch<T> shifted = moved + batch<T>(E::shifter);
    const batch<T> n = shifted - batch<T>(E::shifter);
    const batch<T> f = x - n;
    const batch<T> p = fma(f, detail::polynomial(f, E::binary), batch<T>(T(1)));
    return detail::scaled_by_power<T>(p, n, shifted, x, E::least_exponent, E::greatest_exponent);
  }
}

/// e^x - 1, also for small x.
///
/// Numerics   float: 0.53 ULP; double: 1.1 ULP. NaN for NaN.
TOKENMIX_ALWAYS_INLINE batch<double> expm1(const batch<double>& x) {
  return detail::expm1_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> expm1(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::expm1_double<detail::precision::of_float>(wide);
  });
}

/// e^x for x <= 0, in as few instructions as it takes: the weights of a softmax.
///
///     t = x log2(e),   e^x = 2^n p(t - n)
///
/// Numerics   float: |error| <= 1.6e-7, and <= 1.6e-7 (1 + |x|) relative to the result; double: 2.6e-16 for both. exp(0)
///            is exactly 1 and nothing is above 1. Exactly +0 below the least normal number, and already below
///            2^-125.5 (double: 2^-1021.5) where that is cheaper. NaN gives NaN. Not defined for x > 0.
/// Cost       AVX-512: 9 instructions for floats, 15 for doubles; elsewhere 11 and 17.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp_nonpositive(const xsimd::batch<T, arch>& x) {
  using E = detail::exponential<T>;
#if defined(__AVX512F__)
  // scalef takes the floor of its exponent itself, so t needs no rounding: its fraction is one instruction.
  const batch<T> t = x * batch<T>(E::log2_e);
  if constexpr (std::is_same_v<T, float>) {
    const __mmask16 normal = _mm512_cmp_ps_mask(t.data, _mm512_set1_ps(E::least_exponent), _CMP_NLT_UQ);
    const batch<T> f(_mm512_reduce_ps(t.data, 0x09));
    return batch<T>(_mm512_maskz_scalef_ps(normal, detail::polynomial(f, E::power).data, t.data));
  } else {
    const __mmask8 normal = _mm512_cmp_pd_mask(t.data, _mm512_set1_pd(E::least_exponent), _CMP_NLT_UQ);
    const batch<T> f(_mm512_reduce_pd(t.data, 0x09));
    return batch<T>(_mm512_maskz_scalef_pd(normal, detail::polynomial(f, E::power).data, t.data));
  }
#else
  // The shifter carries a bias, so that the sum's last bits are the exponent bits of 2^(n - 1): all zero, which is the
  // number zero, for the least n that the bounded x can have. The polynomial is of 2 * 2^f.
  constexpr T shifter = E::shifter - E::least_exponent;
  const batch<T> bounded = max_or_second(batch<T>(E::least), batch<T>(x));
  const batch<T> shifted = fma(bounded, batch<T>(E::log2_e), batch<T>(shifter));
  const batch<T> f = fma(bounded, batch<T>(E::log2_e), batch<T>(shifter) - shifted);
  return detail::polynomial(f, E::doubled_power) * detail::bits_as<T>(detail::as_exponent(shifted));
#endif
}

#if defined(__AVX512F__)
namespace detail {

/// 2^x for x <= 0.
template <class T>
struct power_of_nonpositive {
  batch<T> value;  // means nothing where the power is below the least normal number
  mask<T> normal;  // where it is not: a NaN counts as normal, and its power is one
};

/// The bits of 2^(i / 32) less those that i adds to an exponent whose last bit stands for 32 / 32.
struct fractional_powers {
  alignas(64) std::int32_t bits[32];

  constexpr fractional_powers() : bits{} {
    constexpr float powers[] = {
        0x1.0p+0f,      0x1.059b0ep+0f, 0x1.0b5586p+0f, 0x1.11301ep+0f, 0x1.172b84p+0f, 0x1.1d4874p+0f, 0x1.2387a6p+0f,
        0x1.29e9ep+0f,  0x1.306fep+0f,  0x1.371a74p+0f, 0x1.3dea64p+0f, 0x1.44e086p+0f, 0x1.4bfdaep+0f, 0x1.5342b6p+0f,
        0x1.5ab07ep+0f, 0x1.6247ecp+0f, 0x1.6a09e6p+0f, 0x1.71f75ep+0f, 0x1.7a1148p+0f, 0x1.82589ap+0f, 0x1.8ace54p+0f,
        0x1.93737cp+0f, 0x1.9c4918p+0f, 0x1.a5503cp+0f, 0x1.ae89fap+0f, 0x1.b7f77p+0f,  0x1.c199bep+0f, 0x1.cb720ep+0f,
        0x1.d5818ep+0f, 0x1.dfc974p+0f, 0x1.ea4afap+0f, 0x1.f50766p+0f};
    for (std::int32_t i = 0; i < 32; ++i) bits[i] = std::bit_cast<std::int32_t>(powers[i]) - (i << 18);
  }
};
inline constexpr fractional_powers powers_of_32nds;

// x = n / 32 + f, |f| <= 1 / 64: the sum with the shifter ends in the bits of n, of which the last five choose from a table and the
// others are an exponent. What is left takes a polynomial of degree two, of which 2^f - 1 is within 5.3e-8. Of the ports that multiply,
// which is what a decay waits for (Zen 4), this takes half as much as one polynomial for the whole fraction.
TOKENMIX_ALWAYS_INLINE power_of_nonpositive<float> exp2_of_nonpositive(const batch<float>& x) {
  const batch<float> shifter(0x1.8p18f);
  const batch<float> shifted = x + shifter;
  const batch<float> f = x - (shifted - shifter);
  const __m512i n = _mm512_castps_si512(shifted.data);
  const __m512i fraction = _mm512_permutex2var_epi32(_mm512_load_si512(powers_of_32nds.bits), n,
                                                     _mm512_load_si512(powers_of_32nds.bits + 16));
  const batch<float> power(_mm512_castsi512_ps(_mm512_add_epi32(fraction, _mm512_slli_epi32(n, 18))));
  const batch<float> slope = fma(f, batch<float>(0x1.ebee06p-3f), batch<float>(0x1.62e580p-1f));
  const __m512 least = _mm512_set1_ps(exponential<float>::least_exponent);
  return {fma(power, f * slope, power), mask<float>(_mm512_cmp_ps_mask(x.data, least, _CMP_NLT_UQ))};
}

// scalef takes the floor of its exponent itself, as in exp_nonpositive.
TOKENMIX_ALWAYS_INLINE power_of_nonpositive<double> exp2_of_nonpositive(const batch<double>& x) {
  using E = exponential<double>;
  const batch<double> f(_mm512_reduce_pd(x.data, 0x09));
  const __m512d least = _mm512_set1_pd(E::least_exponent);
  return {batch<double>(_mm512_scalef_pd(polynomial(f, E::power).data, x.data)),
          mask<double>(_mm512_cmp_pd_mask(x.data, least, _CMP_NLT_UQ))};
}

}  // namespace detail
#endif

/// 2^x for x <= 0, as cheap as exp_nonpositive: a decay whose rate was multiplied by log2 e beforehand.
///
/// Numerics   relative to the result, float: |error| <= 1.6e-7, without fma 1.8e-7, on AVX-512 1.65e-7, and there 1.2e-7 where
///            x > -1/64; double: 2.6e-16. What is exact and what is zero as in exp_nonpositive.
/// Cost       AVX-512: 11 instructions for floats, of which the ports that multiply take 4, 14 for doubles; elsewhere 11 and 17.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> exp2_nonpositive(const xsimd::batch<T, arch>& x) {
#if defined(__AVX512F__)
  const auto power = detail::exp2_of_nonpositive(x);
  return select(power.normal, power.value, batch<T>(T(0)));
#else
  using E = detail::exponential<T>;
  constexpr T shifter = E::shifter - E::least_exponent;  // biased as in exp_nonpositive
  const batch<T> bounded = max_or_second(batch<T>(E::least_exponent), batch<T>(x));
  const batch<T> shifted = bounded + batch<T>(shifter);
  const batch<T> f = bounded - (shifted - batch<T>(shifter));
  return detail::polynomial(f, E::doubled_power) * detail::bits_as<T>(detail::as_exponent(shifted));
#endif
}

/// 2^x h + add for x <= 0, rounded as fma is: a state that decays, and what is written to it. Where exp2_nonpositive(x) is zero, it
/// is `add`, whatever h is.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> decayed(const xsimd::batch<T, arch>& x, const xsimd::batch<T, arch>& h,
                                        const xsimd::batch<T, arch>& add) {
#if defined(__AVX512F__)
  const auto power = detail::exp2_of_nonpositive(x);
  if constexpr (std::is_same_v<T, float>) {
    return batch<T>(_mm512_mask3_fmadd_ps(power.value.data, h.data, add.data, power.normal.data));
  } else {
    return batch<T>(_mm512_mask3_fmadd_pd(power.value.data, h.data, add.data, power.normal.data));
  }
#else
  const batch<T> power = exp2_nonpositive(x);
  return select(power == batch<T>(T(0)), add, fma(power, h, add));
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
