// SPDX-License-Identifier: Apache-2.0
/// @file The inner loops between the two matrix products, for tiles with queries in the lanes.
#pragma once

#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// c (rows, vectors) = or += a (rows, steps) b (steps, vectors), for registers that are part of tiles `width` lanes wide. The
/// left operand is any of those of tile_product.
template <class T, class A>
TOKENMIX_ALWAYS_INLINE void product(A a, index_t rows, const T* b, index_t steps, T* c, index_t vectors, index_t width,
                                    bool accumulate) {
  simd::with_tile_vectors(vectors, [&](auto v) TOKENMIX_LAMBDA_INLINE {
    simd::tile_product<T, v>(a, rows, b, width, steps, c, width, accumulate);
  });
}

/// Nothing is hidden.
struct all_visible {};

template <class T, index_t Vectors, class Visible>
TOKENMIX_NOINLINE void raise_max_of(T* TOKENMIX_RESTRICT scores, index_t keys, index_t width, Visible visible,
                                    index_t words, T* TOKENMIX_RESTRICT m) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> unseen(minus_infinity<T>);
  simd::batch<T> largest[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { largest[v] = simd::load(m + v * L); });
  for (index_t j = 0; j < keys; ++j, scores += width) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      simd::batch<T> score = simd::load(scores + v * L);
      if constexpr (!std::is_same_v<Visible, all_visible>) {
        score = simd::select(simd::from_bits<T>(visible[j * words + v]), score, unseen);
        simd::store(scores + v * L, score);
      }
      largest[v] = simd::max_or_second(score, largest[v]);  // a NaN score leaves the maximum alone
    });
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(m + v * L, largest[v]); });
}

/// m (vectors) = max(m, every row of scores (keys, vectors)), rows `width` lanes apart. What is not visible by the words, rows
/// of them `words` apart, becomes -infinity first.
template <class T, class Visible>
TOKENMIX_ALWAYS_INLINE void raise_max(T* scores, index_t keys, index_t vectors, index_t width, Visible visible,
                                      index_t words, T* m) {
  simd::with_tile_vectors(
      vectors, [&](auto v) TOKENMIX_LAMBDA_INLINE { raise_max_of<T, v>(scores, keys, width, visible, words, m); });
}

template <class T, index_t Vectors>
TOKENMIX_NOINLINE void exponentials_of(T* TOKENMIX_RESTRICT scores, index_t keys, index_t width,
                                       const T* TOKENMIX_RESTRICT m, T* TOKENMIX_RESTRICT l) {
  constexpr index_t L = simd::lanes<T>;
  simd::batch<T> reference[static_cast<std::size_t>(Vectors)];
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    reference[v] = finite_reference<T>(simd::load(m + v * L));
    sum[v] = simd::load(l + v * L);
  });
  for (index_t j = 0; j < keys; ++j, scores += width) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      const simd::batch<T> weight = simd::exp_nonpositive(simd::load(scores + v * L) - reference[v]);
      simd::store(scores + v * L, weight);
      sum[v] = sum[v] + weight;
    });
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(l + v * L, sum[v]); });
}

/// scores (keys, vectors), rows `width` lanes apart, become exp(scores - m); their sums over ascending keys are added to l.
template <class T>
TOKENMIX_ALWAYS_INLINE void exponentials(T* scores, index_t keys, index_t vectors, index_t width, const T* m, T* l) {
  simd::with_tile_vectors(vectors,
                          [&](auto v) TOKENMIX_LAMBDA_INLINE { exponentials_of<T, v>(scores, keys, width, m, l); });
}

/// acc (Dv, width) += values^T weights for visible pairs only: what the product does where a value that somebody must not
/// see is not finite, since 0 * NaN would reach him.
template <class T>
TOKENMIX_NOINLINE void product_of_visible(const placed_rows<T>& values, index_t channels, const T* weights,
                                          const std::uint32_t* visible, index_t keys, T* acc, index_t width) {
  constexpr index_t L = simd::lanes<T>;
  const index_t vectors = width / L;
  for (index_t j = 0; j < keys; ++j) {
    const T* const row = values[j];
    for (index_t v = 0; v < vectors; ++v) {
      const simd::mask<T> seen = simd::from_bits<T>(visible[j * vectors + v]);
      const simd::batch<T> weight = simd::load(weights + j * width + v * L);
      for (index_t c = 0; c < channels; ++c) {
        T* sum = acc + c * width + v * L;
        const simd::batch<T> before = simd::load(sum);
        simd::store(sum, simd::select(seen, simd::fma(simd::batch<T>(row[c]), weight, before), before));
      }
    }
  }
}

/// Merges the state right = (m, l, acc) into left; layout m (width), l (width), acc (Dv, width).
template <class T>
TOKENMIX_NOINLINE void merge_columns(T* left, const T* right, index_t width, index_t channels) {
  merge_sums(left, left + width, right, right + width, width, [&](index_t lane, const merge_factors<T>& f) {
    T* a = left + 2 * width + lane;
    const T* b = right + 2 * width + lane;
    for (index_t c = 0; c < channels; ++c, a += width, b += width) {
      simd::store(a, simd::fma(simd::load(a), f.left, simd::load(b) * f.right));
    }
  });
}

/// Merges the state right = (m, l, acc) into left with channels in the lanes; layout m (rows, padded), l (the same), acc (rows, stride).
template <class T>
void merge_rows(T* left, const T* right, index_t rows, index_t stride) {
  constexpr index_t L = simd::lanes<T>;
  const index_t p = (rows + L - 1) / L * L;
  merge_sums(left, left + p, right, right + p, p, [&](index_t lane, const merge_factors<T>& f) {
    alignas(64) T by_left[static_cast<std::size_t>(L)];
    alignas(64) T by_right[static_cast<std::size_t>(L)];
    simd::store(by_left, f.left);
    simd::store(by_right, f.right);
    for (index_t r = lane; r < std::min(lane + L, rows); ++r) {
      const simd::batch<T> fl(by_left[r - lane]);
      const simd::batch<T> fr(by_right[r - lane]);
      T* a = left + 2 * p + r * stride;
      const T* b = right + 2 * p + r * stride;
      for (index_t c = 0; c < stride; c += L) {
        simd::store(a + c, simd::fma(simd::load(a + c), fl, simd::load(b + c) * fr));
      }
    }
  });
}

/// left += right, n elements: the merge of states without a maximum.
template <class T>
TOKENMIX_NOINLINE void add_states(T* left, const T* right, index_t n) {
  for (index_t i = 0; i < n; i += simd::lanes<T>) simd::store(left + i, simd::load(left + i) + simd::load(right + i));
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
