// SPDX-License-Identifier: Apache-2.0
/// @file The triangle of a chunk: scores times decays times weights, queries in lanes; every exponent a sum from its own anchor.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/simd/math.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What a head's decays make of the tokens of a segment. n tokens; lines have room for whole registers.
///
///     triangle[s][t] = scores[s][t] exp(sum of log_decay over the tokens after s, to t) weight[s]      s < t
///     triangle[t][t] = scores[t][t] own[t]
///     from_start[t]  = exp(sum of log_decay over the tokens to t)
///     to_end[s]      = exp(sum of log_decay over the tokens after s)
///
/// Rows of the triangle are zero before their diagonal, from the start of the register that it lies in.
template <class T>
TOKENMIX_NOINLINE void ssd_triangle(const T* TOKENMIX_RESTRICT scores, const T* TOKENMIX_RESTRICT log_decay,
                                    const T* TOKENMIX_RESTRICT weight, const T* TOKENMIX_RESTRICT own, index_t n,
                                    index_t stride, T* TOKENMIX_RESTRICT sums, T* TOKENMIX_RESTRICT triangle,
                                    T* TOKENMIX_RESTRICT from_start, T* TOKENMIX_RESTRICT to_end) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> zero(T(0)), lane = simd::iota<T>();
  for (index_t t = 0; t < n; t += L) simd::store(sums + t, zero);
  for (index_t s = n; s-- > 0;) {
    const simd::batch<T> log(s + 1 < n ? log_decay[s + 1] : T(0)), factor(weight[s]), of_own(own[s]);
    index_t t = s / L * L;
    {
      const simd::batch<T> diagonal(static_cast<T>(s - t));
      const auto later = lane > diagonal;
      const simd::batch<T> sum = simd::select(later, simd::load(sums + t) + log, zero);
      simd::store(sums + t, sum);
      const simd::batch<T> weights = simd::select(later, simd::exp(sum) * factor, of_own);
      simd::store(triangle + s * stride + t,
                  simd::select(lane >= diagonal, simd::load(scores + s * stride + t) * weights, zero));
    }
    for (t += L; t < n; t += L) {
      const simd::batch<T> sum = simd::load(sums + t) + log;
      simd::store(sums + t, sum);
      simd::store(triangle + s * stride + t, simd::load(scores + s * stride + t) * (simd::exp(sum) * factor));
    }
  }
  T total(0);
  for (index_t s = n; s-- > 0;) {
    to_end[s] = total;
    total = total + log_decay[s];
  }
  const simd::batch<T> log(log_decay[0]);
  for (index_t t = 0; t < n; t += L) {
    const auto valid = simd::first_lanes<T>(std::min(L, n - t));
    simd::store(from_start + t, simd::exp(simd::select(valid, simd::load(sums + t) + log, zero)));
    simd::store(to_end + t, simd::exp(simd::select(valid, simd::load(to_end + t), zero)));
  }
}

/// to (n, stride) = rows[s] * factor[s]. Whether every number of the rows is finite.
template <class T>
bool scale_rows_to(const T* rows, index_t n, index_t stride, const T* factor, T* to) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> zero(T(0));
  simd::batch<T> seen = zero;
  for (index_t s = 0; s < n; ++s) {
    const simd::batch<T> f(factor[s]);
    for (index_t c = 0; c < stride; c += L) {
      const simd::batch<T> x = simd::load(rows + s * stride + c);
      seen = simd::fma(x, zero, seen);
      simd::store(to + s * stride + c, x * f);
    }
  }
  const T sum = simd::reduce_add(seen);
  return sum == sum;
}

/// rows[i] *= factor for whole registers; (rows, width) with a stride.
template <class T>
void scale_lines(T* data, index_t rows, index_t stride, index_t width, T factor) {
  const simd::batch<T> f(factor);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < width; c += simd::lanes<T>)
      simd::store(data + r * stride + c, simd::load(data + r * stride + c) * f);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
