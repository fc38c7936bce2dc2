// SPDX-License-Identifier: Apache-2.0
/// @file Products of matrices whose rows are whole registers, tile by tile.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// n numbers in whole registers.
template <class T>
constexpr index_t registers_of(index_t n) {
  return (n + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
}

/// c (rows, width) = a (rows, steps) b (steps, width); width is a multiple of a register. One fma chain per number, ascending steps.
template <class T>
void matrix_product(const T* a, index_t a_stride, index_t rows, const T* b, index_t b_stride, index_t steps, T* c,
                    index_t c_stride, index_t width) {
  constexpr index_t L = simd::lanes<T>;
  index_t v = 0;
  while (v < width) {
    const index_t vectors = std::min(simd::max_tile_vectors, (width - v) / L);
    simd::with_tile_vectors(vectors, [&](auto count) {
      simd::tile_product<T, count>({a, a_stride, 1}, rows, b + v, b_stride, steps, c + v, c_stride, false);
    });
    v += vectors * L;
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
