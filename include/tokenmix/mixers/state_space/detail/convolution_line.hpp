// SPDX-License-Identifier: Apache-2.0
/// @file Convolution of one channel of one sequence, in a line of scratch memory: directly or through transforms, in place.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/mixers/state_space/long_filters.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <complex>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// A line holds `lead` numbers, then those of the sequence shifted by `future`:
//
//     line[lead - future + t] = x[t]      result[t] = sum over l of taps[l] line[t + lead - l] + skip line[t + lead - future]
//
// in place: result[t] may lie at line[t], since later results read what lies behind it (lead >= taps - 1).

/// Registers of results that a direct sum has at a time, and taps that meet them: taps a register apart read the same numbers, so
/// that of R results and J taps there are R J products with R + J - 1 loads, which are unaligned and cost more than products.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t direct_registers = 6;
#else
inline constexpr index_t direct_registers = 4;
#endif
inline constexpr index_t direct_taps_together = 4;

/// Results come in multiples of this; what lies behind the last one is read, and written, but is nobody's.
template <class T>
inline constexpr index_t direct_slack = direct_registers * simd::lanes<T>;

/// n results by sums of products: one fma chain per result, in an order of the taps that depends on their number alone, the skip last.
template <class T>
TOKENMIX_NOINLINE void convolve_directly(T* line, index_t n, const T* taps, index_t length, index_t lead,
                                         index_t future, T skip) {
  constexpr index_t L = simd::lanes<T>, R = direct_registers, J = direct_taps_together;
  for (index_t t = 0; t < n; t += R * L) {
    simd::batch<T> sum[static_cast<std::size_t>(R)];
    for (index_t r = 0; r < R; ++r) sum[r] = simd::batch<T>(T(0));
    const T* const from = line + t + lead;
    index_t l = 0;
    for (; l + J * L <= length; l += J * L) {
      for (index_t i = 0; i < L; ++i) {
        simd::batch<T> tap[static_cast<std::size_t>(J)];
        simd::unroll<J>([&](auto j) TOKENMIX_LAMBDA_INLINE { tap[j] = simd::batch<T>(taps[l + i + j * L]); });
        simd::unroll<R + J - 1>([&](auto d) TOKENMIX_LAMBDA_INLINE {
          constexpr index_t far = index_t{d} - (J - 1);  // registers behind the results' first one
          const simd::batch<T> x = simd::in_register<T>(simd::load(from - l - i + far * L));
          simd::unroll<J>([&](auto j) TOKENMIX_LAMBDA_INLINE {
            constexpr index_t r = far + index_t{j};
            if constexpr (r >= 0 && r < R) sum[r] = simd::fma(tap[j], x, sum[r]);
          });
        });
      }
    }
    for (; l < length; ++l) {
      const simd::batch<T> tap(taps[l]);
      simd::unroll<R>([&](auto r)
                          TOKENMIX_LAMBDA_INLINE { sum[r] = simd::fma(tap, simd::load(from - l + r * L), sum[r]); });
    }
    const simd::batch<T> direct(skip);
    simd::unroll<R>(
        [&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] = simd::fma(direct, simd::load(from - future + r * L), sum[r]); });
    simd::unroll<R>([&](auto r) TOKENMIX_LAMBDA_INLINE { simd::store(line + t + r * L, sum[r]); });
  }
}

/// The same through transforms of `numbers` real numbers: blocks of numbers - lead results (overlap-save).
template <class T, class Plan>
TOKENMIX_NOINLINE void convolve_by_transforms(T* line, index_t n, const T* spectrum, const T* twiddles, index_t numbers,
                                              index_t lead, index_t future, T skip, Plan& plan, std::complex<T>* z,
                                              std::complex<T>* results) {
  constexpr index_t L = simd::lanes<T>;
  const index_t m = numbers / 2, block = numbers - lead;
  for (index_t t = 0; t < n; t += block) {
    plan.forward(reinterpret_cast<const std::complex<T>*>(line + t), z);
    multiply_half_spectrum(z, spectrum, twiddles, m);
    plan.inverse(z, results);
    const T* from = reinterpret_cast<const T*>(results) + lead;
    const index_t count = std::min(block, n - t);
    const simd::batch<T> direct(skip);
    index_t i = 0;
    for (; i + L <= count; i += L)
      simd::store(line + t + i, simd::fma(direct, simd::load(line + t + i + lead - future), simd::load(from + i)));
    if (i < count)
      simd::store_n(
          line + t + i,
          simd::fma(direct, simd::load_n(line + t + i + lead - future, count - i), simd::load_n(from + i, count - i)),
          count - i);
  }
}

/// to[0 .. n) += factor from[0 .. n).
template <class T>
TOKENMIX_NOINLINE void add_multiple(T* to, const T* from, T factor, index_t n) {
  constexpr index_t L = simd::lanes<T>;
  for (index_t i = 0; i < n; i += L) {
    const index_t count = std::min(L, n - i);
    simd::store_n(to + i, simd::fma(simd::batch<T>(factor), simd::load_n(from + i, count), simd::load_n(to + i, count)),
                  count);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
