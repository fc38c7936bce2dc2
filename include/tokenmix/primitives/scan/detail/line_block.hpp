// SPDX-License-Identifier: Apache-2.0
/// @file One block of steps of lanes that lie apart in memory: squares of lanes and steps, transposed on the way in and out.
#pragma once

#include <tokenmix/primitives/scan/detail/row_block.hpp>
#include <tokenmix/primitives/scan/detail/squares.hpp>
#include <tokenmix/simd/prefetch.hpp>

#include <cstddef>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// As many steps, at most a block, of some lanes: lines side by side, or blocks of one line.
template <class Problem>
struct line_block {
  lanes_of_time<const typename Problem::E> in[Problem::in_parts];
  lanes_of_time<typename Problem::O> out[Problem::out_parts];
  index_t count = 0;  ///< lanes
  index_t steps = 0;

  /// Lane 0 begins at `place` of the line with these offsets; lanes are `apart` steps apart, or, where that is 0, lines.
  line_block(const Problem& p, const index_t* offsets, index_t place, index_t apart, index_t lanes, index_t length)
      : count(lanes), steps(length) {
    const auto describe = [&](auto& to, auto* data, std::size_t v) {
      const index_t step = p.segments.sign() * p.lines.step[v];
      to = {data + offsets[v] + place * p.lines.step[v], apart > 0 ? apart * step : p.lines.lane[v], step};
    };
    for (std::size_t k = 0; k < Problem::in_parts; ++k) describe(in[k], p.in[k], k);
    for (std::size_t k = 0; k < Problem::out_parts; ++k) describe(out[k], p.out[k], Problem::first_out + k);
  }

  /// Names what the block reads, in the order of memory.
  void ask_for(simd::lines_ahead& ahead) const {
    for (const auto& part : in) {
      if (!part.contiguous()) continue;
      const auto* first = part.first(0, steps);
      ahead.add(part.lane < 0 ? first + (count - 1) * part.lane : first, part.lane < 0 ? -part.lane : part.lane, count,
                steps);
    }
  }
};

/// Which lanes something comes before.
enum class carried { none, all, some };

/// What is done to a block: all of it, or the chains from its start, which are left in a tile, or what comes before it and the
/// chains of the tile.
enum class lane_pass { whole, chains, results };

/// Numbers of a tile: a value per lane for every step of a block, part after part.
template <class Problem>
inline constexpr index_t chain_tile_size = scan_block_steps * Problem::value_size;

/// The way through a block.
template <scan_kind Kind, lane_pass Pass, carried Carried, class Problem>
class lane_steps {
  using E = typename Problem::E;
  using O = typename Problem::O;
  using T = typename Problem::number;
  using X = typename Problem::X;
  using value = typename Problem::value;
  using packet = typename Problem::packet;
  static constexpr index_t L = Problem::lanes;
  static constexpr index_t square = L / packet::planes;  // steps
  static constexpr index_t row = packet::planes * L;     // numbers
  static constexpr index_t part = scan_block_steps * row;
  static constexpr std::size_t last = Problem::in_parts - 1;
  static constexpr bool reads = Pass != lane_pass::results;
  static constexpr bool writes = Pass != lane_pass::chains;

  /// Whether a square's values stay in registers, step by step: one part, or an affine map's two, as they lie in memory.
  static constexpr bool in_registers = cheap_operation<Problem> && packet::planes == 1 && L > 1 &&
                                       Problem::out_parts == 1 && std::is_same_v<E, T>&& std::is_same_v<O, T>;

 public:
  lane_steps(const Problem& p, const line_block<Problem>& block, T* tile, const value& carry, const simd::mask<T>& has,
             simd::lines_ahead& ahead, index_t lines_per_square)
      : p_(p),
        block_(block),
        tile_(tile),
        carry_(carry),
        has_(has),
        ahead_(ahead),
        lines_per_square_(lines_per_square) {}

  /// The chains at the end.
  value run() {
    index_t t = 0;
    if constexpr (in_registers) {
      if (all_steps_are(1)) t = whole_squares<1>();
      if (all_steps_are(-1)) t = whole_squares<-1>();
    }
    for (; t < block_.steps; t += square) any_square(t, std::min(square, block_.steps - t));
    return chain_;
  }

 private:
  bool all_steps_are(index_t step) const {
    bool all = block_.in[last].step == step && block_.out[0].step == step;
    for (std::size_t k = 0; k < last; ++k) all = all && (block_.in[k].step == step || block_.in[k].step == 0);
    return all;
  }

  TOKENMIX_ALWAYS_INLINE value select(const value& carried_over, const value& otherwise) const {
    const auto a = to_array<X>(carried_over);
    auto b = to_array<X>(otherwise);
    for (std::size_t k = 0; k < Problem::parts; ++k) b[k] = packet::select(has_, a[k], b[k]);
    return from_array<value>(b);
  }
  TOKENMIX_ALWAYS_INLINE value with_carry(const value& chain) const {
    if constexpr (Carried == carried::none) return chain;
    const value all = Problem::combine(p_.operation, carry_, chain);
    if constexpr (Carried == carried::some) return select(all, chain);
    return all;
  }
  TOKENMIX_ALWAYS_INLINE value at_start() const {
    if constexpr (Carried == carried::all) return carry_;
    const value identity = Problem::identity(p_.operation);
    if constexpr (Carried == carried::some) return select(carry_, identity);
    return identity;
  }

  /// The result of step t, which `first` says to be the first. x() is what is read for it. Stores may be to anything, as far as
  /// compilers know: what loops go through is not in members.
  template <class Read>
  TOKENMIX_ALWAYS_INLINE value step(bool first, index_t t, T* tile, value& chain, Read&& x) const {
    constexpr bool inclusive = Kind == scan_kind::inclusive;
    if constexpr (Pass == lane_pass::results) {
      if (!inclusive && first) return at_start();
      return with_carry(Problem::load_value(tile + (inclusive ? t : t - 1) * row, part));
    } else {
      constexpr scan_pass pass = Pass == lane_pass::chains ? scan_pass::totals
                                 : inclusive               ? scan_pass::inclusive
                                                           : scan_pass::exclusive;
      const value result = scan_step<pass, Problem>(
          p_.operation, first, Problem::template from_parts<typename Problem::in_operand>(p_.operation, x()), chain,
          [&](const value& so_far) TOKENMIX_LAMBDA_INLINE { return with_carry(so_far); },
          [&]() TOKENMIX_LAMBDA_INLINE { return at_start(); });
      if constexpr (Pass == lane_pass::chains) Problem::store_value(tile + t * row, chain, part);
      return result;
    }
  }

  /// All squares of whole registers of steps that ascend (or descend) by one; the result is their steps.
  template <index_t Step>
  index_t whole_squares() {
    alignas(64) T others[last == 0 || !reads ? 1 : last * static_cast<std::size_t>(L * L)];
    const auto row_of = [&](std::size_t k, index_t i)
                            TOKENMIX_LAMBDA_INLINE { return others + (static_cast<index_t>(k) * L + i) * L; };
    for (std::size_t k = 0; reads && k < last; ++k) {
      if (block_.in[k].step == 0) square_into_lanes<packet>(block_.in[k], 0, L, block_.count, row_of(k, 0));
    }
    const bool full = block_.count == L;
    const auto load = [&](const lanes_of_time<const E>& from, index_t at, auto& rows) TOKENMIX_LAMBDA_INLINE {
      if (full) {
        simd::load_transposed(from.at + at, from.lane, rows);
      } else {
        simd::load_transposed_n(from.at + at, from.lane, block_.count, L, rows);
      }
    };
    const lanes_of_time<O>& out = block_.out[0];
    const bool stream = full && p_.streams && packet::can_stream_to(out.first(0, L)) &&
                        packet::can_stream_to(out.first(0, L) + out.lane) && static_cast<index_t>(sizeof(T)) * L == 64;
    constexpr auto step_of_column = [](index_t c) { return Step > 0 ? c : L - 1 - c; };
    T* const tile = tile_;
    value chain{};
    index_t t = 0;
    for (; t + L <= block_.steps; t += L) {
      ahead_.fetch(lines_per_square_);
      const index_t at = Step > 0 ? t : -(t + L - 1);
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      for (std::size_t k = 0; reads && k < last; ++k) {
        if (block_.in[k].step == 0) continue;
        load(block_.in[k], at, rows);
        simd::unroll<L>([&](auto c) TOKENMIX_LAMBDA_INLINE { simd::store(row_of(k, step_of_column(c)), rows[c]); });
      }
      if constexpr (reads) load(block_.in[last], at, rows);
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        constexpr index_t c = step_of_column(i);
        const value result = step(i == 0 && t == 0, t + i, tile, chain, [&]() TOKENMIX_LAMBDA_INLINE {
          std::array<X, Problem::in_parts> x;
          for (std::size_t k = 0; k < last; ++k) x[k] = simd::load(row_of(k, i));
          x[last] = rows[c];
          return x;
        });
        if constexpr (writes) {
          rows[c] = Problem::template to_parts<typename Problem::out_operand>(p_.operation, result)[0];
        }
      });
      if constexpr (!writes) continue;
      simd::transpose(rows);
      T* to = out.at + at;
      const index_t lane = out.lane;  // read for every square: else its multiples are, from registers that values need
      if (stream) {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { simd::stream(to + i * lane, rows[i]); });
      } else if (full) {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { simd::store(to + i * lane, rows[i]); });
      } else {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
          if (i < block_.count) simd::store(to + i * lane, rows[i]);
        });
      }
    }
    chain_ = chain;
    return t;
  }

  /// Up to a square, of any lanes, steps and types, by way of memory.
  void any_square(index_t t, index_t n) {
    constexpr index_t size = L * L;
    alignas(64) T from[reads ? Problem::in_parts * static_cast<std::size_t>(size) : 1];
    alignas(64) T to[writes ? Problem::out_parts * static_cast<std::size_t>(size) : 1];
    for (std::size_t k = 0; reads && k < Problem::in_parts; ++k) {
      square_into_lanes<packet>(block_.in[k], t, n, block_.count, from + static_cast<index_t>(k) * size);
    }
    value chain = chain_;
    for (index_t i = 0; i < n; ++i) {
      const value result = step(i == 0 && t == 0, t + i, tile_, chain, [&]() TOKENMIX_LAMBDA_INLINE {
        std::array<X, Problem::in_parts> x;
        for (std::size_t k = 0; k < Problem::in_parts; ++k) {
          x[k] = packet::from_scratch(from + static_cast<index_t>(k) * size + i * row);
        }
        return x;
      });
      if constexpr (writes) {
        const auto y = Problem::template to_parts<typename Problem::out_operand>(p_.operation, result);
        for (std::size_t k = 0; k < Problem::out_parts; ++k) {
          packet::to_scratch(to + static_cast<index_t>(k) * size + i * row, y[k]);
        }
      }
    }
    chain_ = chain;
    for (std::size_t k = 0; writes && k < Problem::out_parts; ++k) {
      square_out_of_lanes<packet>(to + static_cast<index_t>(k) * size, t, n, block_.count, block_.out[k]);
    }
  }

  const Problem& p_;
  const line_block<Problem>& block_;
  T* tile_;
  const value carry_;
  const simd::mask<T> has_;
  simd::lines_ahead& ahead_;
  const index_t lines_per_square_;
  value chain_{};
};

/// A block of lanes, and meanwhile `ahead` is asked for, a part of it with every square. `chain` is left with the lanes' totals, but
/// for lane_pass::results. `carry` is what comes before the lanes, null where nothing does, and `has` the lanes for which something
/// does, null for all. `tile` holds chain_tile_size numbers; lane_pass::whole does without.
template <scan_kind Kind, lane_pass Pass, class Problem>
TOKENMIX_NOINLINE void scan_lanes(const Problem& p, const line_block<Problem>& block, simd::lines_ahead& ahead,
                                  typename Problem::number* chain, const typename Problem::number* carry,
                                  typename Problem::number* tile = nullptr,
                                  const simd::mask<typename Problem::number>* has = nullptr) {
  using T = typename Problem::number;
  constexpr auto lines = static_cast<index_t>(sizeof(T) * Problem::in_parts) * Problem::lanes * Problem::lanes / 64;
  constexpr index_t passes = Pass == lane_pass::whole ? 1 : 2;
  const auto run = [&](auto kind, const typename Problem::value& before,
                       const simd::mask<T>& lanes) TOKENMIX_LAMBDA_INLINE {
    constexpr carried which = decltype(kind)::value;
    const auto chains =
        lane_steps<Kind, Pass, which, Problem>(p, block, tile, before, lanes, ahead, (lines + passes - 1) / passes)
            .run();
    if constexpr (Pass != lane_pass::results) Problem::store_value(chain, chains);
  };
  const simd::mask<T> all = simd::first_lanes<T>(Problem::lanes);
  if constexpr (Pass != lane_pass::chains) {
    if (carry != nullptr) {
      // Where only memory is to be waited for, the selection is left out.
      if (cheap_operation<Problem> && has == nullptr) {
        run(std::integral_constant<carried, cheap_operation<Problem> ? carried::all : carried::some>{},
            Problem::load_value(carry), all);
      } else {
        run(std::integral_constant<carried, carried::some>{}, Problem::load_value(carry), has != nullptr ? *has : all);
      }
      return;
    }
  }
  run(std::integral_constant<carried, carried::none>{}, typename Problem::value{}, all);
}

/// One block of a segment for all lines of a tile that lie apart; as scan_rows.
template <scan_kind Kind, lane_pass Pass, class Problem>
void scan_lines_of_tile(const Problem& p, const row_tile& tile, simd::lines_ahead& ahead, index_t segment,
                        index_t first_step, typename Problem::number* chain, const typename Problem::number* carry,
                        typename Problem::number* chains) {
  constexpr index_t L = Problem::lanes;
  const index_t steps = p.segments.steps(segment);
  index_t offsets[Problem::views];
  // As many steps as a block has of as many lines as stand in lanes.
  const auto block_of = [&](index_t column, index_t step, index_t count) {
    for (std::size_t v = 0; v < Problem::views; ++v) offsets[v] = tile.offsets[v] + column * L * p.lines.lane[v];
    return line_block<Problem>(p, offsets, p.segments.place(segment, step), 0, count,
                               std::min(scan_block_steps, steps - step));
  };
  for (index_t column = 0; column < tile.columns; ++column) {
    if (p.large) {  // the block after the next one, of these lines or of those that follow
      ahead.clear();
      const index_t blocks = scan_segments::blocks_of(steps);
      const index_t later = first_step / scan_block_steps + 2;
      if (tile.columns > 1) {
        block_of(column + 2, first_step, L).ask_for(ahead);
      } else {
        block_of(later / blocks, later % blocks * scan_block_steps, L).ask_for(ahead);
      }
    }
    const index_t at = column * Problem::value_size;
    scan_lanes<Kind, Pass>(p, block_of(column, first_step, std::min(L, tile.width - column * L)), ahead, chain + at,
                           carry != nullptr ? carry + at : nullptr, chains);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
