// SPDX-License-Identifier: Apache-2.0
/// @file Decays inside a chunk: every one a sum of logs or a product from its own anchor, every exponent <= 0.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/mixers/linear/detail/group.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Decays of n tokens with one log decay each.
///
///     between[t][s] = exp(sum of log_decay over the tokens after s, to t)      for s <= t; 1 on the diagonal
///     from_start[t] = exp(sum over the tokens to t)
///
/// `between` is (n, stride), stride a multiple of the lanes, and is multiplied into what `table(t, lane, factor)` stores;
/// the last row is kept in `to_end`. log_decay: (n); from_start, to_end: room for whole registers.
template <class T, class Table>
TOKENMIX_ALWAYS_INLINE void decays_of_tokens(const T* log_decay, index_t n, T* sums, T* from_start, T* to_end,
                                             Table&& table) {
  constexpr index_t L = simd::lanes<T>;
  T total(0);
  for (index_t t = 0; t < n; ++t) from_start[t] = total = total + log_decay[t];
  const simd::batch<T> zero(T(0));
  for (index_t t = 0; t < n; t += L) {
    const index_t valid = std::min(L, n - t);
    const simd::batch<T> log = simd::select(simd::first_lanes<T>(valid), simd::load(from_start + t), zero);
    simd::store(from_start + t, simd::exp(log));
    simd::store(sums + t, zero);
  }
  for (index_t t = 0; t < n; ++t) {
    const simd::batch<T> log(log_decay[t]);
    for (index_t s = 0; s <= t; s += L) {
      const auto before = simd::first_lanes<T>(std::min(L, t - s));
      const simd::batch<T> sum = simd::select(before, simd::load(sums + s) + log, zero);
      simd::store(sums + s, sum);
      const simd::batch<T> e = simd::exp(sum);
      table(t, s, e);
      if (t + 1 == n) simd::store(to_end + s, e);
    }
  }
}

/// Decays of n tokens with a log decay per channel: rows of logs become rows of factors. from_start[t] is their product over
/// the tokens to t, to_end[t] that over the tokens after t, keep that over all, from the sum of the logs.
///
/// log_decay, from_start, to_end: (n, width); keep: (width).
template <class T>
TOKENMIX_ALWAYS_INLINE void decays_of_channels(T* log_decay, index_t n, index_t width, T* keep, T* from_start,
                                               T* to_end) {
  for (index_t c = 0; c < width; c += simd::lanes<T>) {
    simd::batch<T> product(T(1));
    simd::batch<T> sum(T(0));
    for (index_t t = 0; t < n; ++t) {
      T* at = log_decay + t * width + c;
      const simd::batch<T> log = simd::load(at);
      const simd::batch<T> a = simd::exp(log);
      sum = sum + log;
      product = product * a;
      simd::store(at, a);
      simd::store(from_start + t * width + c, product);
    }
    simd::store(keep + c, simd::exp(sum));
    product = simd::batch<T>(T(1));
    for (index_t t = n; t-- > 0;) {
      simd::store(to_end + t * width + c, product);
      product = product * simd::load(log_decay + t * width + c);
    }
  }
}

/// Decays of the n tokens of a group with one log decay each.
template <class T>
struct group_decays {
  alignas(
      64) T between[static_cast<std::size_t>(group_tokens * group_tokens)];  ///< [t][s]: over the tokens after s, to t
  alignas(64) T from_start[static_cast<std::size_t>(group_room<T>)];         ///< [t]: over the tokens to t

  const T* to_end(index_t n) const { return between + (n - 1) * group_tokens; }

  TOKENMIX_ALWAYS_INLINE void take(const T* log_decay, index_t n) {
    T total(0);
    for (index_t t = 0; t < group_tokens; ++t) {
      for (index_t s = 0; s < group_tokens; ++s)
        between[t * group_tokens + s] = s < t && t < n ? between[(t - 1) * group_tokens + s] + log_decay[t] : T(0);
      if (t < n) total = total + log_decay[t];
      from_start[t] = total;
    }
    std::fill(from_start + group_tokens, from_start + group_room<T>, T(0));
    for (index_t i = 0; i < group_tokens * group_tokens; i += simd::lanes<T>)
      simd::store(between + i, simd::exp(simd::load(between + i)));
    for (index_t i = 0; i < group_room<T>; i += simd::lanes<T>)
      simd::store(from_start + i, simd::exp(simd::load(from_start + i)));
  }

  /// to[t][s] = from[t][s] between[t][s] for s <= t < n; tables with group_tokens numbers a row, and room for a whole one.
  TOKENMIX_ALWAYS_INLINE void multiply(const T* from, T* to) const {
    for (index_t i = 0; i < group_tokens * group_tokens; i += simd::lanes<T>)
      simd::store(to + i, simd::load(from + i) * simd::load(between + i));
  }
};

/// The first token in [from, n) with a log decay of -infinity in any of `width` channels; n if there is none.
template <class T>
index_t next_reset(const T* log_decay, index_t stride, index_t from, index_t n, index_t width) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> infinite(minus_infinity<T>);
  for (index_t t = from; t < n; ++t) {
    for (index_t c = 0; c < width; c += L) {
      const auto valid = simd::bits<T>(simd::first_lanes<T>(std::min(L, width - c)));
      if ((simd::bits<T>(simd::load(log_decay + t * stride + c) == infinite) & valid) != 0) return t;
    }
  }
  return n;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
