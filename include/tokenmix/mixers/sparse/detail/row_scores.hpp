// SPDX-License-Identifier: Apache-2.0
/// @file Scores of a few rows of queries against many keys, for those who choose among keys.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Rows of queries that are scored together: their scores stay in the cache next to the core.
inline constexpr index_t scored_rows = 32;

/// Keys that are scored at a time.
template <class T>
inline constexpr index_t score_tile_keys = simd::max_tile_vectors * simd::lanes<T>;

/// Room that a row of scores of n keys takes: whole tiles.
template <class T>
constexpr index_t padded_scores(index_t n) {
  return (n + score_tile_keys<T> - 1) / score_tile_keys<T> * score_tile_keys<T>;
}

/// scores[r][s] = sum over d of q[r][d] k[s][d], one fma chain over ascending d, for the keys of the tiles that touch [first, last).
///
/// rows holds the queries in the computing type, key_rows the stored keys; scores has `stride` = padded_scores(keys) columns or more.
template <class T, class E>
TOKENMIX_NOINLINE void score_rows(const T* rows, index_t row_stride, index_t count, index_t channels, const E* key_rows,
                                  index_t key_stride, index_t keys, index_t first, index_t last, T* scores,
                                  index_t stride) {
  constexpr index_t width = score_tile_keys<T>;
  scratch_frame frame;
  T* turned = frame.take<T>(std::max<index_t>(channels, 1) * width);  // (D, width)
  for (index_t tile = first / width * width; tile < last; tile += width) {
    const index_t n = std::min(width, keys - tile);
    if (n < width) std::fill_n(turned, channels * width, T(0));
    simd::transpose_in(key_rows + tile * key_stride, key_stride, n, channels, turned, width);
    simd::tile_product<T, simd::max_tile_vectors>({rows, row_stride, 1}, count, turned, width, channels, scores + tile,
                                                  stride, false);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
