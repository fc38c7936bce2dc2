// SPDX-License-Identifier: Apache-2.0
/// @file As many whole blocks of one line along contiguous time as there are lanes: squares that need no tails.
#pragma once

#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The two passes over the blocks. Lane i is the block that begins i * scan_block_steps steps after the first.
template <scan_kind Kind, class Problem>
struct whole_blocks {
  using E = typename Problem::E;
  using O = typename Problem::O;
  using T = typename Problem::number;
  using X = typename Problem::X;
  using value = typename Problem::value;
  using packet = typename Problem::packet;
  static constexpr index_t L = Problem::lanes;
  static constexpr index_t row = L;
  static constexpr index_t part = scan_block_steps * row;

  /// Whether registers hold the elements as they lie in memory.
  static constexpr bool available =
      Problem::in_lanes && packet::planes == 1 && L > 1 && std::is_same_v<E, T>&& std::is_same_v<O, T>;

  /// How an operand lies: where the first block's first step is, and the step, 1 or -1.
  template <class Element>
  struct lines_of_time {
    Element* at;
    index_t step;
  };

  /// Chains from each block's own start, into the tile: (parts, steps, lanes). Meanwhile what `ahead` points at is fetched.
  static void local(const Problem& p, const lines_of_time<const T> (&from)[Problem::in_parts],
                    const T* const (&ahead)[Problem::in_parts], T* tile) {
    constexpr std::size_t last = Problem::in_parts - 1;
    constexpr auto at_last = static_cast<index_t>(last) * part;
    value chain{};
    const auto step_with = [&](index_t t, const X& last_part) TOKENMIX_LAMBDA_INLINE {
      std::array<X, Problem::in_parts> x;
      for (std::size_t k = 0; k < last; ++k)
        x[k] = packet::from_scratch(tile + static_cast<index_t>(k) * part + t * row);
      x[last] = last_part;
      const value now = Problem::template from_parts<typename Problem::in_operand>(p.operation, x);
      chain = t == 0 ? now : Problem::combine(p.operation, chain, now);
      Problem::store_value(tile + t * row, chain, part);
    };
    const auto load = [&](auto step, std::size_t k, index_t t) TOKENMIX_LAMBDA_INLINE {
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      simd::load_transposed(from[k].at + (step < 0 ? -(t + L - 1) : t), step * scan_block_steps, rows);
      if constexpr (step > 0 && in_registers) {
        if (k == last) {
          simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { step_with(t + i, rows[i]); });
          return;
        }
      }
      T* to = tile + static_cast<index_t>(k) * part + (step < 0 ? t + L - 1 : t) * row;
      simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE { simd::store(to + c * step * row, rows[c]); });
    };
    for (index_t t = 0; t < scan_block_steps; t += L) {
      for (std::size_t k = 0; k < Problem::in_parts; ++k) {
        fetch(ahead[k], t, 0);
        if (from[k].step > 0) {
          load(along{}, k, t);
        } else {
          load(against{}, k, t);
        }
      }
      if (in_registers && from[last].step > 0) continue;
      for (index_t i = t; i < t + L; ++i) step_with(i, packet::from_scratch(tile + at_last + i * row));
    }
  }

  /// What comes before, where `has` says that something does, and the chains of the tile.
  template <bool Stream>
  static void write(const Problem& p, const T* tile, const value& carry, const simd::mask<T>& has,
                    const lines_of_time<T> (&to)[Problem::out_parts], const T* const (&ahead)[Problem::in_parts]) {
    const value identity = Problem::identity(p.operation);
    const auto after = [&](const value& carried, const value& otherwise) TOKENMIX_LAMBDA_INLINE {
      const auto a = to_array<X>(carried);
      auto b = to_array<X>(otherwise);
      for (std::size_t k = 0; k < Problem::parts; ++k) b[k] = packet::select(has, a[k], b[k]);
      return from_array<value>(b);
    };
    const auto result = [&](index_t t) TOKENMIX_LAMBDA_INLINE {
      if constexpr (Kind == scan_kind::exclusive) {
        if (t == 0) return after(carry, identity);
        --t;
      }
      const value chain = Problem::load_value(tile + t * row, part);
      return after(Problem::combine(p.operation, carry, chain), chain);
    };
    const auto parts_of = [&](index_t t) TOKENMIX_LAMBDA_INLINE {
      return Problem::template to_parts<typename Problem::out_operand>(p.operation, result(t));
    };
    alignas(64) T results[in_registers ? 1 : static_cast<std::size_t>(L * row) * Problem::out_parts];
    const auto store = [&](auto step, std::size_t k, index_t t) TOKENMIX_LAMBDA_INLINE {
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      const index_t first = step < 0 ? t + L - 1 : t;
      if constexpr (in_registers) {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { rows[i] = parts_of(first + i * step)[k]; });
      } else {
        const T* of_step = results + static_cast<index_t>(k) * (L * row) + (step < 0 ? L - 1 : 0) * row;
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { rows[i] = simd::load(of_step + i * step * row); });
      }
      simd::transpose(rows);
      T* at = to[k].at + first * step;
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        if constexpr (Stream) {
          simd::stream(at + i * step * scan_block_steps, rows[i]);
        } else {
          simd::store(at + i * step * scan_block_steps, rows[i]);
        }
      });
    };
    for (index_t t = 0; t < scan_block_steps; t += L) {
      for (std::size_t k = 0; k < Problem::in_parts; ++k) fetch(ahead[k], t, 1);
      for (index_t i = 0; !in_registers && i < L; ++i) {
        const auto x = parts_of(t + i);
        for (std::size_t k = 0; k < Problem::out_parts; ++k) {
          packet::to_scratch(results + (static_cast<index_t>(k) * L + i) * row, x[k]);
        }
      }
      for (std::size_t k = 0; k < Problem::out_parts; ++k) {
        if (to[k].step > 0) {
          store(along{}, k, t);
        } else {
          store(against{}, k, t);
        }
      }
    }
  }

 private:
  // A square's values stay in registers, step by step: one part, or an affine map's two. Larger ones, and pairs that an operation
  // makes of numbers, are combined in a loop, for the sake of the size of the code.
  static constexpr bool in_registers =
      Problem::out_parts == 1 && Problem::parts == Problem::in_parts && Problem::parts <= 2;
  // Constants, so that addresses are one register's and a constant.
  using along = std::integral_constant<index_t, 1>;
  using against = std::integral_constant<index_t, -1>;

  /// A square's share in one pass of `lanes` blocks, which lie in a row.
  static TOKENMIX_ALWAYS_INLINE void fetch(const T* ahead, index_t t, index_t half) {
    constexpr auto line = static_cast<index_t>(64 / sizeof(T));
    if (ahead == nullptr) return;
    ahead += half * (scan_block_steps * L / 2) + t * (L / 2);
    for (index_t i = 0; i < L * L / 2; i += line) __builtin_prefetch(ahead + i, 0, 2);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
