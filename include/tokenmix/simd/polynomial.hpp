// SPDX-License-Identifier: Apache-2.0
/// @file Polynomials in registers, and float lanes computed as double lanes.
#pragma once

#include <tokenmix/simd/narrow.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::simd::detail {

/// c[0] + x c[1] + x^2 c[2] + ..., Horner's rule, one fma per step: the same bits wherever it is inlined.
template <class T, std::size_t N>
TOKENMIX_ALWAYS_INLINE batch<T> polynomial(const batch<T>& x, const T (&c)[N]) {
  batch<T> sum(c[N - 1]);
  unroll<static_cast<index_t>(N) - 1>(
      [&](auto i) TOKENMIX_LAMBDA_INLINE { sum = fma(sum, x, batch<T>(c[static_cast<index_t>(N) - 2 - i])); });
  return sum;
}

/// x with the sign of s where x >= 0.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> with_sign_of(const batch<T>& x, const batch<T>& s) {
  return x | (s & batch<T>(T(-0.0)));
}

template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> magnitude(const batch<T>& x) {
  using I = integer_of<T>;
  return bits_as<T>(bits_as<I>(x) & batch<I>(std::numeric_limits<I>::max()));
}

/// The smaller; NaN where x is NaN.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> at_most(const batch<T>& x, T limit) {
  return select(x > batch<T>(limit), batch<T>(limit), x);
}

/// The lanes of a float register as two registers of doubles: the first half, then the second.
struct double_lanes {
  batch<double> low;
  batch<double> high;
};

TOKENMIX_ALWAYS_INLINE double_lanes to_double(const batch<float>& x) {
#if defined(__AVX512F__)
  const __m512d pairs_of_x = _mm512_castps_pd(x.data);
  return {batch<double>(_mm512_cvtps_pd(_mm512_castps512_ps256(x.data))),
          batch<double>(_mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(pairs_of_x, 1))))};
#elif defined(__AVX__)
  return {batch<double>(_mm256_cvtps_pd(_mm256_castps256_ps128(x.data))),
          batch<double>(_mm256_cvtps_pd(_mm256_extractf128_ps(x.data, 1)))};
#elif defined(__SSE2__)
  return {batch<double>(_mm_cvtps_pd(x.data)), batch<double>(_mm_cvtps_pd(_mm_movehl_ps(x.data, x.data)))};
#else
  return {batch<double>(vcvt_f64_f32(vget_low_f32(x.data))), batch<double>(vcvt_high_f64_f32(x.data))};
#endif
}

TOKENMIX_ALWAYS_INLINE batch<float> to_float(const double_lanes& x) {
#if defined(__AVX512F__)
  const __m256d high = _mm256_castps_pd(_mm512_cvtpd_ps(x.high.data));
  const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm512_cvtpd_ps(x.low.data)));
  return batch<float>(_mm512_castpd_ps(_mm512_insertf64x4(low, high, 1)));
#elif defined(__AVX__)
  return batch<float>(
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x.low.data)), _mm256_cvtpd_ps(x.high.data), 1));
#elif defined(__SSE2__)
  return batch<float>(_mm_movelh_ps(_mm_cvtpd_ps(x.low.data), _mm_cvtpd_ps(x.high.data)));
#else
  return batch<float>(vcvt_high_f32_f64(vcvt_f32_f64(x.low.data), x.high.data));
#endif
}

#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
inline constexpr bool has_fma = true;
#else
inline constexpr bool has_fma = false;
#endif

/// How exact a computation in double has to be: to round it to float, or to be the result.
enum class precision { of_float, of_double };

/// f of every lane in double, rounded to float once.
template <class F>
TOKENMIX_ALWAYS_INLINE batch<float> through_double(const batch<float>& x, F&& f) {
  const double_lanes wide = to_double(x);
  return to_float({f(wide.low), f(wide.high)});
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd::detail
