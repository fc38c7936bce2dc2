// SPDX-License-Identifier: Apache-2.0
/// @file Products of real sequences' spectra, where 2m real numbers went through one transform of m complex ones.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/pairs.hpp>
#include <tokenmix/simd/reverse.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// z[j] = x[2j] + i x[2j + 1] is the real sequence as it lies. With E and O the spectra of the even and the odd numbers, which
// are real sequences of their own,
//
//     Z[k] = E[k] + i O[k]     conj Z[m - k] = E[k] - i O[k]
//
// and a circular convolution with a sequence of spectra A (even) and G (odd) is, w = exp(-2 pi i k / m) being a delay by
// one number of the even ones,
//
//     even = A E + w G O       odd = G E + A O
//
// so that neither the transforms of real numbers nor their twiddles are needed: four products per k and its mirror m - k.

/// Lines of m / 2 + 1 numbers each, whole registers.
template <class T>
constexpr index_t half_spectrum_line(index_t m) {
  return (m / 2 + simd::lanes<T>) / simd::lanes<T> * simd::lanes<T>;
}

/// cos and sin of 2 pi k / m for k = 0 .. m / 2, one line each.
template <class T>
void make_half_spectrum_twiddles(T* to, index_t m) {
  const index_t line = half_spectrum_line<T>(m);
  for (index_t k = 0; k <= m / 2; ++k) {
    // An eighth of the circle at a time: angles near 0 are the exact ones.
    const index_t eighth = 8 * k / m;
    const index_t corner = (eighth + 1) / 2;  // quarters of the circle
    const double angle =
        2 * std::numbers::pi * static_cast<double>(4 * k - corner * m) / (4.0 * static_cast<double>(m));
    const double c = std::cos(angle), s = std::sin(angle);
    to[k] = static_cast<T>(corner == 0 ? c : corner == 1 ? -s : -c);
    to[line + k] = static_cast<T>(corner == 0 ? s : corner == 1 ? c : -s);
  }
  for (index_t k = m / 2 + 1; k < line; ++k) to[k] = to[line + k] = T(0);
}

/// A and G, real parts and imaginary parts, one line each, times 1 / (2 m): the half is of E and O, the rest of the inverse
/// transform, which does not divide. From the transform of the sequence.
template <class T>
void make_half_spectrum(const std::complex<T>* z, T* to, index_t m) {
  const index_t line = half_spectrum_line<T>(m);
  const T scale = T(0.25) / static_cast<T>(m);
  for (index_t k = 0; k <= m / 2; ++k) {
    const std::complex<T> a = z[k], b = z[k == 0 ? 0 : m - k];
    to[k] = scale * (a.real() + b.real());
    to[line + k] = scale * (a.imag() - b.imag());
    to[2 * line + k] = scale * (a.imag() + b.imag());
    to[3 * line + k] = scale * (b.real() - a.real());
  }
  for (index_t k = m / 2 + 1; k < line; ++k) to[k] = to[line + k] = to[2 * line + k] = to[3 * line + k] = T(0);
}

/// Lanes of Z[k] and of Z[m - k], which become those of the product.
template <class T>
TOKENMIX_ALWAYS_INLINE void multiply_half_spectrum_lanes(simd::pairs<T>& front, simd::pairs<T>& back, const T* spectrum,
                                                         const T* twiddles, index_t line) {
  using V = simd::batch<T>;
  const V zero(T(0));
  const V even_re = simd::load(spectrum), even_im = simd::load(spectrum + line);
  const V odd_re = simd::load(spectrum + 2 * line), odd_im = simd::load(spectrum + 3 * line);
  const V c = simd::load(twiddles), s = simd::load(twiddles + line);
  // P = 2 E, Q = 2 i O
  const V p_re = front.first + back.first, p_im = front.second - back.second;
  const V q_re = front.first - back.first, q_im = front.second + back.second;
  // D = -i w G = -i (c - i s) G
  const V d_re = simd::fma(c, odd_im, zero - s * odd_re), d_im = simd::fma(zero - c, odd_re, zero - s * odd_im);
  // 2 even = A P + D Q
  const V a_re = simd::fma(zero - d_im, q_im, simd::fma(d_re, q_re, simd::fma(zero - even_im, p_im, even_re * p_re)));
  const V a_im = simd::fma(d_im, q_re, simd::fma(d_re, q_im, simd::fma(even_im, p_re, even_re * p_im)));
  // 2 i odd = i G P + A Q
  const V b_re =
      simd::fma(zero - even_im, q_im, simd::fma(even_re, q_re, simd::fma(zero - odd_im, p_re, zero - odd_re * p_im)));
  const V b_im = simd::fma(even_im, q_re, simd::fma(even_re, q_im, simd::fma(zero - odd_im, p_im, odd_re * p_re)));
  front = {a_re + b_re, a_im + b_im};
  back = {a_re - b_re, b_im - a_im};
}

/// z = the spectrum of the product, in place; m numbers.
template <class T>
TOKENMIX_NOINLINE void multiply_half_spectrum(std::complex<T>* z, const T* spectrum, const T* twiddles, index_t m) {
  constexpr index_t L = simd::lanes<T>;
  const index_t line = half_spectrum_line<T>(m);
  T* const numbers = reinterpret_cast<T*>(z);
  const auto step = [&](T* forward, T* backward, index_t k) TOKENMIX_LAMBDA_INLINE {
    // Mirrored numbers are read backwards: the second register first.
    simd::pairs<T> front = simd::separate<T>(simd::load(forward), simd::load(forward + L));
    const simd::pairs<T> mirrored = simd::separate<T>(simd::load(backward), simd::load(backward + L));
    simd::pairs<T> back{simd::reversed<T>(mirrored.first), simd::reversed<T>(mirrored.second)};
    multiply_half_spectrum_lanes<T>(front, back, spectrum + k, twiddles + k, line);
    simd::batch<T> a, b;
    simd::join<T>(front, a, b);
    simd::store(forward, a);
    simd::store(forward + L, b);
    simd::join<T>({simd::reversed<T>(back.first), simd::reversed<T>(back.second)}, a, b);
    simd::store(backward, a);
    simd::store(backward + L, b);
  };
  // What is its own mirror or has too few neighbours goes through copies.
  const auto with_copies = [&](index_t k, index_t n) {
    alignas(64) T forward[static_cast<std::size_t>(2 * L)] = {}, backward[static_cast<std::size_t>(2 * L)] = {};
    const auto mirror = [&](index_t i) { return k + i == 0 ? 0 : m - k - i; };
    for (index_t i = 0; i < n; ++i) {
      for (index_t part = 0; part < 2; ++part) {
        forward[2 * i + part] = numbers[2 * (k + i) + part];
        backward[2 * (L - 1 - i) + part] = numbers[2 * mirror(i) + part];
      }
    }
    step(forward, backward, k);
    for (index_t i = 0; i < n; ++i) {
      for (index_t part = 0; part < 2; ++part) {
        numbers[2 * mirror(i) + part] = backward[2 * (L - 1 - i) + part];
        numbers[2 * (k + i) + part] = forward[2 * i + part];
      }
    }
  };
  with_copies(0, 1);
  index_t k = 1;
  for (; 2 * (k + L - 1) < m; k += L) step(numbers + 2 * k, numbers + 2 * (m - k - L + 1), k);
  while (k <= m / 2) {
    // A lane reads `line` numbers from k on: whole registers only at their own places.
    const index_t n = std::min(L, m / 2 + 1 - k);
    with_copies(k, n);
    k += n;
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
