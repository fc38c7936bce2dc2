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

/// The way through a block.
template <scan_pass Pass, carried Carried, class Problem>
class line_steps {
  using E = typename Problem::E;
  using O = typename Problem::O;
  using T = typename Problem::number;
  using X = typename Problem::X;
  using value = typename Problem::value;
  using packet = typename Problem::packet;
  static constexpr index_t L = Problem::lanes;
  static constexpr index_t square = L / packet::planes;  // steps
  static constexpr index_t row = packet::planes * L;     // numbers
  static constexpr std::size_t last = Problem::in_parts - 1;

  /// Whether a square's values stay in registers, step by step: one part, or an affine map's two, as they lie in memory.
  static constexpr bool in_registers = cheap_operation<Problem> && packet::planes == 1 && L > 1 &&
                                       Problem::out_parts == 1 && std::is_same_v<E, T> && std::is_same_v<O, T>;

 public:
  line_steps(const Problem& p, const line_block<Problem>& block, const value& carry, const simd::mask<T>& has,
             simd::lines_ahead& ahead)
      : p_(p), block_(block), carry_(carry), has_(has), ahead_(ahead) {}

  /// The chains at the end.
  value run() {
    index_t t = 0;
    if constexpr (in_registers) {
      if (block_.count == L) {
        if (all_steps_are(1)) t = whole_squares<1>();
        if (all_steps_are(-1)) t = whole_squares<-1>();
      }
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

  /// The result of a step.
  TOKENMIX_ALWAYS_INLINE value step(bool first, const value& x) {
    return scan_step<Pass, Problem>(
        p_.operation, first, x, chain_,
        [&](const value& chain) TOKENMIX_LAMBDA_INLINE {
          if constexpr (Carried == carried::none) return chain;
          const value all = Problem::combine(p_.operation, carry_, chain);
          if constexpr (Carried == carried::some) return select(all, chain);
          return all;
        },
        [&]() TOKENMIX_LAMBDA_INLINE {
          if constexpr (Carried == carried::all) return carry_;
          const value identity = Problem::identity(p_.operation);
          if constexpr (Carried == carried::some) return select(carry_, identity);
          return identity;
        });
  }

  /// All whole squares, of as many lanes as there are, whose steps ascend (or descend) by one; the result is their steps.
  template <index_t Step>
  index_t whole_squares() {
    constexpr auto lines_of_a_square = static_cast<index_t>(sizeof(T)) * L * L / 64;
    alignas(64) T others[last == 0 ? 1 : last * static_cast<std::size_t>(L * L)];
    const auto row_of = [&](std::size_t k, index_t i)
                            TOKENMIX_LAMBDA_INLINE { return others + (static_cast<index_t>(k) * L + i) * L; };
    for (std::size_t k = 0; k < last; ++k) {
      if (block_.in[k].step == 0) square_into_lanes<packet>(block_.in[k], 0, L, L, row_of(k, 0));
    }
    const bool stream = p_.streams && packet::can_stream_to(block_.out[0].first(0, L)) &&
                        packet::can_stream_to(block_.out[0].first(0, L) + block_.out[0].lane) &&
                        static_cast<index_t>(sizeof(T)) * L == 64;
    constexpr auto step_of_column = [](index_t c) { return Step > 0 ? c : L - 1 - c; };
    index_t t = 0;
    for (; t + L <= block_.steps; t += L) {
      ahead_.fetch(lines_of_a_square * static_cast<index_t>(Problem::in_parts));
      const index_t at = Step > 0 ? t : -(t + L - 1);
      simd::batch<T> rows[static_cast<std::size_t>(L)];
      for (std::size_t k = 0; k < last; ++k) {
        if (block_.in[k].step == 0) continue;
        simd::load_transposed(block_.in[k].at + at, block_.in[k].lane, rows);
        simd::unroll<L>(
            [&](auto c) TOKENMIX_LAMBDA_INLINE { simd::store(row_of(k, step_of_column(c)), rows[c]); });
      }
      simd::load_transposed(block_.in[last].at + at, block_.in[last].lane, rows);
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        constexpr index_t c = step_of_column(i);
        std::array<X, Problem::in_parts> x;
        for (std::size_t k = 0; k < last; ++k) x[k] = simd::load(row_of(k, i));
        x[last] = rows[c];
        const value result =
            step(i == 0 && t == 0, Problem::template from_parts<typename Problem::in_operand>(p_.operation, x));
        rows[c] = Problem::template to_parts<typename Problem::out_operand>(p_.operation, result)[0];
      });
      if constexpr (Pass == scan_pass::totals) continue;
      simd::transpose(rows);
      T* to = block_.out[0].at + at;
      const index_t lane = block_.out[0].lane;
      if (stream) {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { simd::stream(to + i * lane, rows[i]); });
      } else {
        simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { simd::store(to + i * lane, rows[i]); });
      }
    }
    return t;
  }

  /// Up to a square, of any lanes, steps and types, by way of memory.
  void any_square(index_t t, index_t n) {
    constexpr auto size = static_cast<std::size_t>(L * L);
    alignas(64) T from[Problem::in_parts * size];
    alignas(64) T to[Problem::out_parts * size];
    for (std::size_t k = 0; k < Problem::in_parts; ++k) {
      square_into_lanes<packet>(block_.in[k], t, n, block_.count, from + k * size);
    }
    for (index_t i = 0; i < n; ++i) {
      std::array<X, Problem::in_parts> x;
      for (std::size_t k = 0; k < Problem::in_parts; ++k) x[k] = packet::from_scratch(from + k * size + i * row);
      const value result =
          step(i == 0 && t == 0, Problem::template from_parts<typename Problem::in_operand>(p_.operation, x));
      if constexpr (Pass != scan_pass::totals) {
        const auto y = Problem::template to_parts<typename Problem::out_operand>(p_.operation, result);
        for (std::size_t k = 0; k < Problem::out_parts; ++k) packet::to_scratch(to + k * size + i * row, y[k]);
      }
    }
    if constexpr (Pass == scan_pass::totals) return;
    for (std::size_t k = 0; k < Problem::out_parts; ++k) {
      square_out_of_lanes<packet>(to + k * size, t, n, block_.count, block_.out[k]);
    }
  }

  const Problem& p_;
  const line_block<Problem>& block_;
  const value carry_;
  const simd::mask<T> has_;
  simd::lines_ahead& ahead_;
  value chain_{};
};

/// A block of lanes; `chain` is left with their totals. `carry` is what comes before them, null where nothing does, and `has`
/// the lanes for which something does, null for all.
template <scan_pass Pass, class Problem>
TOKENMIX_NOINLINE void scan_lanes(const Problem& p, const line_block<Problem>& block, simd::lines_ahead& ahead,
                                  typename Problem::number* chain, const typename Problem::number* carry,
                                  const simd::mask<typename Problem::number>* has = nullptr) {
  using value = typename Problem::value;
  using mask = simd::mask<typename Problem::number>;
  const auto run = [&](auto kind, const value& before, const mask& lanes) TOKENMIX_LAMBDA_INLINE {
    Problem::store_value(chain, line_steps<Pass, decltype(kind)::value, Problem>(p, block, before, lanes, ahead).run());
  };
  const mask all = simd::first_lanes<typename Problem::number>(Problem::lanes);
  if constexpr (Pass != scan_pass::totals) {
    if (carry != nullptr && has == nullptr) {
      run(std::integral_constant<carried, carried::all>{}, Problem::load_value(carry), all);
      return;
    }
    if (carry != nullptr) {
      run(std::integral_constant<carried, carried::some>{}, Problem::load_value(carry), *has);
      return;
    }
  }
  run(std::integral_constant<carried, carried::none>{}, value{}, all);
}

/// One block of a segment for all lines of a tile that lie apart; as scan_rows.
template <scan_pass Pass, class Problem>
void scan_lines_of_tile(const Problem& p, const row_tile& tile, simd::lines_ahead& ahead, index_t segment,
                        index_t first_step, index_t steps, typename Problem::number* chain,
                        const typename Problem::number* carry) {
  constexpr index_t L = Problem::lanes;
  constexpr auto V = static_cast<index_t>(Problem::views);
  index_t offsets[Problem::views];
  const auto block_of = [&](index_t run, index_t column, index_t step, index_t length) {
    for (std::size_t v = 0; v < Problem::views; ++v) {
      offsets[v] = tile.offsets[run * V + static_cast<index_t>(v)] + column * L * p.lines.lane[v];
    }
    return line_block<Problem>(p, offsets, p.segments.place(segment, step), 0, std::min(L, tile.width - column * L),
                               length);
  };
  const index_t left = p.segments.steps(segment) - first_step - steps;
  for (index_t run = 0; run < tile.runs; ++run) {
    for (index_t column = 0; column < tile.columns; ++column) {
      if (p.large) {  // the next registers of lines, or else their next block, or what follows the tile
        ahead.clear();
        if (column + 1 < tile.columns) {
          block_of(run, column + 1, first_step, steps).ask_for(ahead);
        } else if (left > 0) {
          block_of(run, 0, first_step + steps, std::min(left, scan_block_steps)).ask_for(ahead);
        } else {
          block_of(run, column + 1, 0, std::min(p.segments.steps(segment), scan_block_steps)).ask_for(ahead);
        }
      }
      const index_t at = (run * tile.columns + column) * Problem::value_size;
      scan_lanes<Pass>(p, block_of(run, column, first_step, steps), ahead, chain + at,
                       carry != nullptr ? carry + at : nullptr);
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
