// SPDX-License-Identifier: Apache-2.0
/// @file Softmax over scores that are known, of values that lie apart: the last step after a choice of keys.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/simd/convert.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// acc (Vectors registers) = sum over i of weights[i] row_at(i), one fma chain per channel; `last` lanes of the last register are read.
template <class T, index_t Vectors, class RowAt, class Last>
TOKENMIX_ALWAYS_INLINE void add_weighted_rows(const T* weights, index_t n, const RowAt& row_at, Last last, T* acc) {
  constexpr index_t L = simd::lanes<T>;
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[v] = simd::batch<T>(T(0)); });
  for (index_t i = 0; i < n; ++i) {
    const auto* const row = row_at(i);
    const simd::batch<T> weight(weights[i]);
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      if constexpr (std::is_same_v<Last, simd::full_width>) {
        sum[v] = simd::fma(weight, simd::load_as<T>(row + v * L), sum[v]);
      } else {
        sum[v] = simd::fma(weight, simd::load_as_n<T>(row + v * L, last), sum[v]);
      }
    });
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(acc + v * L, sum[v]); });
}

/// The state (m, l, acc) of a row over at most a leaf of scores: m and l fill a register each, acc is padded. The scores become
/// weights; they have room for whole registers.
template <class T, class RowAt>
TOKENMIX_NOINLINE void attend_known_leaf(T* scores, index_t n, const RowAt& row_at, index_t channels, T* state) {
  constexpr index_t L = simd::lanes<T>;
  simd::batch<T> largest(minus_infinity<T>);
  std::fill(scores + n, scores + (n + L - 1) / L * L, minus_infinity<T>);
  for (index_t i = 0; i < n; i += L) largest = simd::max_or_second(simd::load(scores + i), largest);
  const simd::batch<T> m(simd::reduce_max(largest));
  const simd::batch<T> reference = finite_reference<T>(m);
  simd::batch<T> sum(T(0));
  for (index_t i = 0; i < n; i += L) {
    const simd::batch<T> weight = simd::exp_nonpositive(simd::load(scores + i) - reference);
    simd::store(scores + i, weight);
    sum = sum + weight;
  }
  simd::store(state, m);
  simd::store(state + L, simd::batch<T>(simd::reduce_add(sum)));
  T* acc = state + 2 * L;
  const index_t whole = channels / L;
  for (index_t v = 0; v < whole; v += simd::max_tile_vectors) {
    const auto from = [&](index_t i) TOKENMIX_LAMBDA_INLINE { return row_at(i) + v * L; };
    simd::with_tile_vectors(std::min(simd::max_tile_vectors, whole - v), [&](auto wide) TOKENMIX_LAMBDA_INLINE {
      add_weighted_rows<T, wide>(scores, n, from, simd::full_width{}, acc + v * L);
    });
  }
  if (const index_t rest = channels - whole * L; rest > 0) {
    const auto from = [&](index_t i) TOKENMIX_LAMBDA_INLINE { return row_at(i) + whole * L; };
    add_weighted_rows<T, 1>(scores, n, from, rest, acc + whole * L);
  }
}

/// m, l and acc (channels, padded to registers) of a row over n scores, which become weights; row_at(i) are the values of the i-th.
/// In leaves, counted along the list, that merge as those of all keys do, so the error does not grow with n.
template <class T, class RowAt>
void attend_known(T* scores, index_t n, const RowAt& row_at, index_t channels, T* m, T* l, T* acc) {
  constexpr index_t L = simd::lanes<T>;
  const index_t stride = (channels + L - 1) / L * L;
  scratch_frame frame;
  leaf_tree<T> tree(std::max<index_t>(n - 1, 0) / softmax_leaf_keys, 2 * L + stride, frame);
  const auto merge = [&](T* left, const T* right) { merge_rows(left, right, 1, stride); };
  for (index_t first = 0; first == 0 || first < n; first += softmax_leaf_keys) {
    attend_known_leaf(
        scores + first, std::min(softmax_leaf_keys, n - first),
        [&](index_t i) TOKENMIX_LAMBDA_INLINE { return row_at(first + i); }, channels,
        tree.push(first / softmax_leaf_keys, merge));
  }
  const T* state = tree.root(merge);
  *m = state[0];
  *l = state[L];
  std::copy_n(state + 2 * L, stride, acc);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
