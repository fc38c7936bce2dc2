// SPDX-License-Identifier: Apache-2.0
/// @file The register-blocked matrix product under every mixer that has tiles.
#pragma once

#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/prefetch.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Registers side by side in the widest tile: its width in lanes is max_tile_vectors * lanes<T>.
///
/// A tile of r rows and v registers keeps r * v accumulators, v registers of B and one of A. It should have at least 8
/// accumulators (2 FMA ports x 4 cycles) and about as few loads as FMAs: 6 x 4 with 32 registers, 4 x 3 with 16.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t max_tile_vectors = 4;
#elif defined(__FMA__)
inline constexpr index_t max_tile_vectors = 3;
#else
inline constexpr index_t max_tile_vectors = 2;
#endif

/// Registers side by side in the tiles that long sequences are cut into.
inline constexpr index_t preferred_tile_vectors = max_tile_vectors;

/// Rows of the register tile that has `vectors` registers side by side.
constexpr index_t tile_rows(index_t vectors) {
#if defined(__AVX512F__) || defined(__aarch64__)
  return vectors == 4 ? 6 : 8;
#elif defined(__FMA__)
  return vectors == 3 ? 4 : vectors == 2 ? 6 : 8;
#else
  return vectors == 2 ? 4 : 6;  // without fma every product needs a register of its own
#endif
}

/// The left operand of a product: element (row, step) is data[row * row_stride + step * step_stride].
///
/// A left operand hands out the elements of some rows step by step: at<Rows>(row, valid) starts at step 0 with rows [row,
/// row + Rows) of which those from `valid` on repeat the last one; its [r] is the element, next() goes to the next step.
template <class T>
struct tile_rows_operand {
  const T* data;
  index_t row_stride;
  index_t step_stride;

  template <index_t Rows>
  struct elements {
    const T* row[static_cast<std::size_t>(Rows)];
    index_t at, stride;
    TOKENMIX_ALWAYS_INLINE T operator[](index_t r) const { return row[r][at]; }
    TOKENMIX_ALWAYS_INLINE void next() { at += stride; }
  };
  template <index_t Rows>
  TOKENMIX_ALWAYS_INLINE elements<Rows> at(index_t row, index_t valid) const {
    elements<Rows> e;
    const T* const first = data + row * row_stride;
    unroll<Rows>([&](auto r)
                     TOKENMIX_LAMBDA_INLINE { e.row[r] = first + std::min<index_t>(r, valid - 1) * row_stride; });
    e.at = 0;
    e.stride = step_stride;
    return e;
  }
};

/// A left operand whose rows lie anywhere: element (row, step) is rows[row][step].
template <class T>
struct tile_row_table {
  const T* const* rows;

  template <index_t Rows>
  using elements = typename tile_rows_operand<T>::template elements<Rows>;
  template <index_t Rows>
  TOKENMIX_ALWAYS_INLINE elements<Rows> at(index_t row, index_t valid) const {
    elements<Rows> e;
    unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { e.row[r] = rows[row + std::min<index_t>(r, valid - 1)]; });
    e.at = 0;
    e.stride = 1;
    return e;
  }
};

/// The transpose of one: element (row, step) is steps[step][row].
template <class T>
struct tile_step_table {
  const T* const* steps;

  template <index_t Rows>
  struct elements {
    index_t column[static_cast<std::size_t>(Rows)];
    const T* const* step;
    TOKENMIX_ALWAYS_INLINE T operator[](index_t r) const { return (*step)[column[r]]; }
    TOKENMIX_ALWAYS_INLINE void next() { ++step; }
  };
  template <index_t Rows>
  TOKENMIX_ALWAYS_INLINE elements<Rows> at(index_t row, index_t valid) const {
    elements<Rows> e;
    unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { e.column[r] = row + std::min<index_t>(r, valid - 1); });
    e.step = steps;
    return e;
  }
};

/// The last register of a tile's right operand is read whole.
struct full_width {};

namespace detail {

/// C (Rows, Vectors * lanes) = or += A (Rows, steps) * B (steps, Vectors * lanes); rows from `valid` on repeat the last
/// one and are not stored. One fma chain per element, steps ascending.
template <class T, index_t Rows, index_t Vectors, class Elements, class BE, class Last, class Ahead>
TOKENMIX_ALWAYS_INLINE void tile_block(Elements a, index_t valid, const BE* b, index_t b_stride, index_t steps, T* c,
                                       index_t c_stride, bool accumulate, Last last_width, Ahead& ahead) {
  constexpr index_t L = lanes<T>;
  batch<T> sum[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = batch<T>(T(0)); });
  });
  if (accumulate) {
    unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      if (r < valid)
        unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = load(c + r * c_stride + v * L); });
    });
  }
  for (index_t step = 0; step < steps; ++step) {
    batch<T> right[static_cast<std::size_t>(Vectors)];
    unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      if constexpr (std::is_same_v<Last, full_width> || v + 1 < Vectors) {
        right[v] = load_as<T>(b + v * L);
      } else {
        right[v] = load_as_n<T>(b + v * L, last_width);
      }
    });
    b += b_stride;
    ahead();
    unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      const batch<T> left(a[r]);
      unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = fma(left, right[v], sum[r][v]); });
    });
    a.next();
  }
  unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    if (r < valid) unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { store(c + r * c_stride + v * L, sum[r][v]); });
  });
}

/// tile_product for any left operand.
template <class T, index_t Vectors, class A, class BE, class Last, class Ahead>
TOKENMIX_NOINLINE void tile_product_of(A a, index_t rows, const BE* TOKENMIX_RESTRICT b, index_t b_stride,
                                       index_t steps, T* TOKENMIX_RESTRICT c, index_t c_stride, bool accumulate,
                                       Last last, Ahead ahead) {
  constexpr index_t R = tile_rows(Vectors);
  const auto block = [&](auto block_rows, index_t row) TOKENMIX_LAMBDA_INLINE {
    const index_t valid = std::min<index_t>(block_rows, rows - row);
    tile_block<T, block_rows, Vectors>(a.template at<block_rows>(row, valid), valid, b, b_stride, steps,
                                       c + row * c_stride, c_stride, accumulate, last, ahead);
  };
  index_t row = 0;
  for (; row + R <= rows; row += R) block(std::integral_constant<index_t, R>{}, row);
  if (rows - row > 4) {
    block(std::integral_constant<index_t, R>{}, row);
  } else if (rows - row > 2) {
    block(std::integral_constant<index_t, 4>{}, row);
  } else if (rows - row > 0) {
    block(std::integral_constant<index_t, 2>{}, row);
  }
}

}  // namespace detail

/// C = A B or C += A B, where B and C are Vectors registers wide.
///
///     c[i][w] = (accumulate ? c[i][w] : 0) + sum over s of a(i, s) * b[s][w]
///
/// Every element of C is one fma chain over ascending s, so its bits do not depend on how a product is cut into tiles, and
/// cutting the steps into several accumulating calls changes nothing. B may be of a storage type: it is widened in
/// registers. `last` is full_width, or how many lanes of the last register of B may be read (the rest counts as zero).
/// `ahead` is called once per step (see rows_ahead). C has room for whole registers. Rows of A beyond `rows` are not read.
template <class T, index_t Vectors, class BE, class Last = full_width, class Ahead = nothing_ahead>
TOKENMIX_ALWAYS_INLINE void tile_product(tile_rows_operand<T> a, index_t rows, const BE* TOKENMIX_RESTRICT b,
                                         index_t b_stride, index_t steps, T* TOKENMIX_RESTRICT c, index_t c_stride,
                                         bool accumulate, Last last = {}, Ahead ahead = {}) {
  detail::tile_product_of<T, Vectors>(a, rows, b, b_stride, steps, c, c_stride, accumulate, last, ahead);
}
template <class T, index_t Vectors, class BE>
TOKENMIX_ALWAYS_INLINE void tile_product(tile_row_table<T> a, index_t rows, const BE* b, index_t b_stride,
                                         index_t steps, T* c, index_t c_stride, bool accumulate) {
  detail::tile_product_of<T, Vectors>(a, rows, b, b_stride, steps, c, c_stride, accumulate, full_width{},
                                      nothing_ahead{});
}
template <class T, index_t Vectors, class BE>
TOKENMIX_ALWAYS_INLINE void tile_product(tile_step_table<T> a, index_t rows, const BE* b, index_t b_stride,
                                         index_t steps, T* c, index_t c_stride, bool accumulate) {
  detail::tile_product_of<T, Vectors>(a, rows, b, b_stride, steps, c, c_stride, accumulate, full_width{},
                                      nothing_ahead{});
}

/// Calls f with the constant `vectors`, 1 <= vectors <= max_tile_vectors.
template <class F>
TOKENMIX_ALWAYS_INLINE void with_tile_vectors(index_t vectors, F&& f) {
  unroll<max_tile_vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    if (vectors == v + 1) f(std::integral_constant<index_t, v + 1>{});
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
