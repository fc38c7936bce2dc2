// SPDX-License-Identifier: Apache-2.0
/// @file Steps of several lines into lanes and back, by transposing squares where the steps are contiguous.
#pragma once

#include <tokenmix/primitives/scan/detail/packet.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <complex>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What an element's numbers are stored as: E, and the parts of a complex number.
template <class E>
struct stored_number {
  using type = E;
};
template <class T>
struct stored_number<std::complex<T>> {
  using type = T;
};

/// Where column c of a square of `lanes` contiguous numbers goes, as a row of the tile, for steps that ascend or descend.
template <class Packet>
constexpr index_t row_of_column(index_t c, bool descending) {
  constexpr index_t planes = Packet::planes;
  return descending ? (Packet::lanes / planes - 1 - c / planes) * planes + c % planes : c;
}

/// Step t of lane i, element from[i][t * step], goes to lane i of row t of `to`, for t < steps[i], i < count.
template <class Packet, class E>
void steps_into_lanes(const E* const* from, index_t step, const index_t* steps, index_t count,
                      typename Packet::number* to) {
  using T = typename Packet::number;
  using N = typename stored_number<E>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  constexpr index_t square = L / planes;  // steps
  const index_t most = *std::max_element(steps, steps + count);
  for (index_t t = 0; t < most; t += square) {
    bool whole = step == 1 || step == -1;
    for (index_t i = 0; i < count; ++i) whole = whole && steps[i] - t >= square;
    if (whole || step == 1) {
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        const index_t n = i < count ? std::clamp<index_t>(steps[i] - t, 0, square) * planes : 0;
        const auto* p = i < count ? reinterpret_cast<const N*>(from[i] + (step > 0 ? t : -(t + square - 1))) : nullptr;
        rows[i] = n == L ? simd::load_as<T>(p) : n > 0 ? simd::load_as_n<T>(p, n) : simd::batch<T>(T(0));
      });
      simd::transpose(rows);
      simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
        simd::store(to + (t * planes + row_of_column<Packet>(c, step < 0)) * L, rows[c]);
      });
      continue;
    }
    for (index_t i = 0; i < count; ++i) {
      for (index_t s = t; s < std::min(t + square, steps[i]); ++s) {
        const N* p = reinterpret_cast<const N*>(from[i] + s * step);
        for (index_t plane = 0; plane < planes; ++plane) to[(s * planes + plane) * L + i] = simd::to<T>(p[plane]);
      }
    }
  }
}

/// The way back: lane i of row t goes to to[i][t * step].
template <class Packet, class O>
void steps_out_of_lanes(const typename Packet::number* from, index_t step, const index_t* steps, index_t count,
                        O* const* to) {
  using T = typename Packet::number;
  using N = typename stored_number<O>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  constexpr index_t square = L / planes;
  const index_t most = *std::max_element(steps, steps + count);
  for (index_t t = 0; t < most; t += square) {
    bool whole = step == 1 || step == -1;
    for (index_t i = 0; i < count; ++i) whole = whole && steps[i] - t >= square;
    if (whole || step == 1) {
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
        rows[c] = simd::load(from + (t * planes + row_of_column<Packet>(c, step < 0)) * L);
      });
      simd::transpose(rows);
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        const index_t n = i < count ? std::clamp<index_t>(steps[i] - t, 0, square) * planes : 0;
        if (n == 0) return;
        N* p = reinterpret_cast<N*>(to[i] + (step > 0 ? t : -(t + square - 1)));
        if (n == L) {
          simd::store_as(p, rows[i]);
        } else {
          simd::store_as_n(p, rows[i], n);
        }
      });
      continue;
    }
    for (index_t i = 0; i < count; ++i) {
      for (index_t s = t; s < std::min(t + square, steps[i]); ++s) {
        N* p = reinterpret_cast<N*>(to[i] + s * step);
        for (index_t plane = 0; plane < planes; ++plane) {
          p[plane] = simd::to<N>(from[(s * planes + plane) * L + i]);
        }
      }
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
