// SPDX-License-Identifier: Apache-2.0
/// @file One token: one pass over the state of a head.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/partial.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The operands of one token of one head; rows have room for whole registers, zeros behind their last channel.
template <class T>
struct ssd_token {
  const T* key;        // (N)
  const T* query;      // (N)
  const T* last_key;   // (N) of the token before, if the rule pends
  const T* written;    // (P) own x
  const T* last;       // (P) before x[t-1], if the rule pends
  T keep;
  const T* from;       // (P, N) or null: nothing is read
  index_t from_stride;
  T* to;               // (P, N) or null: nothing is written
  index_t to_stride;
};

template <class T, index_t Rows, bool Pends, bool Reads>
TOKENMIX_ALWAYS_INLINE void ssd_step_rows(const ssd_token<T>& x, index_t row, index_t states, T* sums) {
  constexpr index_t L = simd::lanes<T>;
  simd::batch<T> sum[static_cast<std::size_t>(Rows)], written[static_cast<std::size_t>(Rows)],
      last[static_cast<std::size_t>(Rows)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    sum[r] = simd::batch<T>(T(0));
    written[r] = simd::batch<T>(x.written[row + r]);
    if constexpr (Pends) last[r] = simd::batch<T>(x.last[row + r]);
  });
  const simd::batch<T> keep(x.keep);
  const auto lanes = [&](index_t i, auto&& load, auto&& store) TOKENMIX_LAMBDA_INLINE {
    const simd::batch<T> key = simd::load(x.key + i), query = simd::load(x.query + i);
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      simd::batch<T> h = written[r] * key;
      if constexpr (Reads) {
        simd::batch<T> old = load(x.from + (row + r) * x.from_stride + i);
        if constexpr (Pends) old = simd::fma(last[r], simd::load(x.last_key + i), old);
        h = simd::fma(old, keep, h);
      }
      sum[r] = simd::fma(h, query, sum[r]);
      if (x.to != nullptr) store(x.to + (row + r) * x.to_stride + i, h);
    });
  };
  index_t i = 0;
  for (; i + L <= states; i += L) {
    lanes(
        i, [](const T* p) TOKENMIX_LAMBDA_INLINE { return simd::load(p); },
        [](T* p, const simd::batch<T>& h) TOKENMIX_LAMBDA_INLINE { simd::store(p, h); });
  }
  if (const index_t n = states - i; n > 0) {
    lanes(
        i, [n](const T* p) TOKENMIX_LAMBDA_INLINE { return simd::load_n(p, n); },
        [n](T* p, const simd::batch<T>& h) TOKENMIX_LAMBDA_INLINE { simd::store_n(p, h, n); });
  }
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { simd::store(sums + r * L, sum[r]); });
}

/// y[p] = query' S[p], the sum of the lanes in a fixed order. y: room for whole registers.
template <class T, bool Pends, bool Reads>
TOKENMIX_NOINLINE void ssd_step(const ssd_token<T>& x, index_t channels, index_t states, T* y) {
  constexpr index_t L = simd::lanes<T>;
  alignas(64) T sums[static_cast<std::size_t>(L * L)];
  for (index_t first = 0; first < channels; first += L) {
    const index_t valid = std::min(L, channels - first);
    index_t r = 0;
    for (; r + 4 <= valid; r += 4) ssd_step_rows<T, 4, Pends, Reads>(x, first + r, states, sums + r * L);
    for (; r < valid; ++r) ssd_step_rows<T, 1, Pends, Reads>(x, first + r, states, sums + r * L);
    std::fill(sums + valid * L, sums + L * L, T(0));
    simd::batch<T> rows[static_cast<std::size_t>(L)];
    simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { rows[i] = simd::load(sums + i * L); });
    simd::transpose<T>(rows);
    for (index_t half = L / 2; half > 0; half /= 2)
      for (index_t i = 0; i < half; ++i) rows[i] = rows[i] + rows[i + half];
    simd::store(y + first, rows[0]);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
