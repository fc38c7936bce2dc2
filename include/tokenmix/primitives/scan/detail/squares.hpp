// SPDX-License-Identifier: Apache-2.0
/// @file Steps of several lanes into registers and back, by transposing squares where the steps are contiguous.
#pragma once

#include <tokenmix/primitives/scan/detail/packet.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <complex>
#include <cstddef>

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

/// Where the steps of some lanes lie: step t of lane i is at[i * lane + t * step].
template <class E>
struct lanes_of_time {
  E* at = nullptr;
  index_t lane = 0;
  index_t step = 0;

  bool contiguous() const { return step == 1 || step == -1; }
  /// The first in memory of contiguous steps [t, t + n) of lane 0.
  TOKENMIX_ALWAYS_INLINE E* first(index_t t, index_t n) const { return at + (step < 0 ? -(t + n - 1) : t); }
};

/// The row of a square for number c of n contiguous steps that ascend or descend.
template <class Packet>
constexpr index_t row_of_column(index_t c, index_t n, bool descending) {
  constexpr index_t planes = Packet::planes;
  return descending ? (n - 1 - c / planes) * planes + c % planes : c;
}

/// Steps [t, t + n), n <= lanes / planes, to packets in a row; lanes from `count` on are 0.
template <class Packet, class E>
void square_into_lanes(const lanes_of_time<const E>& from, index_t t, index_t n, index_t count,
                       typename Packet::number* to) {
  using T = typename Packet::number;
  using N = typename stored_number<E>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  if (from.contiguous()) {
    simd::batch<T> rows[static_cast<std::size_t>(L)];
    simd::load_transposed_n(reinterpret_cast<const N*>(from.first(t, n)), from.lane * planes, count, n * planes, rows);
    simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
      if (c < n * planes) simd::store(to + row_of_column<Packet>(c, n, from.step < 0) * L, rows[c]);
    });
    return;
  }
  for (index_t s = 0; s < n; ++s) {
    for (index_t i = 0; i < L; ++i) {
      const N* p = reinterpret_cast<const N*>(from.at + (i < count ? i * from.lane : 0) + (t + s) * from.step);
      for (index_t plane = 0; plane < planes; ++plane) to[(s * planes + plane) * L + i] = simd::to<T>(p[plane]);
    }
  }
}

/// The way back, for lanes before `count`.
template <class Packet, class O>
void square_out_of_lanes(const typename Packet::number* from, index_t t, index_t n, index_t count,
                         const lanes_of_time<O>& to) {
  using T = typename Packet::number;
  using N = typename stored_number<O>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  if (to.contiguous()) {
    simd::batch<T> rows[static_cast<std::size_t>(L)];
    simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
      rows[c] = c < n * planes ? simd::load(from + row_of_column<Packet>(c, n, to.step < 0) * L) : simd::batch<T>(T(0));
    });
    simd::transpose(rows);
    N* first = reinterpret_cast<N*>(to.first(t, n));
    simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      if (i >= count) return;
      if (n * planes == L) {
        simd::store_as(first + i * to.lane * planes, rows[i]);
      } else {
        simd::store_as_n(first + i * to.lane * planes, rows[i], n * planes);
      }
    });
    return;
  }
  for (index_t s = 0; s < n; ++s) {
    for (index_t i = 0; i < count; ++i) {
      N* p = reinterpret_cast<N*>(to.at + i * to.lane + (t + s) * to.step);
      for (index_t plane = 0; plane < planes; ++plane) p[plane] = simd::to<N>(from[(s * planes + plane) * L + i]);
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
