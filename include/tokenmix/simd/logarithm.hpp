// SPDX-License-Identifier: Apache-2.0
/// @file Logarithms: log and log1p.
#pragma once

#include <tokenmix/simd/exponential.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

// log((1 + s) / (1 - s)) = 2 s + s R(s^2) for |s| <= 0.1716, R(z) = z (c0 + c1 z + ...): 1.3e-18, and 4.9e-12 where the
// result is rounded to float. Minimax fits of this library.
inline constexpr double log_series[] = {0x1.5555555555593p-1, 0x1.999999997fb2dp-2, 0x1.2492494217d16p-2,
                                        0x1.c71c51e7d6fcbp-3, 0x1.7466463275675p-3, 0x1.39a0f473b887bp-3,
                                        0x1.2f0d9409b31d3p-3};
inline constexpr double log_series_of_float[] = {0x1.555554fd40cfcp-1, 0x1.999a7b3c0ade6p-2, 0x1.2438a86025e6cp-2,
                                                 0x1.e2fdd4debd973p-3};

/// x = 2^k (1 + f) with 1 + f between sqrt(1/2) and sqrt(2), for a positive normal x.
struct log_parts {
  batch<double> k;
  batch<double> f;
};

TOKENMIX_ALWAYS_INLINE log_parts split_logarithm(const batch<double>& x) {
  using words64 = batch<std::uint64_t>;
  constexpr std::uint64_t one = 0x3ff0000000000000u;
  constexpr std::uint64_t half_root = 0x3fe6a09e667f3bcdu;  // sqrt(1/2)
  const words64 moved = bits_as<std::uint64_t>(x) + words64(one - half_root);
  // The biased exponent in the last bits of 2^52 is a number when 2^52 and the bias are taken away.
  const batch<double> biased = bits_as<double>((moved >> 52) | words64(0x4330000000000000u));
  const words64 fraction = (moved & words64(0x000fffffffffffffu)) + words64(half_root);
  return {biased - batch<double>(0x1p52 + 1023.0), bits_as<double>(fraction) - batch<double>(1.0)};
}

/// k ln 2 + log(1 + f) + correction, the correction being small.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> log_of_parts(const log_parts& at, const batch<double>& correction) {
  using E = exponential<double>;
  const batch<double> s = at.f / (batch<double>(2.0) + at.f);
  const batch<double> z = s * s;
  const batch<double> R =
      z * (Goal == precision::of_float ? polynomial(z, log_series_of_float) : polynomial(z, log_series));
  // log(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + R)): the largest term enters last. No bare product meets a sum.
  const batch<double> half_f = at.f * batch<double>(0.5);
  const batch<double> small = fma(s, fma(half_f, at.f, R), fma(at.k, batch<double>(E::ln2_low), correction));
  return fma(at.k, batch<double>(E::ln2_high), at.f - fma(half_f, at.f, batch<double>(0.0) - small));
}

/// What log gives outside the positive finite numbers.
TOKENMIX_ALWAYS_INLINE batch<double> log_at_edges(const batch<double>& x, const batch<double>& result) {
  const batch<double> infinity(std::numeric_limits<double>::infinity());
  const batch<double> zero(0.0);
  const batch<double> positive = select(x == infinity, x, result);
  const batch<double> outside =
      select(x == zero, zero - infinity, batch<double>(std::numeric_limits<double>::quiet_NaN()));
  return select(x > zero, positive, outside);
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> log_double(const batch<double>& x) {
  const batch<double> zero(0.0);
  if constexpr (Goal == precision::of_float) {
    return log_at_edges(x, log_of_parts<Goal>(split_logarithm(x), zero));  // every float is a normal double
  } else {
    const auto subnormal = x < batch<double>(std::numeric_limits<double>::min());
    log_parts at = split_logarithm(select(subnormal, x * batch<double>(0x1p54), x));
    at.k = select(subnormal, at.k - batch<double>(54.0), at.k);
    return log_at_edges(x, log_of_parts<Goal>(at, zero));
  }
}

/// log(1 + x) for x > -1, with NaN for NaN.
template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> log1p_inside(const batch<double>& x) {
  const batch<double> one(1.0);
  const batch<double> zero(0.0);
  const batch<double> u = one + x;
  log_parts at = split_logarithm(u);
  const auto near_one = at.k == zero;
  at.f = select(near_one, x, at.f);  // exact, where 1 + x is not
  if constexpr (Goal == precision::of_float) {
    return select(x == x, log_of_parts<Goal>(at, zero), x);
  } else {
    const batch<double> back = u - one;
    const batch<double> lost = (one - (u - back)) + (x - back);
    const batch<double> correction = select(near_one, zero, lost / u);
    return select(x == x, log_of_parts<Goal>(at, correction), x);
  }
}

template <precision Goal>
TOKENMIX_ALWAYS_INLINE batch<double> log1p_double(const batch<double>& x) {
  const batch<double> infinity(std::numeric_limits<double>::infinity());
  const batch<double> inside = select(x == batch<double>(0.0), x, log1p_inside<Goal>(x));  // keeps -0
  const batch<double> above = select(x == infinity, x, inside);
  const batch<double> outside = select(x == batch<double>(-1.0), batch<double>(0.0) - infinity,
                                       batch<double>(std::numeric_limits<double>::quiet_NaN()));
  return select(x > batch<double>(-1.0), above, outside);
}

}  // namespace detail

/// The natural logarithm: -infinity at 0, NaN below it and for NaN.
///
/// Numerics   float: 0.53 ULP, subnormals included; double: 0.9 ULP.
TOKENMIX_ALWAYS_INLINE batch<double> log(const batch<double>& x) {
  return detail::log_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> log(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::log_double<detail::precision::of_float>(wide);
  });
}

/// log(1 + x), also for small x: -infinity at -1, NaN below it and for NaN.
///
/// Numerics   float: 0.53 ULP; double: 0.9 ULP.
TOKENMIX_ALWAYS_INLINE batch<double> log1p(const batch<double>& x) {
  return detail::log1p_double<detail::precision::of_double>(x);
}
TOKENMIX_ALWAYS_INLINE batch<float> log1p(const batch<float>& x) {
  return detail::through_double(x, [](const batch<double>& wide) TOKENMIX_LAMBDA_INLINE {
    return detail::log1p_double<detail::precision::of_float>(wide);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
