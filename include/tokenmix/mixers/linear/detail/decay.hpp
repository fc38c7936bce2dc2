// SPDX-License-Identifier: Apache-2.0
/// @file Decays inside a chunk: every one a sum of logs or a product from its own anchor, every exponent <= 0.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk_rows.hpp>
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

/// Decays of n tokens with a log decay per channel: rows of logs become rows of factors, and the products from the first
/// token on and to the last are handed on: `from_start(t, lane, product before t, product to t)`, `to_end(t, lane, product)`.
///
/// log_decay: (n, stride) -> factors in place. keep: (width) product over all tokens, from the sum of the logs.
template <class T, class FromStart, class ToEnd>
TOKENMIX_ALWAYS_INLINE void decays_of_channels(T* log_decay, index_t stride, index_t n, index_t width, T* keep,
                                               FromStart&& from_start, ToEnd&& to_end) {
  for (index_t c = 0; c < width; c += simd::lanes<T>) {
    simd::batch<T> product(T(1));
    simd::batch<T> sum(T(0));
    for (index_t t = 0; t < n; ++t) {
      T* at = log_decay + t * stride + c;
      const simd::batch<T> log = simd::load(at);
      const simd::batch<T> a = simd::exp(log);
      sum = sum + log;
      const simd::batch<T> before = product;
      product = product * a;
      simd::store(at, a);
      from_start(t, c, before, product);
    }
    simd::store(keep + c, simd::exp(sum));
    product = simd::batch<T>(T(1));
    for (index_t t = n; t-- > 0;) {
      to_end(t, c, product);
      product = product * simd::load(log_decay + t * stride + c);
    }
  }
}

/// Which state a row reads: that which its token's decay has gone over, or that before it.
enum class reads : unsigned char { nothing, decayed, before };

/// How far the decay of a chunk may go, as a log, where what is written is divided by it: a factor of up to e^16 on the way,
/// which takes 7 of the 38 powers of ten that a float has, and no digit.
inline constexpr int steepest_decay = 16;

/// The first of n tokens with which the sum of the logs falls below -steepest_decay, or is NaN, in any of `width` channels;
/// n if there is none.
template <class T>
index_t next_steep(const T* log_decay, index_t stride, index_t n, index_t width) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> least(T(-steepest_decay));
  for (index_t c = 0; c < width; c += L) {
    const index_t valid = std::min(L, width - c);
    const auto looked_at = simd::bits<T>(simd::first_lanes<T>(valid));
    simd::batch<T> sum(T(0));
    for (index_t t = 0; t < n; ++t) {
      sum = sum + simd::load_n(log_decay + t * stride + c, valid);
      if ((simd::bits<T>(sum >= least) & looked_at) != looked_at) n = t;
    }
  }
  return n;
}

/// How many of n tokens, at least one, go together from one anchor: their decays since the first one are not steep. Where tokens
/// read before their decay, the first one's is not out of the way before the others come.
template <reads Reads, class T>
index_t gentle_tokens(const T* log_decay, index_t stride, index_t n, index_t width) {
  constexpr index_t first = Reads == reads::before ? 0 : 1;
  return std::max<index_t>(first + next_steep(log_decay + first * stride, stride, n - first, width), 1);
}

/// Decays of n tokens with a log decay per channel: first[c] of the first token; and, if n > 1, for every token and register
/// of channels `hand(t, c, before, since, undo)`: the decay from behind the first token to the one before t, to t itself, and
/// the inverse of the latter; all[c] to the last token. With reads::before the first token's decay is part of all three.
///
/// It is one chain of products, so that what two of them have in common, its rounding errors too, cancels in their quotient.
template <reads Reads, class T, class Hand>
TOKENMIX_ALWAYS_INLINE void decays_since_first(const T* log_decay, index_t stride, index_t n, index_t width, T* first,
                                               T* all, Hand&& hand) {
  const simd::batch<T> one(T(1));
  for (index_t c = 0; c < width; c += simd::lanes<T>) {
    const simd::batch<T> of_first = simd::exp(simd::load(log_decay + c));
    simd::store(first + c, of_first);
    if (n == 1) continue;
    simd::batch<T> since = one;
    if constexpr (Reads == reads::before) {
      since = of_first;
      hand(0, c, one, since, one / since);
    } else {
      hand(0, c, one, one, one);
    }
    for (index_t t = 1; t < n; ++t) {
      const simd::batch<T> before = since;
      since = before * simd::exp(simd::load(log_decay + t * stride + c));
      hand(t, c, before, since, one / since);
    }
    simd::store(all + c, since);
  }
}

/// Rows of queries that decayed_scores takes at a time: accumulators in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t decayed_rows = 8;
#else
inline constexpr index_t decayed_rows = 4;
#endif

/// Whose keys stand in lanes: lane s holds one of token[s]; several rows of keys may stand side by side.
template <class T>
struct lanes_of_tokens {
  const T* token;  // (lanes)
  index_t lanes;
};

/// scores[t][s] = sum over d of queries[t][d] keys[s][d] (product of decay[.][d] over the tokens after s's, to t), where s's
/// token <= t; to t - 1 if the rows read the state before the decay. other[t][s] is the same with other_queries. The keys are spoilt:
/// a lane holds its key as decayed to the token that the loop has come to.
template <class T, reads First, reads Second>
TOKENMIX_NOINLINE void decayed_scores(const T* queries, const T* other_queries, const T* decay, index_t row_stride,
                                      index_t n, const keys_in_lanes<T>& keys, const lanes_of_tokens<T>& of,
                                      T* TOKENMIX_RESTRICT scores, T* TOKENMIX_RESTRICT other) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t R = decayed_rows;
  constexpr auto rows = static_cast<std::size_t>(R);
  for (index_t lane = 0; lane < of.lanes; lane += L) {
    const simd::batch<T> token = simd::load(of.token + lane);
    const auto earliest =
        static_cast<index_t>(*std::min_element(of.token + lane, of.token + std::min(lane + L, of.lanes)));
    for (index_t first = earliest; first < n; first += R) {
      const index_t valid = std::min(R, n - first);
      simd::batch<T> sum[rows], other_sum[rows];
      simd::mask<T> before[rows];
      index_t row[rows];
      simd::unroll<R>([&](auto r) TOKENMIX_LAMBDA_INLINE {
        sum[r] = simd::batch<T>(T(0));
        other_sum[r] = simd::batch<T>(T(0));
        row[r] = (first + std::min<index_t>(r, valid - 1)) * row_stride;
        before[r] = token < simd::batch<T>(static_cast<T>(first + r));
      });
      T* TOKENMIX_RESTRICT at = keys.data() + lane;
      for (index_t d = 0; d < keys.features(); ++d, at += keys.lines()) {
        simd::batch<T> key = simd::load(at);
        simd::unroll<R>([&](auto r) TOKENMIX_LAMBDA_INLINE {
          const simd::batch<T> old = key;
          key = simd::select(before[r], key * simd::batch<T>(decay[row[r] + d]), key);
          sum[r] = simd::fma(simd::batch<T>(queries[row[r] + d]), First == reads::before ? old : key, sum[r]);
          if constexpr (Second != reads::nothing) {
            other_sum[r] =
                simd::fma(simd::batch<T>(other_queries[row[r] + d]), Second == reads::before ? old : key, other_sum[r]);
          }
        });
        simd::store(at, key);
      }
      simd::unroll<R>([&](auto r) TOKENMIX_LAMBDA_INLINE {
        if (r < valid) {
          simd::store(scores + (first + r) * keys.lines() + lane, sum[r]);
          if constexpr (Second != reads::nothing) simd::store(other + (first + r) * keys.lines() + lane, other_sum[r]);
        }
      });
    }
  }
}

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
