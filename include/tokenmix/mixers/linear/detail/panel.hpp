// SPDX-License-Identifier: Apache-2.0
/// @file The kernels of a panel: some registers of value channels of one state, and what a chunk of tokens does to them.
#pragma once

#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// A panel is `Vectors` registers wide; its state is (D, width), its rows of tokens are (tokens, width), without gaps. Every
// number is one fma chain that depends on no other lane, so its bits do not depend on the width or place of its panel.

/// Lines of coming rows that are asked for between two blocks: no more than the core can wait for at a time.
inline constexpr index_t lines_per_block = 32;

/// What a row of registers is multiplied by: nothing, a number per row, or a register per row.
enum class factor : unsigned char { none, number, lanes };

/// Rows of factors. `data` is (rows) numbers or (rows, width) lanes.
template <class T, factor Kind>
struct row_factors {
  const T* data;
  template <index_t Vectors>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> at(index_t row, index_t vector) const {
    if constexpr (Kind == factor::lanes) {
      return simd::load(data + (row * Vectors + vector) * simd::lanes<T>);
    } else {
      return simd::batch<T>(data[row]);
    }
  }
};

template <class T, index_t Rows, index_t Vectors, bool Scaled>
TOKENMIX_ALWAYS_INLINE void triangle_block(const T* weights, index_t weight_stride, index_t first, index_t valid,
                                           index_t writes, const T* values, const T* scale, T* out) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  const T* row[static_cast<std::size_t>(Rows)];
  simd::batch<T> sum[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    const index_t at = first + std::min<index_t>(r, valid - 1);
    row[r] = weights + at * weight_stride;
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      sum[r][v] = simd::load(out + at * W + v * L);
      if constexpr (Scaled) sum[r][v] = sum[r][v] * simd::batch<T>(scale[at]);
    });
  });
  const auto step = [&](index_t s, auto from) TOKENMIX_LAMBDA_INLINE {
    simd::batch<T> right[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { right[v] = simd::load(values + s * W + v * L); });
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      if constexpr (r >= from) {
        const simd::batch<T> left(row[r][s]);
        simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::fma(left, right[v], sum[r][v]); });
      }
    });
  };
  for (index_t s = 0; s < first * writes; ++s) step(s, std::integral_constant<index_t, 0>{});
  simd::unroll<Rows>([&](auto k) TOKENMIX_LAMBDA_INLINE {
    if (k < valid) {
      for (index_t s = (first + k) * writes; s < (first + k + 1) * writes; ++s) step(s, k);
    }
  });
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    if (r < valid) {
      simd::unroll<Vectors>([&](auto v)
                                TOKENMIX_LAMBDA_INLINE { simd::store(out + (first + r) * W + v * L, sum[r][v]); });
    }
  });
}

/// out[i] = scale[i] out[i] + sum over s < (i + 1) writes of weights[i][s] values[s].
///
/// Later values are not read, so NaN does not travel back in time. `scale` may be null.
template <class T, index_t Vectors>
TOKENMIX_NOINLINE void add_triangle(const T* TOKENMIX_RESTRICT weights, index_t weight_stride, index_t rows,
                                    index_t writes, const T* TOKENMIX_RESTRICT values, const T* scale,
                                    T* TOKENMIX_RESTRICT out) {
  constexpr index_t R = Vectors > 1 ? 4 : 8;
  for (index_t row = 0; row < rows; row += R) {
    const index_t valid = std::min(R, rows - row);
    if (scale != nullptr) {
      triangle_block<T, R, Vectors, true>(weights, weight_stride, row, valid, writes, values, scale, out);
    } else {
      triangle_block<T, R, Vectors, false>(weights, weight_stride, row, valid, writes, values, scale, out);
    }
  }
}

template <class T, index_t Rows, index_t Vectors, factor Erase>
TOKENMIX_ALWAYS_INLINE void solve_block(const T* overlaps, index_t overlap_stride, index_t first, index_t valid,
                                        const T* reads, const T* read_scale, row_factors<T, Erase> erase, T* values) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  const T* row[static_cast<std::size_t>(Rows)];
  simd::batch<T> sum[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    const index_t at = first + std::min<index_t>(r, valid - 1);
    row[r] = overlaps + at * overlap_stride;
    const simd::batch<T> scale(read_scale == nullptr ? T(1) : read_scale[at]);
    simd::unroll<Vectors>([&](auto v)
                              TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::load(reads + at * W + v * L) * scale; });
  });
  for (index_t s = 0; s < first; ++s) {
    simd::batch<T> right[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { right[v] = simd::load(values + s * W + v * L); });
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      const simd::batch<T> left(row[r][s]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::fma(left, right[v], sum[r][v]); });
    });
  }
  simd::unroll<Rows>([&](auto k) TOKENMIX_LAMBDA_INLINE {
    if (k >= valid) return;
    const index_t at = first + k;
    simd::batch<T> solved[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      if constexpr (Erase == factor::none) {
        solved[v] = sum[k][v];
      } else {
        const simd::batch<T> minus = simd::batch<T>(T(0)) - erase.template at<Vectors>(at, v);
        solved[v] = simd::fma(minus, sum[k][v], simd::load(values + at * W + v * L));
      }
      simd::store(values + at * W + v * L, solved[v]);
    });
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      if constexpr (r > k) {
        const simd::batch<T> left(row[r][at]);
        simd::unroll<Vectors>([&](auto v)
                                  TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::fma(left, solved[v], sum[r][v]); });
      }
    });
  });
}

/// values[j] -= erase[j] (read_scale[j] reads[j] + sum over s < j of overlaps[j][s] values[s]), j ascending: what a delta
/// rule writes, by blocked forward substitution. With no erase factor, values[j] is what is read. `read_scale` may be null.
template <class T, index_t Vectors, factor Erase>
TOKENMIX_NOINLINE void solve_writes(const T* TOKENMIX_RESTRICT overlaps, index_t overlap_stride, index_t writes,
                                    const T* TOKENMIX_RESTRICT reads, const T* read_scale, row_factors<T, Erase> erase,
                                    T* TOKENMIX_RESTRICT values) {
  constexpr index_t R = Vectors > 1 ? 4 : 8;
  for (index_t row = 0; row < writes; row += R) {
    solve_block<T, R, Vectors, Erase>(overlaps, overlap_stride, row, std::min(R, writes - row), reads, read_scale,
                                      erase, values);
  }
}

template <class T, index_t Rows, index_t Vectors, factor Keep>
TOKENMIX_ALWAYS_INLINE void update_block(const T* keys, index_t key_stride, index_t valid, index_t writes,
                                         const T* values, row_factors<T, Keep> keep, index_t first, T* state) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  simd::batch<T> sum[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  index_t column[static_cast<std::size_t>(Rows)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    column[r] = std::min<index_t>(r, valid - 1);
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      sum[r][v] = simd::load(state + column[r] * W + v * L);
      if constexpr (Keep == factor::number) {
        sum[r][v] = sum[r][v] * keep.template at<Vectors>(first + column[r], v);
      } else if constexpr (Keep == factor::lanes) {
        sum[r][v] = sum[r][v] * keep.template at<Vectors>(0, v);
      }
    });
  });
  for (index_t s = 0; s < writes; ++s) {
    simd::batch<T> right[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { right[v] = simd::load(values + s * W + v * L); });
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      const simd::batch<T> left(keys[s * key_stride + column[r]]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::fma(left, right[v], sum[r][v]); });
    });
  }
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    if (r < valid) {
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(state + r * W + v * L, sum[r][v]); });
    }
  });
}

/// state[d] = keep state[d] + sum over s of keys[s][d] values[s]. `keep` is a number per row d, or one row of lanes for all.
template <class T, index_t Vectors, factor Keep>
TOKENMIX_NOINLINE void update_state(const T* TOKENMIX_RESTRICT keys, index_t key_stride, index_t rows, index_t writes,
                                    const T* TOKENMIX_RESTRICT values, row_factors<T, Keep> keep,
                                    T* TOKENMIX_RESTRICT state, simd::lines_ahead& ahead) {
  constexpr index_t R = simd::tile_rows(Vectors);
  constexpr index_t W = Vectors * simd::lanes<T>;
  index_t row = 0;
  for (; row + R <= rows; row += R) {
    ahead.fetch(lines_per_block);
    update_block<T, R, Vectors, Keep>(keys + row, key_stride, R, writes, values, keep, row, state + row * W);
  }
  for (; row < rows; row += 2) {
    update_block<T, 2, Vectors, Keep>(keys + row, key_stride, std::min<index_t>(2, rows - row), writes, values, keep,
                                      row, state + row * W);
  }
}

/// out (rows, width) = keys (rows, D) state, some rows of the state at a time so that they are found in L1.
template <class T, index_t Vectors>
void read_state(const T* keys, index_t key_stride, index_t rows, const T* state, index_t state_rows, T* out,
                simd::lines_ahead& ahead) {
  ahead.fetch(lines_per_block);
  constexpr index_t W = Vectors * simd::lanes<T>;
  constexpr index_t together = 64;
  for (index_t d = 0; d == 0 || d < state_rows; d += together) {
    simd::tile_product<T, Vectors>({keys + d, key_stride, 1}, rows, state + d * W, W,
                                   std::min(together, state_rows - d), out, W, d > 0);
  }
}

/// rows[i] *= scale[i].
template <class T, index_t Vectors, factor Kind>
TOKENMIX_NOINLINE void scale_rows(T* rows, index_t count, row_factors<T, Kind> scale) {
  constexpr index_t L = simd::lanes<T>;
  for (index_t i = 0; i < count; ++i) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      T* at = rows + (i * Vectors + v) * L;
      simd::store(at, simd::load(at) * scale.template at<Vectors>(i, v));
    });
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
