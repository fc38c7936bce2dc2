// SPDX-License-Identifier: Apache-2.0
/// @file A few rows times the transpose of many, which are read as they lie and transposed in registers.
#pragma once

#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

/// Columns that a register per part makes of lanes<T> rows of BE at a time; 0 where rows cannot be read so.
template <class T, class BE>
inline constexpr index_t columns_at_a_time = std::is_same_v<T, BE> ? part_lanes<T> : 0;
#if defined(__SSE2__)
template <>
inline constexpr index_t columns_at_a_time<float, bfloat16> = 2 * part_lanes<float>;
#endif

/// Rows 0, per, 2 per, ... of lanes<T> rows; a compiler that takes them for one pointer keeps an address for every row on
/// the stack, which costs more than the transposition.
template <class BE, index_t Parts>
struct row_quads {
  const BE* at[static_cast<std::size_t>(Parts)];

  TOKENMIX_ALWAYS_INLINE row_quads(const BE* from, index_t step) {
    unroll<Parts>([&](auto k) TOKENMIX_LAMBDA_INLINE {
      at[k] = from + k * step;
      asm("" : "+r"(at[k]));
    });
  }
  TOKENMIX_ALWAYS_INLINE void advance(index_t columns) {
    unroll<Parts>([&](auto k) TOKENMIX_LAMBDA_INLINE { at[k] += columns; });
  }
};

/// Lane i of columns[j] becomes element j of row i.
template <class T>
TOKENMIX_ALWAYS_INLINE void load_columns(const row_quads<T, parts<T>>& rows, index_t stride, batch<T>* columns) {
  unroll<part_lanes<T>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    columns[i] = join_parts<T>([&](auto k) TOKENMIX_LAMBDA_INLINE { return rows.at[k] + i * stride; });
  });
  transpose_parts(columns);
}

#if defined(__SSE2__)
// Two numbers side by side are moved as one word, and come apart only then.
TOKENMIX_ALWAYS_INLINE void load_columns(const row_quads<bfloat16, parts<float>>& rows, index_t stride,
                                         batch<float>* columns) {
  constexpr index_t per = part_lanes<float>;
  batch<float> pairs[static_cast<std::size_t>(per)];
  unroll<per>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    pairs[i] = join_parts<float>([&](auto k) TOKENMIX_LAMBDA_INLINE { return rows.at[k] + i * stride; });
  });
  transpose_parts(pairs);
  unroll<per>([&](auto j) TOKENMIX_LAMBDA_INLINE {
    const words pair = bits_as<std::uint32_t>(pairs[j]);
    columns[2 * j] = bits_as<float>(pair << 16);
    columns[2 * j + 1] = bits_as<float>(pair & words(0xffff0000u));
  });
}
#endif

/// One column.
template <class T, class BE>
batch<T> load_column(const BE* from, index_t stride) {
  alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
  for (index_t i = 0; i < lanes<T>; ++i) numbers[i] = static_cast<T>(from[i * stride]);
  return load(numbers);
}

template <class T, index_t Rows, index_t Vectors, class BE, class Ahead>
TOKENMIX_ALWAYS_INLINE void transposed_block(const T* a, index_t a_stride, index_t valid, const BE* b, index_t b_stride,
                                             index_t steps, T* c, index_t c_stride, Ahead& ahead) {
  constexpr index_t L = lanes<T>;
  constexpr index_t group = columns_at_a_time<T, BE>;
  using quads = row_quads<BE, parts<T>>;
  batch<T> sum[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = batch<T>(T(0)); });
  });
  const auto add = [&](auto&& column_of) TOKENMIX_LAMBDA_INLINE {
    unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      const batch<T> left(a[r]);
      unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[r][v] = fma(left, column_of(v), sum[r][v]); });
    });
    a += a_stride;
  };
  const auto quads_of = [&](auto v)
                            TOKENMIX_LAMBDA_INLINE { return quads(b + v * L * b_stride, part_lanes<T> * b_stride); };
  const index_t whole = steps / group;
  [&]<index_t... V>(std::integer_sequence<index_t, V...>) TOKENMIX_LAMBDA_INLINE {
    quads rows[] = {quads_of(std::integral_constant<index_t, V>{})...};
    for (index_t n = 0; n < whole; ++n) {
      batch<T> columns[static_cast<std::size_t>(Vectors)][static_cast<std::size_t>(group)];
      unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        load_columns(rows[v], b_stride, columns[v]);
        rows[v].advance(group);
      });
      ahead();
      unroll<group>([&](auto g)
                        TOKENMIX_LAMBDA_INLINE { add([&](auto v) TOKENMIX_LAMBDA_INLINE { return columns[v][g]; }); });
    }
  }(std::make_integer_sequence<index_t, Vectors>{});
  for (index_t s = whole * group; s < steps; ++s) {
    add([&](auto v) TOKENMIX_LAMBDA_INLINE { return load_column<T>(b + v * L * b_stride + s, b_stride); });
  }
  unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    if (r < valid) unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { store(c + r * c_stride + v * L, sum[r][v]); });
  });
}

}  // namespace detail

/// Whether transposed_product takes right operands of type BE, and how many of their columns go through at a step.
template <class T, class BE>
inline constexpr bool has_transposed_product = detail::columns_at_a_time<T, BE> > 0;
template <class T, class BE>
inline constexpr index_t columns_per_step = detail::columns_at_a_time<T, BE>;

/// Rows of C that share one transposition.
inline constexpr index_t transposed_rows = 4;

/// C = A^T B^T, where C is Vectors registers wide and B has one row for each of its lanes.
///
///     c[i][w] = sum over s of a[s][i] * b[w][s]
///
/// Shapes     a: (steps, rows), rows a_stride apart, with room for rows rounded up to transposed_rows numbers (any finite
///            ones behind the last); b: (Vectors * lanes<T>, steps), rows b_stride apart, read as it lies.
/// Numerics   one fma chain per element over ascending s: the bits of tile_product over a transposed copy of b.
/// Cost       2 shuffles and 3 insertions for each register of columns (AVX-512) beside the products, once for every
///            transposed_rows rows of C; no stores but C's. `ahead` is called once per columns_per_step.
/// Errors     reads no byte outside the operands.
template <class T, index_t Vectors, class BE, class Ahead = nothing_ahead>
TOKENMIX_NOINLINE void transposed_product(const T* a, index_t a_stride, index_t rows, const BE* TOKENMIX_RESTRICT b,
                                          index_t b_stride, index_t steps, T* TOKENMIX_RESTRICT c, index_t c_stride,
                                          Ahead ahead = {}) {
  static_assert(has_transposed_product<T, BE>);
  for (index_t row = 0; row < rows; row += transposed_rows) {
    const auto block = [&](auto block_rows) TOKENMIX_LAMBDA_INLINE {
      detail::transposed_block<T, block_rows, Vectors>(a + row, a_stride, std::min<index_t>(block_rows, rows - row), b,
                                                       b_stride, steps, c + row * c_stride, c_stride, ahead);
    };
    if (rows - row > 1) {
      block(std::integral_constant<index_t, transposed_rows>{});
    } else {
      block(std::integral_constant<index_t, 1>{});
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
