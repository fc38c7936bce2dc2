// SPDX-License-Identifier: Apache-2.0
/// @file What follows the scores of a few rows with keys in the lanes: sums of weights, and values with channels in the lanes.
#pragma once

#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Weights of a few rows: row r begins at data + r * stride.
template <class T>
struct row_weights {
  const T* data;
  index_t stride;
  index_t rows;
};

template <class T, index_t Rows>
TOKENMIX_ALWAYS_INLINE void sum_rows(const T* weights, index_t stride, index_t keys, T* l) {
  T sum[static_cast<std::size_t>(Rows)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] = l[r]; });
  for (index_t j = 0; j < keys; ++j) {
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] += weights[r * stride + j]; });
  }
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { l[r] = sum[r]; });
}

/// l (rows) += the weights of every row. One addition per key in ascending order, as with queries in the lanes; rows are independent
/// chains.
template <class T>
void add_row_sums(const row_weights<T>& weights, index_t keys, T* l) {
  index_t r = 0;
  for (; r + 4 <= weights.rows; r += 4) sum_rows<T, 4>(weights.data + r * weights.stride, weights.stride, keys, l + r);
  for (; r < weights.rows; ++r) sum_rows<T, 1>(weights.data + r * weights.stride, weights.stride, keys, l + r);
}

/// acc (rows, acc_stride) = or += weights times values, `channels` wide.
template <class T, class E>
void product_with_values(const row_weights<T>& weights, row_run<E> values, index_t keys, index_t channels, T* acc,
                         index_t acc_stride, bool accumulate) {
  constexpr index_t L = simd::lanes<T>;
  const index_t whole = channels / L;
  const simd::tile_rows_operand<T> left{weights.data, weights.stride, 1};
  for (index_t v = 0; v < whole; v += simd::max_tile_vectors) {
    simd::with_tile_vectors(std::min(simd::max_tile_vectors, whole - v), [&](auto wide) TOKENMIX_LAMBDA_INLINE {
      simd::tile_product<T, wide>(left, weights.rows, values.data + v * L, values.stride, keys, acc + v * L, acc_stride,
                                  accumulate);
    });
  }
  if (const index_t rest = channels - whole * L; rest > 0) {
    simd::tile_product<T, 1>(left, weights.rows, values.data + whole * L, values.stride, keys, acc + whole * L,
                             acc_stride, accumulate, rest);
  }
}

/// acc += weights times values for visible pairs only: 0 * NaN would carry a value that is not visible into the output. Bit j % lanes
/// of word visible[r * visible_stride + j / lanes] says whether row r sees key j.
template <class T>
void product_with_visible_values(const row_weights<T>& weights, row_run<T> values, index_t keys, index_t channels,
                                 const std::uint32_t* visible, index_t visible_stride, T* acc, index_t acc_stride) {
  constexpr index_t L = simd::lanes<T>;
  for (index_t r = 0; r < weights.rows; ++r) {
    T* sum = acc + r * acc_stride;
    for (index_t j = 0; j < keys; ++j) {
      if (((visible[r * visible_stride + j / L] >> (j % L)) & 1u) == 0) continue;
      const simd::batch<T> weight(weights.data[r * weights.stride + j]);
      const T* value = values.data + j * values.stride;
      for (index_t c = 0; c < channels; c += L) {
        const simd::batch<T> x = simd::load_n(value + c, std::min(L, channels - c));
        simd::store(sum + c, simd::fma(weight, x, simd::load(sum + c)));
      }
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
