// SPDX-License-Identifier: Apache-2.0
/// @file Registers of complex numbers: real parts in one, imaginary parts in the other.
#pragma once

#include <tokenmix/primitives/arithmetic.hpp>
#include <tokenmix/simd/batch.hpp>

#include <complex>

namespace tokenmix::inline TOKENMIX_ABI {

/// What an operation on std::complex<T> computes with: one complex number per lane.
template <class T>
struct complex_lanes {
  simd::batch<T> re;
  simd::batch<T> im;

  complex_lanes() = default;
  TOKENMIX_ALWAYS_INLINE complex_lanes(simd::batch<T> real, simd::batch<T> imaginary) : re(real), im(imaginary) {}
  TOKENMIX_ALWAYS_INLINE explicit complex_lanes(std::complex<T> value) : re(value.real()), im(value.imag()) {}

  friend TOKENMIX_ALWAYS_INLINE complex_lanes operator+(const complex_lanes& a, const complex_lanes& b) {
    return {a.re + b.re, a.im + b.im};
  }
  friend TOKENMIX_ALWAYS_INLINE complex_lanes operator-(const complex_lanes& a, const complex_lanes& b) {
    return {a.re - b.re, a.im - b.im};
  }
  friend TOKENMIX_ALWAYS_INLINE complex_lanes operator*(const complex_lanes& a, const complex_lanes& b) {
    const simd::batch<T> zero(T(-0.0));
    return {simd::fma(zero - a.im, b.im, simd::fma(a.re, b.re, zero)),
            simd::fma(a.im, b.re, simd::fma(a.re, b.im, zero))};
  }
};

namespace detail {

/// a * b + c, each part two fmas.
template <class T>
TOKENMIX_ALWAYS_INLINE complex_lanes<T> multiply_add(const complex_lanes<T>& a, const complex_lanes<T>& b,
                                                     const complex_lanes<T>& c) {
  const simd::batch<T> minus_im = simd::batch<T>(T(-0.0)) - a.im;
  return {simd::fma(minus_im, b.im, simd::fma(a.re, b.re, c.re)), simd::fma(a.im, b.re, simd::fma(a.re, b.im, c.im))};
}
template <class T>
TOKENMIX_ALWAYS_INLINE complex_lanes<T> product(const complex_lanes<T>& a, const complex_lanes<T>& b) {
  return a * b;
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
