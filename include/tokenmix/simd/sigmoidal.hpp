// SPDX-License-Identifier: Apache-2.0
/// @file Curves that saturate: sigmoid, tanh, erf; softplus, the integral of the first; and the reciprocal square root.
#pragma once

#include <tokenmix/simd/logarithm.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

/// numerator / (d + lost), where lost is far smaller than d.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> quotient(const batch<double>& numerator, const batch<double>& d,
                                              const batch<double>& lost) {
  if constexpr (Goal == precision::of_float) {
    return numerator / d;
  } else {
    const batch<double> inverse = batch<double>(1.0) / d;
    const batch<double> q = numerator * inverse;
    const batch<double> minus_q = batch<double>(0.0) - q;
    const batch<double> rest = fma(minus_q, lost, fma(minus_q, d, numerator));
    return fma(rest, inverse, q);
  }
}

/// exp(-|x|): all that sigmoid and softplus need of a negative exponent.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> exp_of_minus_magnitude(const batch<double>& x) {
  return exp_inside<Goal>(batch<double>(0.0) - at_most(magnitude(x), -exponential<double>::least));
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> sigmoid_double(const batch<double>& x) {
  const batch<double> one(1.0);
  const batch<double> e = exp_of_minus_magnitude<Goal>(x);
  const batch<double> d = one + e;
  const batch<double> result = quotient<Goal>(select(x < batch<double>(0.0), e, one), d, e - (d - one));
  return select(x < batch<double>(exponential<double>::least), batch<double>(0.0), result);
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> softplus_double(const batch<double>& x) {
  const batch<double> zero(0.0);
  const batch<double> tail = log1p_inside<Goal>(exp_of_minus_magnitude<Goal>(x));
  const batch<double> result = select(x > zero, x, zero) + tail;
  return select(x < batch<double>(exponential<double>::least), zero, result);
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> tanh_double(const batch<double>& x) {
  const batch<double> two(2.0);
  const batch<double> bounded = at_most(magnitude(x), 20.0);
  const batch<double> t = expm1_inside<Goal>(bounded + bounded);
  const batch<double> d = t + two;
  const batch<double> back = d - t;
  const batch<double> lost = (t - (d - back)) + (two - back);
  return with_sign_of(quotient<Goal>(t, d, lost), x);
}

// erf(x) = x + x A(x^2) for |x| <= 1: 1.3e-19, and 1.3e-9 where the result is rounded to float;
// erf(x) = 1 - exp(-x^2) C(1 / x - 9 / 16) for 1 <= x <= 6: 1.3e-18, 2.7e-10. Minimax fits of this library.
inline constexpr double erf_near[] = {0x1.06eba8214db69p-3,   -0x1.812746b0379e6p-2,  0x1.ce2f21a042b20p-4,
                                      -0x1.b82ce31284999p-6,  0x1.565bcd0db0271p-8,   -0x1.c02db3d8ebe68p-11,
                                      0x1.f9a321a0fb242p-14,  -0x1.f4d1df36cdc0cp-17, 0x1.b9def17f65c60p-20,
                                      -0x1.5f1d35ca97c3cp-23, 0x1.f7a4083982e4bp-27,  -0x1.386aa34e6792fp-30,
                                      0x1.05795e5016a14p-34};
inline constexpr double erf_near_of_float[] = {0x1.06eba7f24af31p-3,  -0x1.81273de9f9eb0p-2, 0x1.ce2cf75bae9a6p-4,
                                               -0x1.b7f90e9b28dcap-6, 0x1.5405bc44ada2bp-8,  -0x1.a3f740c33a2cep-11,
                                               0x1.496ac993d98c1p-14};
inline constexpr double erf_far[] = {
    0x1.20212d2e44cd6p-2,  0x1.9e05e6ff641aap-2, -0x1.707edcf07de75p-3, 0x1.25e2e72c00f70p-5,  0x1.4e17db91864cep-5,
    -0x1.0bbf27f904c32p-4, 0x1.bd776249c83dcp-5, -0x1.8b26e8e19c993p-6, -0x1.5ef55cdc1f5fbp-7, 0x1.39e8cd89b0511p-5,
    -0x1.a0f584143c074p-5, 0x1.72fb53ea4e4dfp-5, -0x1.7939a23f0c694p-6, -0x1.5365169337c9fp-7, 0x1.78fcd4156dc3ep-5,
    -0x1.22efe0cbcf72fp-4, 0x1.21c3a405a5c06p-4, -0x1.655a753b5964cp-5, 0x1.9bad420affc1cp-7};
inline constexpr double erf_far_of_float[] = {0x1.20212cc24b0adp-2, 0x1.9e05e84794510p-2, -0x1.707d3eb0fbe4fp-3,
                                              0x1.25a6e5e149e6ep-5, 0x1.4dbe8e1ad3507p-5, -0x1.0637f29134545p-4,
                                              0x1.90da16cb918e5p-5, -0x1.25fd194e896afp-6};

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> erf_double(const batch<double>& x) {
  const batch<double> one(1.0);
  const batch<double> a = at_most(magnitude(x), 6.0);
  const batch<double> z = a * a;
  const batch<double> t = one / select(a < one, one, a) - batch<double>(0.5625);
  batch<double> near, far;
  if constexpr (Goal == precision::of_float) {
    near = fma(a, polynomial(z, erf_near_of_float), a);
    far = polynomial(t, erf_far_of_float);
  } else {
    near = fma(a, polynomial(z, erf_near), a);
    far = polynomial(t, erf_far);
  }
  far = fma(batch<double>(0.0) - exp_inside<Goal>(batch<double>(0.0) - z), far, one);
  return with_sign_of(select(a > one, far, near), x);
}

}  // namespace detail

/// 1 / (1 + e^-x).
///
/// Numerics   float: 0.53 ULP; double: 1.5 ULP, 2.1 without fma. NaN for NaN.
TOKENMIX_ALWAYS_INLINE batch<double> sigmoid(const batch<double>& x) {
  return detail::sigmoid_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> sigmoid(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::sigmoid_double<detail::precision::of_float>(wide);
  });
}

/// log(1 + e^x).
///
/// Numerics   float: 0.53 ULP; double: 1.8 ULP. NaN for NaN.
TOKENMIX_ALWAYS_INLINE batch<double> softplus(const batch<double>& x) {
  return detail::softplus_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> softplus(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::softplus_double<detail::precision::of_float>(wide);
  });
}

/// The hyperbolic tangent.
///
/// Numerics   float: 0.53 ULP; double: 1.5 ULP, 2.1 without fma. Odd: tanh(-x) = -tanh(x), -0 included. NaN for NaN.
TOKENMIX_ALWAYS_INLINE batch<double> tanh(const batch<double>& x) {
  return detail::tanh_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> tanh(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::tanh_double<detail::precision::of_float>(wide);
  });
}

/// The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.
///
/// Numerics   float: 0.53 ULP; double: 1.3 ULP. Odd, -0 included. NaN for NaN.
TOKENMIX_ALWAYS_INLINE batch<double> erf(const batch<double>& x) {
  return detail::erf_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> erf(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::erf_double<detail::precision::of_float>(wide);
  });
}

/// 1 / sqrt(x): infinity at 0, +0 at infinity, NaN below 0 and for NaN.
///
/// Numerics   one correction of the quotient: 0.53 ULP with fma, 1.0 ULP without.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> rsqrt(const xsimd::batch<T, arch>& x) {
  const batch<T> one(T(1));
  const batch<T> y = divide(one, simd::sqrt(x));
  const batch<T> h = x * y;
  const batch<T> minus_y = batch<T>(T(0)) - y;
  const batch<T> lost = fma(x, y, batch<T>(T(0)) - h);
  const batch<T> rest = fma(minus_y, lost, fma(minus_y, h, one));
  const batch<T> corrected = fma(y * batch<T>(T(0.5)), rest, y);
  return select(corrected == corrected, corrected, y);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
