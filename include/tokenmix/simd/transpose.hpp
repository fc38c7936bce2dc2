// SPDX-License-Identifier: Apache-2.0
/// @file Transposes: a square of registers, and rows of memory to rows of lanes and back.
#pragma once

#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <bit>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

/// Numbers in one 128-bit part of a register, and parts in a register.
template <class T>
inline constexpr index_t part_lanes = static_cast<index_t>(16 / sizeof(T));
template <class T>
inline constexpr index_t parts = lanes<T> / part_lanes<T>;

// ---- what the instruction sets give ---------------------------------------------------------------------------------
//
// interleave_*   a0 b0 a1 b1 ... of the lower, the upper half of every part
// pair_*         a0 a1 b0 b1 of the lower pair, the upper pair of every part
// swap_parts     parts as a matrix: part j of rows[g * step] becomes part g of rows[j * step]
// join_parts     part k is what lies at at(k): 16 bytes, which need not be aligned and (on x86) may be of any type

#if defined(__AVX512F__)

TOKENMIX_ALWAYS_INLINE batch<float> interleave_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm512_unpacklo_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> interleave_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm512_unpackhi_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_low(batch<double> a, batch<double> b) {
  return batch<double>(_mm512_unpacklo_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_high(batch<double> a, batch<double> b) {
  return batch<double>(_mm512_unpackhi_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm512_shuffle_ps(a.data, b.data, 0x44));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm512_shuffle_ps(a.data, b.data, 0xee));
}

template <int Control>
TOKENMIX_ALWAYS_INLINE batch<float> choose_parts(batch<float> a, batch<float> b) {
  return batch<float>(_mm512_shuffle_f32x4(a.data, b.data, Control));
}
template <int Control>
TOKENMIX_ALWAYS_INLINE batch<double> choose_parts(batch<double> a, batch<double> b) {
  return batch<double>(_mm512_shuffle_f64x2(a.data, b.data, Control));
}

template <index_t Step, class T>
TOKENMIX_ALWAYS_INLINE void swap_parts(xsimd::batch<T, arch>* rows) {
  const batch<T> low01 = choose_parts<0x44>(rows[0], rows[Step]);
  const batch<T> high01 = choose_parts<0xee>(rows[0], rows[Step]);
  const batch<T> low23 = choose_parts<0x44>(rows[2 * Step], rows[3 * Step]);
  const batch<T> high23 = choose_parts<0xee>(rows[2 * Step], rows[3 * Step]);
  rows[0] = choose_parts<0x88>(low01, low23);
  rows[Step] = choose_parts<0xdd>(low01, low23);
  rows[2 * Step] = choose_parts<0x88>(high01, high23);
  rows[3 * Step] = choose_parts<0xdd>(high01, high23);
}

// An insertion of 16 bytes from memory is a load and a blend, which any vector port does; shuffles have one or two. Halves first: where
// registers of 64 bytes take two passes (Zen 4), this is a quarter less than four insertions into the whole register.
template <class T, class At>
TOKENMIX_ALWAYS_INLINE batch<T> join_parts(At&& at) {
  const auto half = [&](auto k) TOKENMIX_LAMBDA_INLINE {
    const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(reinterpret_cast<const float*>(at(k))));
    constexpr std::integral_constant<index_t, k + 1> next{};
    return _mm256_insertf128_ps(low, _mm_loadu_ps(reinterpret_cast<const float*>(at(next))), 1);
  };
  const __m256d low = _mm256_castps_pd(half(std::integral_constant<index_t, 0>{}));
  const __m256d high = _mm256_castps_pd(half(std::integral_constant<index_t, 2>{}));
  return std::bit_cast<batch<T>>(_mm512_insertf64x4(_mm512_castpd256_pd512(low), high, 1));
}

#elif defined(__AVX__)

TOKENMIX_ALWAYS_INLINE batch<float> interleave_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm256_unpacklo_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> interleave_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm256_unpackhi_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_low(batch<double> a, batch<double> b) {
  return batch<double>(_mm256_unpacklo_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_high(batch<double> a, batch<double> b) {
  return batch<double>(_mm256_unpackhi_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm256_shuffle_ps(a.data, b.data, 0x44));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm256_shuffle_ps(a.data, b.data, 0xee));
}

template <index_t Step>
TOKENMIX_ALWAYS_INLINE void swap_parts(batch<float>* rows) {
  const __m256 low = _mm256_permute2f128_ps(rows[0].data, rows[Step].data, 0x20);
  rows[Step] = batch<float>(_mm256_permute2f128_ps(rows[0].data, rows[Step].data, 0x31));
  rows[0] = batch<float>(low);
}
template <index_t Step>
TOKENMIX_ALWAYS_INLINE void swap_parts(batch<double>* rows) {
  const __m256d low = _mm256_permute2f128_pd(rows[0].data, rows[Step].data, 0x20);
  rows[Step] = batch<double>(_mm256_permute2f128_pd(rows[0].data, rows[Step].data, 0x31));
  rows[0] = batch<double>(low);
}

template <class T, class At>
TOKENMIX_ALWAYS_INLINE batch<T> join_parts(At&& at) {
  const auto part = [&](auto k) TOKENMIX_LAMBDA_INLINE {
    return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at(k))));
  };
  const __m256 low = _mm256_castps128_ps256(part(std::integral_constant<index_t, 0>{}));
  return std::bit_cast<batch<T>>(_mm256_insertf128_ps(low, part(std::integral_constant<index_t, 1>{}), 1));
}

#else

#if defined(__SSE2__)

TOKENMIX_ALWAYS_INLINE batch<float> interleave_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm_unpacklo_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> interleave_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm_unpackhi_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_low(batch<double> a, batch<double> b) {
  return batch<double>(_mm_unpacklo_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_high(batch<double> a, batch<double> b) {
  return batch<double>(_mm_unpackhi_pd(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_low(batch<float> a, batch<float> b) {
  return batch<float>(_mm_movelh_ps(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_high(batch<float> a, batch<float> b) {
  return batch<float>(_mm_movehl_ps(b.data, a.data));
}

#else  // AArch64

TOKENMIX_ALWAYS_INLINE batch<float> interleave_low(batch<float> a, batch<float> b) {
  return batch<float>(vzip1q_f32(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> interleave_high(batch<float> a, batch<float> b) {
  return batch<float>(vzip2q_f32(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_low(batch<double> a, batch<double> b) {
  return batch<double>(vzip1q_f64(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<double> interleave_high(batch<double> a, batch<double> b) {
  return batch<double>(vzip2q_f64(a.data, b.data));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_low(batch<float> a, batch<float> b) {
  return batch<float>(vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a.data), vreinterpretq_f64_f32(b.data))));
}
TOKENMIX_ALWAYS_INLINE batch<float> pair_high(batch<float> a, batch<float> b) {
  return batch<float>(vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a.data), vreinterpretq_f64_f32(b.data))));
}

#endif

template <index_t Step, class T>
TOKENMIX_ALWAYS_INLINE void swap_parts(xsimd::batch<T, arch>* /*rows*/) {}
template <class T, class At>
TOKENMIX_ALWAYS_INLINE batch<T> join_parts(At&& at) {
  const auto* p = at(std::integral_constant<index_t, 0>{});
#if defined(__SSE2__)
  return std::bit_cast<batch<T>>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  return load(p);
#endif
}

#endif

// ---- what is made of it ---------------------------------------------------------------------------------------------

/// Transposes the squares that each part of part_lanes registers makes.
TOKENMIX_ALWAYS_INLINE void transpose_parts(batch<float>* rows) {
  const batch<float> low01 = interleave_low(rows[0], rows[1]);
  const batch<float> high01 = interleave_high(rows[0], rows[1]);
  const batch<float> low23 = interleave_low(rows[2], rows[3]);
  const batch<float> high23 = interleave_high(rows[2], rows[3]);
  rows[0] = pair_low(low01, low23);
  rows[1] = pair_high(low01, low23);
  rows[2] = pair_low(high01, high23);
  rows[3] = pair_high(high01, high23);
}
TOKENMIX_ALWAYS_INLINE void transpose_parts(batch<double>* rows) {
  const batch<double> low = interleave_low(rows[0], rows[1]);
  rows[1] = interleave_high(rows[0], rows[1]);
  rows[0] = low;
}

}  // namespace detail

/// Lane j of rows[i] becomes lane i of rows[j].
///
/// Cost       AVX-512: 64 shuffles for 16 x 16 floats, 24 for 8 x 8 doubles; AVX: 24 and 8; SSE2, AArch64: 8 and 2.
template <class T>
TOKENMIX_ALWAYS_INLINE void transpose(xsimd::batch<T, arch> (&rows)[static_cast<std::size_t>(lanes<T>)]) {
  constexpr index_t per = detail::part_lanes<T>;
  unroll<detail::parts<T>>([&](auto g) TOKENMIX_LAMBDA_INLINE { detail::transpose_parts(&rows[g * per]); });
  unroll<per>([&](auto c) TOKENMIX_LAMBDA_INLINE { detail::swap_parts<per>(&rows[c]); });
}

/// Lane i of columns[j] becomes from[i * stride + j]: a square of memory, transposed while it is loaded.
///
/// Cost       the parts fall into place as they are loaded, which leaves half the shuffles of transpose().
template <class T>
TOKENMIX_ALWAYS_INLINE void load_transposed(const T* from, index_t stride,
                                            xsimd::batch<T, arch> (&columns)[static_cast<std::size_t>(lanes<T>)]) {
  constexpr index_t per = detail::part_lanes<T>;
  unroll<per>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    unroll<detail::parts<T>>([&](auto j) TOKENMIX_LAMBDA_INLINE {
      columns[j * per + i] =
          detail::join_parts<T>([&](auto k) TOKENMIX_LAMBDA_INLINE { return from + (k * per + i) * stride + j * per; });
    });
  });
  unroll<detail::parts<T>>([&](auto j) TOKENMIX_LAMBDA_INLINE { detail::transpose_parts(&columns[j * per]); });
}

/// The same for the first `rows` rows and `cols` columns; lanes from `rows` on are 0, and so are columns from `cols` on.
/// Elements are widened to T.
template <class T, class E>
TOKENMIX_ALWAYS_INLINE void load_transposed_n(const E* from, index_t stride, index_t rows, index_t cols,
                                              xsimd::batch<T, arch> (&columns)[static_cast<std::size_t>(lanes<T>)]) {
  unroll<lanes<T>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    columns[i] = i >= rows          ? batch<T>(T(0))
                 : cols >= lanes<T> ? load_as<T>(from + i * stride)
                                    : load_as_n<T>(from + i * stride, cols);
  });
  transpose(columns);
}

namespace detail {

template <class E, class T, class Scaled>
void transpose_in(const E* from, index_t row_stride, index_t rows, index_t cols, T* to, index_t to_stride,
                  Scaled&& scaled) {
  batch<T> columns[static_cast<std::size_t>(lanes<T>)];
  for (index_t r = 0; r < rows; r += lanes<T>) {
    for (index_t c = 0; c < cols; c += lanes<T>) {
      const E* block = from + r * row_stride + c;
      T* out = to + c * to_stride + r;
      const index_t valid_rows = std::min(rows - r, lanes<T>);
      const index_t valid_cols = std::min(cols - c, lanes<T>);
      if (valid_rows == lanes<T> && valid_cols == lanes<T>) {
        if constexpr (std::is_same_v<E, T>) {
          load_transposed(block, row_stride, columns);
        } else {
          load_transposed_n(block, row_stride, lanes<T>, lanes<T>, columns);
        }
        unroll<lanes<T>>([&](auto j) TOKENMIX_LAMBDA_INLINE { store(out + j * to_stride, scaled(columns[j])); });
      } else {
        load_transposed_n(block, row_stride, valid_rows, valid_cols, columns);
        const mask<T> valid = first_lanes<T>(valid_rows);
        unroll<lanes<T>>([&](auto j) TOKENMIX_LAMBDA_INLINE {
          if (j < valid_cols) store(out + j * to_stride, select(valid, scaled(columns[j]), batch<T>(T(0))));
        });
      }
    }
  }
}

template <class E, class T, class Scaled>
void transpose_out(const T* from, index_t from_stride, index_t rows, index_t cols, E* to, index_t row_stride,
                   Scaled&& scaled) {
  batch<T> lines[static_cast<std::size_t>(lanes<T>)];
  for (index_t r = 0; r < rows; r += lanes<T>) {
    for (index_t c = 0; c < cols; c += lanes<T>) {
      const T* block = from + c * from_stride + r;
      E* out = to + r * row_stride + c;
      const index_t valid_rows = std::min(rows - r, lanes<T>);
      const index_t valid_cols = std::min(cols - c, lanes<T>);
      if (valid_rows == lanes<T> && valid_cols == lanes<T>) {
        load_transposed(block, from_stride, lines);
        unroll<lanes<T>>([&](auto i)
                             TOKENMIX_LAMBDA_INLINE { store_as(out + i * row_stride, scaled(lines[i], r + i)); });
      } else {
        load_transposed_n(block, from_stride, valid_cols, valid_rows, lines);
        unroll<lanes<T>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
          if (i < valid_rows) store_as_n(out + i * row_stride, scaled(lines[i], r + i), valid_cols);
        });
      }
    }
  }
}

}  // namespace detail

/// Rows of channels to rows of lanes: to[c * to_stride + r] = scale * from[r * row_stride + c].
///
/// Shapes     from: (rows, cols), rows row_stride elements apart; to: (cols, rows), rows to_stride apart.
/// Aliasing   none.
/// Numerics   one product, rounded once; widening E to T is exact. The bits depend on the element alone.
/// Cost       rows * cols loads and stores; whole registers wherever both extents allow.
/// Errors     reads rows * cols elements and no byte more; writes lanes [rows, rows rounded up to lanes<T>) of every line
///            with zeros, so to_stride >= that.
template <class E, class T>
void transpose_in(const E* from, index_t row_stride, index_t rows, index_t cols, T* to, index_t to_stride, T scale) {
  const batch<T> factor(scale);
  detail::transpose_in(from, row_stride, rows, cols, to, to_stride,
                       [&](const batch<T>& x) TOKENMIX_LAMBDA_INLINE { return x * factor; });
}

/// The same without a scale.
template <class E, class T>
void transpose_in(const E* from, index_t row_stride, index_t rows, index_t cols, T* to, index_t to_stride) {
  detail::transpose_in(from, row_stride, rows, cols, to, to_stride,
                       [](const batch<T>& x) TOKENMIX_LAMBDA_INLINE { return x; });
}

/// Rows of lanes to rows of channels: to[r * row_stride + c] = from[c * from_stride + r] * row_scale[r].
///
/// Shapes     from: (cols, rows), rows from_stride elements apart; to: (rows, cols), rows row_stride apart;
///            row_scale: (rows).
/// Aliasing   none.
/// Numerics   one product and +0 in one fma: rounded once to T, once more to E, and -0 becomes +0.
/// Cost       as transpose_in.
/// Errors     reads and writes rows * cols elements and no byte more.
template <class E, class T>
void transpose_out(const T* from, index_t from_stride, index_t rows, index_t cols, E* to, index_t row_stride,
                   const T* row_scale) {
  detail::transpose_out(from, from_stride, rows, cols, to, row_stride,
                        [&](const batch<T>& x, index_t r)
                            TOKENMIX_LAMBDA_INLINE { return fma(x, batch<T>(row_scale[r]), batch<T>(T(0))); });
}

/// The same without a scale; -0 becomes +0 here too.
template <class E, class T>
void transpose_out(const T* from, index_t from_stride, index_t rows, index_t cols, E* to, index_t row_stride) {
  detail::transpose_out(from, from_stride, rows, cols, to, row_stride,
                        [](const batch<T>& x, index_t) TOKENMIX_LAMBDA_INLINE { return x + batch<T>(T(0)); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
