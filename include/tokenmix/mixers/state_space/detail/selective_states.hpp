// SPDX-License-Identifier: Apache-2.0
/// @file The recurrence of a selective scan for one register of channels and some states, over prepared rows of tokens.
#pragma once

#include <tokenmix/simd/exponential.hpp>
#include <tokenmix/simd/prefetch.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <cmath>
#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <class P>
inline constexpr bool is_complex = false;
template <class T>
inline constexpr bool is_complex<std::complex<T>> = true;

template <class T>
inline constexpr T log2_e = T(0x1.71547652b82fep+0);

/// Numbers per element: 1, or 2 planes.
template <class P>
inline constexpr index_t planes = is_complex<P> ? 2 : 1;

/// Where the states of one register of channels read and write; a row has L lanes, a parameter `planes` rows per state.
template <class T>
struct selective_rows {
  index_t tokens = 0;
  const T* delta = nullptr;    // (tokens, L)
  const T* written = nullptr;  // (tokens, L): delta x
  const T* rate = nullptr;     // (states, planes, L): A
  const T* b = nullptr;        // (tokens, N, planes) from a state on, or (states, planes, L) where it is constant
  const T* c = nullptr;        // the same
  index_t stride = 0;          // of rows of b and c: N planes
  T* state = nullptr;          // (states, planes, L)
  T* y = nullptr;              // (tokens, L)
  bool first = true;           // y is written, not added to
  simd::lines_ahead* ahead = nullptr;  // what the next rows need, some lines asked for at every token
  index_t lines = 0;
};

/// exp(i delta rate), lane by lane in double: a rounded angle of 10^4 would be off by 10^-3.
template <class T>
TOKENMIX_ALWAYS_INLINE void turn(const simd::batch<T>& delta, const T* rate, simd::batch<T>& cosine,
                                 simd::batch<T>& sine) {
  constexpr auto L = static_cast<std::size_t>(simd::lanes<T>);
  alignas(64) T d[L], c[L], s[L];
  simd::store(d, delta);
  for (std::size_t i = 0; i < L; ++i) {
    const double angle = static_cast<double>(d[i]) * static_cast<double>(rate[i]);
    c[i] = static_cast<T>(std::cos(angle));
    s[i] = static_cast<T>(std::sin(angle));
  }
  cosine = simd::load(c);
  sine = simd::load(s);
}

/// States states of L channels through all tokens. A decay of exactly zero does not read the old state.
template <class T, bool Complex, index_t States, bool VaryingB, bool VaryingC>
TOKENMIX_NOINLINE void selective_states(const selective_rows<T>& rows) {
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>, W = Complex ? 2 : 1;
  const V zero(T(0));
  V h[static_cast<std::size_t>(States * W)];
  simd::unroll<States * W>([&](auto n) TOKENMIX_LAMBDA_INLINE { h[n] = simd::load(rows.state + n * L); });
  const T *rate = rows.rate, *b = rows.b, *c = rows.c;
  const auto of_b = [&](index_t n) TOKENMIX_LAMBDA_INLINE {
    if constexpr (VaryingB)
      return simd::broadcast(b[n]);
    else
      return simd::load(b + n * L);
  };
  const auto of_c = [&](index_t n) TOKENMIX_LAMBDA_INLINE {
    if constexpr (VaryingC)
      return simd::broadcast(c[n]);
    else
      return simd::load(c + n * L);
  };
  for (index_t t = 0; t < rows.tokens; ++t) {
    const V delta = simd::load(rows.delta + t * L), written = simd::load(rows.written + t * L);
    const V scaled = delta * V(log2_e<T>);
    V y = rows.first ? zero : simd::load(rows.y + t * L);
    simd::unroll<States>([&](auto n) TOKENMIX_LAMBDA_INLINE {
      const V exponent = scaled * simd::load(rate + n * W * L);
      if constexpr (Complex) {
        constexpr index_t re = 2 * n, im = re + 1;
        const V decay = simd::exp2_nonpositive(exponent);
        const auto gone = decay == zero;
        V cosine, sine;
        turn<T>(delta, rate + im * L, cosine, sine);
        const V real = decay * cosine, imaginary = decay * sine;
        const V add_real = written * of_b(re), add_imaginary = written * of_b(im);
        const V old_real = h[re], old_imaginary = h[im];
        h[re] = simd::select(gone, add_real,
                             simd::fma(zero - imaginary, old_imaginary, simd::fma(real, old_real, add_real)));
        h[im] = simd::select(gone, add_imaginary,
                             simd::fma(imaginary, old_real, simd::fma(real, old_imaginary, add_imaginary)));
        const V two(T(2));
        y = simd::fma(two * of_c(re), h[re], y);
        y = simd::fma(zero - two * of_c(im), h[im], y);
      } else {
        h[n] = simd::decayed<T>(exponent, h[n], written * of_b(n));
        y = simd::fma(of_c(n), h[n], y);
      }
    });
    simd::store(rows.y + t * L, y);
    if (rows.lines > 0) rows.ahead->fetch(rows.lines);
    if constexpr (VaryingB) b += rows.stride;
    if constexpr (VaryingC) c += rows.stride;
  }
  simd::unroll<States * W>([&](auto n) TOKENMIX_LAMBDA_INLINE { simd::store(rows.state + n * L, h[n]); });
}

/// All N states, as many at a time as there are registers.
template <class P, class T, bool VaryingB, bool VaryingC>
void selective_states_of(selective_rows<T> rows, index_t N) {
  constexpr index_t L = simd::lanes<T>, W = planes<P>;
  constexpr index_t most = is_complex<P> ? 2 : sizeof(simd::batch<T>) == 64 ? 16 : 8;
  const auto pass = [&](auto states) {
    constexpr index_t n = states;
    selective_states<T, is_complex<P>, n, VaryingB, VaryingC>(rows);
    rows.rate += n * W * L;
    rows.state += n * W * L;
    rows.b += n * W * (VaryingB ? 1 : L);
    rows.c += n * W * (VaryingC ? 1 : L);
    rows.first = false;
    N -= n;
  };
  while (N >= most) pass(std::integral_constant<index_t, most>{});
  if constexpr (most > 4) {
    while (N >= 4) pass(std::integral_constant<index_t, 4>{});
  }
  while (N >= 1) pass(std::integral_constant<index_t, 1>{});
}

template <class P, class T>
void selective_states_of(const selective_rows<T>& rows, index_t N, bool varying_b, bool varying_c) {
  if (varying_b && varying_c) return selective_states_of<P, T, true, true>(rows, N);
  if (varying_b) return selective_states_of<P, T, true, false>(rows, N);
  if (varying_c) return selective_states_of<P, T, false, true>(rows, N);
  selective_states_of<P, T, false, false>(rows, N);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
