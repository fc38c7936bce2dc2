// SPDX-License-Identifier: Apache-2.0
/// @file Steps of several lines into lanes and back, by transposing squares where the steps are contiguous.
#pragma once

#include <tokenmix/primitives/scan/detail/packet.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
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

/// Where column c of a square of `lanes` contiguous numbers goes, as a row of the tile, for steps that ascend or descend.
template <class Packet>
constexpr index_t row_of_column(index_t c, bool descending) {
  constexpr index_t planes = Packet::planes;
  return descending ? (Packet::lanes / planes - 1 - c / planes) * planes + c % planes : c;
}

/// Whether lanes are as far from each other everywhere, and all are there: `distance` elements.
template <index_t L, class E>
bool evenly_spaced(E* const* at, index_t count, index_t& distance) {
  if (count < L) return false;
  distance = at[1] - at[0];
  for (index_t i = 2; i < L; ++i) {
    if (at[i] - at[i - 1] != distance) return false;
  }
  return true;
}

/// Step t of lane i, element from[i][t * step], goes to lane i of row t of `to`, for t < steps[i], i < count. After
/// every so many steps `done(first, last)` is called; or `use(first, rows)`, with whole squares that are not written.
template <class Packet, class E, class Use, class Done>
TOKENMIX_ALWAYS_INLINE void steps_into_lanes(const E* const* from, index_t step, const index_t* steps, index_t count,
                                             typename Packet::number* to, Use&& use, Done&& done) {
  using T = typename Packet::number;
  using N = typename stored_number<E>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  constexpr index_t square = L / planes;  // steps
  const index_t most = *std::max_element(steps, steps + count);
  const index_t least = count < L ? 0 : *std::min_element(steps, steps + count);
  const bool contiguous = step == 1 || step == -1;
  const bool descending = step < 0;
  index_t distance = 0;
  const bool even = std::is_same_v<N, T> && evenly_spaced<L>(from, count, distance);
  simd::batch<T> rows[static_cast<std::size_t>(L)];
  index_t t = 0;
  const auto put = [&] {
    simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
      simd::store(to + (t * planes + row_of_column<Packet>(c, descending)) * L, rows[c]);
    });
  };
  for (; contiguous && t + square <= least; t += square) {
    const index_t at = descending ? -(t + square - 1) : t;
    if (even) {
      if constexpr (std::is_same_v<N, T>) {
        simd::load_transposed(reinterpret_cast<const T*>(from[0] + at), distance * planes, rows);
      }
    } else {
      simd::unroll<L>(
          [&](auto i) TOKENMIX_LAMBDA_INLINE { rows[i] = simd::load_as<T>(reinterpret_cast<const N*>(from[i] + at)); });
      simd::transpose(rows);
    }
    if constexpr (!std::is_same_v<std::remove_cvref_t<Use>, std::nullptr_t>) {
      if (!descending) {
        use(t, rows);
        continue;
      }
    }
    put();
    done(t, t + square);
  }
  for (; t < most; t += square) {
    const index_t end = std::min(t + square, most);
    if (step == 1) {
      for (index_t i = 0; i < L; ++i) {
        const index_t n = i < count ? std::clamp<index_t>(steps[i] - t, 0, square) * planes : 0;
        rows[i] = n > 0 ? simd::load_as_n<T>(reinterpret_cast<const N*>(from[i] + t), n) : simd::batch<T>(T(0));
      }
      simd::transpose(rows);
      put();
      done(t, end);
      continue;
    }
    for (index_t i = 0; i < count; ++i) {
      for (index_t s = t; s < std::min(t + square, steps[i]); ++s) {
        const N* p = reinterpret_cast<const N*>(from[i] + s * step);
        for (index_t plane = 0; plane < planes; ++plane) to[(s * planes + plane) * L + i] = simd::to<T>(p[plane]);
      }
    }
    done(t, end);
  }
}

/// The way back for steps [t, t + lanes / planes) and those of them that lanes have: lane i of row t goes to to[i][t
/// * step]. `Stream` if all can_stream_to.
template <class Packet, bool Stream, class O>
TOKENMIX_ALWAYS_INLINE void square_out_of_lanes(const typename Packet::number* from, index_t t, index_t step,
                                                const index_t* steps, index_t count, index_t least, O* const* to) {
  using N = typename stored_number<O>::type;
  constexpr index_t L = Packet::lanes;
  constexpr index_t planes = Packet::planes;
  constexpr index_t square = L / planes;
  const bool contiguous = step == 1 || step == -1;
  simd::batch<typename Packet::number> rows[static_cast<std::size_t>(L)];
  const auto take = [&]() TOKENMIX_LAMBDA_INLINE {
    if (step == 1) {
      simd::load_transposed(from + t * planes * L, L, rows);
      return;
    }
    simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE {
      rows[c] = simd::load(from + (t * planes + row_of_column<Packet>(c, true)) * L);
    });
    simd::transpose(rows);
  };
  if (contiguous && t + square <= least) {
    const index_t at = step < 0 ? -(t + square - 1) : t;
    take();
    simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      auto* p = reinterpret_cast<N*>(to[i] + at);
      if constexpr (Stream) {
        simd::stream(p, rows[i]);
      } else {
        simd::store_as(p, rows[i]);
      }
    });
    return;
  }
  if (step == 1) {
    take();
    for (index_t i = 0; i < count; ++i) {
      const index_t n = std::clamp<index_t>(steps[i] - t, 0, square) * planes;
      if (n > 0) simd::store_as_n(reinterpret_cast<N*>(to[i] + t), rows[i], n);
    }
    return;
  }
  for (index_t i = 0; i < count; ++i) {
    for (index_t s = t; s < std::min(t + square, steps[i]); ++s) {
      N* p = reinterpret_cast<N*>(to[i] + s * step);
      for (index_t plane = 0; plane < planes; ++plane) p[plane] = simd::to<N>(from[(s * planes + plane) * L + i]);
    }
  }
}

/// Reads steps in the order of memory, so that they are near when they are needed in another.
template <class E>
void touch_steps(const E* const* from, index_t step, const index_t* steps, index_t count) {
  constexpr auto line = static_cast<index_t>(64 / sizeof(E));
  for (index_t i = 0; i < count; ++i) {
    for (index_t t = 0; t < steps[i]; t += line) {
      static_cast<void>(*reinterpret_cast<const volatile char*>(from[i] + t * step));
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
