// SPDX-License-Identifier: Apache-2.0
/// @file A few tokens among themselves: what each reads of the keys of those before it, with the decay between.
#pragma once

#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Tokens whose writes enter a state in one pass, which also reads it for the next ones. More make larger triangles of
/// pairs, fewer more loads and stores of the state; 4 writes and 8 reads of two registers fill a file of 32.
inline constexpr index_t group_tokens = 4;
static_assert(group_tokens * group_tokens % simd::lanes<float> == 0);

/// A group's tokens in whole registers.
template <class T>
inline constexpr index_t group_room = (group_tokens + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;

/// Which state a row reads: that which its token's decay has gone over, or that before it.
enum class reads : unsigned char { nothing, decayed, before };

/// Rows of n tokens, in whole registers; keys in sets.
template <class T>
struct group_rows {
  index_t tokens;
  index_t width;  ///< of the rows
  index_t stride;
  const T* first;   ///< queries
  const T* second;  ///< what else reads
  const T* keys;
  index_t set_stride = 0;        ///< between sets of keys
  const T* log_decay = nullptr;  ///< a number per channel
  const T* bonus = nullptr;  ///< (width) weights of a token's own key, if the first read the state before their decay
};

/// What becomes of them. A table (tokens, stride) of every set; rows if there is a decay.
template <class T>
struct group_results {
  T* scores[2];    ///< of the first with keys of their own token and earlier ones
  T* overlaps[2];  ///< of the second with earlier keys
  index_t stride;
  T* first = nullptr;  ///< decayed from the group's beginning on
  T* second = nullptr;
  T* keys = nullptr;  ///< decayed to the group's end; n rows of every set, end to end
  T* keep = nullptr;  ///< (width) decay of the group
};

/// At most N tokens.
///
///     scores[t][s]   = sum over d of first[t][d] keys[s][d] (product of decay[.][d] over the tokens after s, to t),    s <= t
///     overlaps[t][s] = the same of second,                                                                            s < t
///
/// to t - 1 for rows that read the state before the decay; then the score of a token's own key is weighted by the bonus.
/// Products over channels are lane by lane, ascending, then as reduce_add.
template <class T, index_t N, index_t Sets, bool Decays, reads First, reads Second>
TOKENMIX_NOINLINE void group_products(const group_rows<T>& rows, const group_results<T>& to) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t pairs = N * N;  // the first's below a table's diagonal and on it, the second's above, transposed
  constexpr index_t sums = (Sets * pairs + L - 1) / L * L;
  const index_t n = rows.tokens;
  simd::batch<T> sum[static_cast<std::size_t>(sums)];
  simd::unroll<sums>([&](auto i) TOKENMIX_LAMBDA_INLINE { sum[i] = simd::batch<T>(T(0)); });
  for (index_t c = 0; c < rows.width; c += L) {
    simd::batch<T> key[static_cast<std::size_t>(Sets * N)];
    simd::batch<T> product(T(1));
    simd::batch<T> total(T(0));
    simd::unroll<N>([&](auto t) TOKENMIX_LAMBDA_INLINE {
      if (t >= n) return;
      const index_t at = t * rows.stride + c;
      simd::batch<T> first, second, decay;
      const simd::batch<T> before = product;
      if constexpr (First != reads::nothing) first = simd::load(rows.first + at);
      if constexpr (Second != reads::nothing) second = simd::load(rows.second + at);
      if constexpr (Decays) {
        const simd::batch<T> log = simd::load(rows.log_decay + at);
        decay = simd::exp(log);
        total = total + log;
        product = product * decay;
        if constexpr (First != reads::nothing)
          simd::store(to.first + at, first * (First == reads::before ? before : product));
        if constexpr (Second != reads::nothing)
          simd::store(to.second + at, second * (Second == reads::before ? before : product));
      }
      simd::unroll<Sets>([&](auto set) TOKENMIX_LAMBDA_INLINE {
        constexpr index_t table = set * pairs;
        simd::unroll<t>([&](auto s) TOKENMIX_LAMBDA_INLINE {
          simd::batch<T>& k = key[set * N + s];
          const simd::batch<T> old = k;
          if constexpr (Decays) k = k * decay;
          if constexpr (First != reads::nothing) {
            simd::batch<T>& x = sum[table + t * N + s];
            x = simd::fma(first, First == reads::before ? old : k, x);
          }
          if constexpr (Second != reads::nothing) {
            simd::batch<T>& x = sum[table + s * N + t];
            x = simd::fma(second, Second == reads::before ? old : k, x);
          }
        });
        const simd::batch<T> own = key[set * N + t] = simd::load(rows.keys + set * rows.set_stride + at);
        if constexpr (First != reads::nothing) {
          simd::batch<T>& x = sum[table + t * N + t];
          if constexpr (First == reads::before) {
            x = simd::fma(first * simd::load(rows.bonus + c), own, x);
          } else {
            x = simd::fma(first, own, x);
          }
        }
      });
    });
    if constexpr (Decays) {
      simd::unroll<Sets * N>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        if (i % N < n) simd::store(to.keys + (i / N * n + i % N) * rows.stride + c, key[i]);
      });
      simd::store(to.keep + c, simd::exp(total));
    }
  }
  if (n == 1) {
    if constexpr (First != reads::nothing) {
      simd::unroll<Sets>([&](auto set)
                             TOKENMIX_LAMBDA_INLINE { *to.scores[set] = simd::reduce_add(sum[set * pairs]); });
    }
    return;
  }
  alignas(64) T table[static_cast<std::size_t>(sums)];
  simd::unroll<sums / L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    simd::batch<T> part[static_cast<std::size_t>(L)];
    simd::unroll<L>([&](auto j) TOKENMIX_LAMBDA_INLINE { part[j] = sum[i * L + j]; });
    simd::store(table + i * L, simd::sums_of_lanes<T>(part));
  });
  for (index_t set = 0; set < Sets; ++set) {
    for (index_t t = 0; t < n; ++t) {
      for (index_t s = 0; s <= t; ++s) {
        if constexpr (First != reads::nothing) to.scores[set][t * to.stride + s] = table[set * pairs + t * N + s];
        if constexpr (Second != reads::nothing) {
          if (s < t) to.overlaps[set][t * to.stride + s] = table[set * pairs + s * N + t];
        }
      }
    }
  }
}

/// f(head, how the first read, how the second do), constants, for every head of queries: the second go with the first head, or
/// alone if there is no head.
template <reads First, reads Second, class F>
void each_head_of_queries(index_t heads, F&& f) {
  using nothing = std::integral_constant<reads, reads::nothing>;
  using first = std::integral_constant<reads, First>;
  using second = std::integral_constant<reads, Second>;
  if (heads > 0) {
    f(0, first{}, second{});
  } else {
    f(0, nothing{}, second{});
  }
  for (index_t g = 1; g < heads; ++g) f(g, first{}, nothing{});
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
