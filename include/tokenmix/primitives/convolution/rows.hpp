// SPDX-License-Identifier: Apache-2.0
/// @file A short convolution over rows of channels: channels in the lanes, some rows at a time, whole rows one after the other.
#pragma once

#include <tokenmix/primitives/convolution/window.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/stream.hpp>
#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// A row is read again for every tap, from the caches: what comes from memory is one stream in and one out, which beats
// blocks of columns that walk through time.

/// Weights and biases of a block of channels, in the computing type: tap j of channel c is weights[j * stride + c].
template <class T>
struct convolution_weights {
  const T* weights = nullptr;  // (taps, stride)
  const T* bias = nullptr;     // (stride)
  index_t stride = 0;          ///< from tap to tap; whole registers of channels may be read
};

/// Rows that are convolved together: the taps of neighbours share what they read.
inline constexpr index_t convolution_rows = 4;

/// `Rows` tokens: of the first, tap j reads from[j]; of the next, from[shared + j], and so on.
///
/// With Taps > 0 the taps of neighbours are neighbours: their number is known and each row is read once. `Stream`: results go past
/// the caches.
template <index_t Taps, index_t Rows, bool Stream, class T, class E, class O, class Activation>
TOKENMIX_NOINLINE void convolve_row_block(const E* const* from, O* const* to, index_t taps,
                                          const convolution_weights<T>& w, index_t channels,
                                          const Activation& activation) {
  constexpr index_t L = simd::lanes<T>;
  const auto at = [&](index_t c, auto load, auto store) TOKENMIX_LAMBDA_INLINE {
    simd::batch<T> sum[static_cast<std::size_t>(Rows)];
    const simd::batch<T> bias = simd::load(w.bias + c);
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] = bias; });
    if constexpr (Taps > 0) {
      simd::batch<T> x[static_cast<std::size_t>(Rows + Taps - 1)];
      simd::unroll<Rows + Taps - 1>([&](auto i) TOKENMIX_LAMBDA_INLINE { x[i] = load(from[i] + c); });
      simd::unroll<Taps>([&](auto j) TOKENMIX_LAMBDA_INLINE {
        const simd::batch<T> weight = simd::load(w.weights + j * w.stride + c);
        simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] = simd::fma(weight, x[r + j], sum[r]); });
      });
    } else {
      for (index_t j = 0; j < taps; ++j) {
        const simd::batch<T> weight = simd::load(w.weights + j * w.stride + c);
        simd::unroll<Rows>(
            [&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r] = simd::fma(weight, load(from[r * taps + j] + c), sum[r]); });
      }
    }
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE { store(to[r] + c, activation(sum[r])); });
  };
  index_t c = 0;
  for (; c + L <= channels; c += L) {
    at(
        c, [](const E* p) TOKENMIX_LAMBDA_INLINE { return simd::load_as<T>(p); },
        [](O* p, const simd::batch<T>& y) TOKENMIX_LAMBDA_INLINE {
          if constexpr (Stream) {
            simd::stream(p, y);
          } else {
            simd::store_as(p, y);
          }
        });
  }
  if (const index_t n = channels - c; n > 0) {
    at(
        c, [n](const E* p) TOKENMIX_LAMBDA_INLINE { return simd::load_as_n<T>(p, n); },
        [n](O* p, const simd::batch<T>& y) TOKENMIX_LAMBDA_INLINE { simd::store_as_n(p, y, n); });
  }
}

/// Tokens [first, last): `row(t)` is where row t begins, for t from first - before to last + ahead; `result(t)` where its result
/// goes. From the last token to the first if `backwards`: then the results may overwrite the rows of causal taps. `streams`:
/// results should go past the caches where their addresses allow it; a fence is the caller's.
///
/// Scratch: `table`, of convolution_rows times taps pointers.
template <class T, class Row, class Result, class E, class Activation>
void convolve_rows(const convolution_taps& taps, const Row& row, const Result& result, index_t first, index_t last,
                   index_t channels, const convolution_weights<T>& w, const Activation& activation, bool backwards,
                   bool streams, const E** table) {
  using O = std::remove_pointer_t<decltype(result(first))>;
  constexpr index_t R = convolution_rows;
  const auto start = [&](index_t t, index_t j) { return row(t + j * taps.dilation - taps.before()); };
  const auto block = [&]<index_t Rows>(index_t t, std::integral_constant<index_t, Rows>) {
    O* to[static_cast<std::size_t>(Rows)];
    for (index_t r = 0; r < Rows; ++r) to[r] = result(t + r);
    const auto neighbours = [&]<index_t Taps>(std::integral_constant<index_t, Taps>) {
      for (index_t i = 0; i < Rows + Taps - 1; ++i) table[i] = start(t, i);
      if constexpr (std::is_same_v<O, T> && Rows > 1) {
        bool stream = streams;
        for (O* p : to) stream = stream && simd::can_stream_to(p);
        if (stream) return convolve_row_block<Taps, Rows, true, T>(table, to, Taps, w, channels, activation);
      }
      convolve_row_block<Taps, Rows, false, T>(table, to, Taps, w, channels, activation);
    };
    if (taps.dilation == 1 && taps.count == 4) return neighbours(std::integral_constant<index_t, 4>{});
    for (index_t r = 0; r < Rows; ++r)
      for (index_t j = 0; j < taps.count; ++j) table[r * taps.count + j] = start(t + r, j);
    convolve_row_block<0, Rows, false, T>(table, to, taps.count, w, channels, activation);
  };
  const index_t blocks = (last - first) / R, single = (last - first) % R;
  for (index_t i = 0; i < blocks; ++i)
    block(backwards ? last - (i + 1) * R : first + i * R, std::integral_constant<index_t, R>{});
  for (index_t i = 0; i < single; ++i)
    block(backwards ? first + single - 1 - i : last - single + i, std::integral_constant<index_t, 1>{});
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
