// SPDX-License-Identifier: Apache-2.0
/// @file One block of steps of lines that stand side by side: chains from the block's start, and what comes before them.
#pragma once

#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What a pass over a block leaves: its total alone, or every step.
enum class scan_pass { totals, inclusive, exclusive };

/// Lines that go through the steps together: some runs of `width` neighbours.
struct row_tile {
  const index_t* offsets = nullptr;  ///< (runs, views) of each run's first line
  index_t runs = 0;
  index_t width = 0;
  index_t columns = 0;  ///< registers of a run
};

/// Whether a scan costs memory rather than arithmetic: its loops are then compiled for each case. What is lifted into
/// values of more parts, or has many, has exponentials.
template <class Problem>
inline constexpr bool cheap_operation = Problem::parts == Problem::in_parts && Problem::parts <= 2;

/// One step: chain becomes the chain up to it; the result is what is written for it. `first` says that the step begins its
/// block, with_carry(chain) puts what comes before the block in front, at_start() is what an exclusive scan begins with.
template <scan_pass Pass, class Problem, class WithCarry, class AtStart>
TOKENMIX_ALWAYS_INLINE typename Problem::value scan_step(const typename Problem::operation_type& operation, bool first,
                                                         const typename Problem::value& x,
                                                         typename Problem::value& chain, WithCarry&& with_carry,
                                                         AtStart&& at_start) {
  typename Problem::value result{};
  if constexpr (Pass == scan_pass::exclusive) result = first ? at_start() : with_carry(chain);
  chain = first ? x : Problem::combine(operation, chain, x);
  if constexpr (Pass == scan_pass::inclusive) result = with_carry(chain);
  return result;
}

/// A block of a run of lines: where its rows are, and what is done to a register of lines.
template <class Problem>
struct row_block {
  using X = typename Problem::X;
  using value = typename Problem::value;
  using number = typename Problem::number;
  using packet = typename Problem::packet;

  const Problem& p;
  std::array<const typename Problem::E*, Problem::in_parts> in{};
  std::array<typename Problem::O*, Problem::out_parts> out{};
  std::array<index_t, Problem::in_parts> in_step{};
  std::array<index_t, Problem::out_parts> out_step{};

  /// `place` is that of the block's first step along the scanned axis.
  TOKENMIX_ALWAYS_INLINE row_block(const Problem& problem, const index_t* offsets, index_t place) : p(problem) {
    for (std::size_t k = 0; k < Problem::in_parts; ++k) {
      in[k] = p.in[k] + offsets[k] + place * p.lines.step[k];
      in_step[k] = p.segments.sign() * p.lines.step[k];
    }
    for (std::size_t k = 0; k < Problem::out_parts; ++k) {
      const std::size_t v = Problem::first_out + k;
      out[k] = p.out[k] + offsets[v] + place * p.lines.step[v];
      out_step[k] = p.segments.sign() * p.lines.step[v];
    }
  }

  TOKENMIX_ALWAYS_INLINE void next_row() {
    for (std::size_t k = 0; k < Problem::in_parts; ++k) in[k] += in_step[k];
    for (std::size_t k = 0; k < Problem::out_parts; ++k) out[k] += out_step[k];
  }

  /// `Same`: no part is repeated along the lines.
  template <bool Full, bool Same>
  TOKENMIX_ALWAYS_INLINE value load(index_t lane, index_t n) const {
    std::array<X, Problem::in_parts> x;
    for (std::size_t k = 0; k < Problem::in_parts; ++k) {
      if constexpr (!Problem::in_lanes) {
        x[k] = packet::load(in[k] + lane * p.lines.lane[k]);
      } else if (!Same && k + 1 < Problem::in_parts && p.lines.lane[k] == 0) {
        x[k] = packet::broadcast(*in[k]);
      } else if constexpr (Full) {
        x[k] = packet::load(in[k] + lane);
      } else {
        x[k] = packet::load_n(in[k] + lane, n);
      }
    }
    return Problem::template from_parts<typename Problem::in_operand>(p.operation, x);
  }

  template <bool Full, bool Stream>
  TOKENMIX_ALWAYS_INLINE void store(index_t lane, index_t n, const value& v) const {
    const auto x = Problem::template to_parts<typename Problem::out_operand>(p.operation, v);
    for (std::size_t k = 0; k < Problem::out_parts; ++k) {
      if constexpr (!Problem::in_lanes) {
        packet::store(out[k] + lane * p.lines.lane[Problem::first_out + k], x[k]);
      } else if constexpr (Full && Stream) {
        packet::stream(out[k] + lane, x[k]);
      } else if constexpr (Full) {
        packet::store(out[k] + lane, x[k]);
      } else {
        packet::store_n(out[k] + lane, x[k], n);
      }
    }
  }

  /// One step of a register of lines; `first` says that it begins the block.
  template <scan_pass Pass, bool Full, bool Same, bool Stream>
  TOKENMIX_ALWAYS_INLINE void step(index_t lane, index_t n, bool first, value& chain, bool carries,
                                   const value& carry) const {
    const value result = scan_step<Pass, Problem>(
        p.operation, first, load<Full, Same>(lane, n), chain,
        [&](const value& so_far)
            TOKENMIX_LAMBDA_INLINE { return carries ? Problem::combine(p.operation, carry, so_far) : so_far; },
        [&]() TOKENMIX_LAMBDA_INLINE { return carries ? carry : Problem::identity(p.operation); });
    if constexpr (Pass != scan_pass::totals) store<Full, Stream>(lane, n, result);
  }

  /// All steps of some registers of lines, whose chains stay in registers.
  template <scan_pass Pass, index_t Columns, bool Full, bool Same>
  TOKENMIX_ALWAYS_INLINE void strip(index_t lane, index_t n, index_t steps, number* chain, const number* carry,
                                    bool carries) const {
    constexpr index_t L = Problem::lanes;
    row_block row = *this;
    value chains[static_cast<std::size_t>(Columns)];
    value before[static_cast<std::size_t>(Columns)];
    simd::unroll<Columns>([&](auto c) TOKENMIX_LAMBDA_INLINE {
      before[c] = carries ? Problem::load_value(carry + c * Problem::value_size) : value{};
      chains[c] = value{};
    });
    const auto all_columns = [&](bool first) TOKENMIX_LAMBDA_INLINE {
      if (!first) row.next_row();
      simd::unroll<Columns>([&](auto c) TOKENMIX_LAMBDA_INLINE {
        row.template step<Pass, Full, Same, false>(lane + c * L, n, first, chains[c], carries, before[c]);
      });
    };
    index_t t = 0;
    if constexpr (cheap_operation<Problem> && Full) {
      all_columns(true);
      t = 1;
    }
    for (; t < steps; ++t) all_columns((!cheap_operation<Problem> || !Full) && t == 0);
    simd::unroll<Columns>(
        [&](auto c) TOKENMIX_LAMBDA_INLINE { Problem::store_value(chain + c * Problem::value_size, chains[c]); });
  }

  /// One row of all whole registers of lines; the result is how many lines that are.
  template <scan_pass Pass, bool Stream>
  TOKENMIX_ALWAYS_INLINE index_t columns(index_t width, bool first, number* chain, const number* carry,
                                         bool carries) const {
    index_t lane = 0;
    for (; lane + Problem::lanes <= width; lane += Problem::lanes, chain += Problem::value_size) {
      value local = first ? value{} : Problem::load_value(chain);
      value before{};
      if (carries) {
        before = Problem::load_value(carry);
        carry += Problem::value_size;
      }
      step<Pass, true, false, Stream>(lane, Problem::lanes, first, local, carries, before);
      Problem::store_value(chain, local);
    }
    return lane;
  }
};

/// How a tile's rows are read and written, decided once.
struct row_manner {
  bool same = true;     ///< no part is repeated along the lines
  bool large = false;   ///< operands come from memory
  bool stream = false;  ///< the result is written past the caches
};

/// f(constant of `condition`).
template <class F>
TOKENMIX_ALWAYS_INLINE void with_constant(bool condition, F&& f) {
  if (condition) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

/// One block of a segment for all lines of a tile; `chain` is left with the block's totals.
///
/// What comes from memory comes soonest in its own order, row by row, with the chains in the first cache. What is in
/// a cache, or costs more than memory does, is taken in strips of a few registers, with the chains in registers.
template <scan_pass Pass, class Problem>
TOKENMIX_NOINLINE void scan_rows(const Problem& p, const row_tile& tile, row_manner manner, index_t segment,
                                 index_t first_step, index_t steps, typename Problem::number* chain,
                                 const typename Problem::number* carry) {
  using number = typename Problem::number;
  using block_type = row_block<Problem>;
  constexpr index_t L = Problem::lanes;
  constexpr auto V = static_cast<index_t>(Problem::views);
  constexpr index_t together = Problem::parts * Problem::packet::planes > 1 ? 2 : 4;
  constexpr bool cheap = cheap_operation<Problem>;
  constexpr bool may_stream =
      cheap && Problem::packet::template streams<typename Problem::O> && Pass != scan_pass::totals;
  constexpr bool may_repeat = Problem::in_lanes && Problem::in_parts > 1;
  const index_t place = p.segments.place(segment, first_step);
  const bool by_rows = cheap && manner.large;
  const index_t run_size = tile.columns * Problem::value_size;

  with_constant(cheap && carry != nullptr, [&](auto carries) TOKENMIX_LAMBDA_INLINE {
    const auto carry_at = [&](index_t at) TOKENMIX_LAMBDA_INLINE -> const number* {
      return carries || (!cheap && carry != nullptr) ? carry + at : nullptr;
    };
    if (by_rows) {
      with_constant(may_stream && manner.stream, [&](auto stream) TOKENMIX_LAMBDA_INLINE {
        if constexpr (cheap && (may_stream || !stream.value)) {
          for (index_t row = 0; row < steps; ++row) {
            for (index_t run = 0; run < tile.runs; ++run) {
              block_type(p, tile.offsets + run * V, place + p.segments.sign() * row)
                  .template columns<Pass, stream.value>(tile.width, row == 0, chain + run * run_size,
                                                        carry_at(run * run_size), carries.value);
            }
          }
        }
      });
      return;
    }
    with_constant(cheap && may_repeat && manner.same, [&](auto same) TOKENMIX_LAMBDA_INLINE {
      for (index_t run = 0; run < tile.runs; ++run) {
        const block_type block(p, tile.offsets + run * V, place);
        for (index_t lane = 0; lane + together * L <= tile.width; lane += together * L) {
          const index_t at = run * run_size + lane / L * Problem::value_size;
          const number* before = carry_at(at);
          block.template strip<Pass, together, true, same.value || !may_repeat>(
              lane, L, steps, chain + at, before, cheap ? carries.value : before != nullptr);
        }
      }
    });
  });

  // The registers that are left, and the lines that do not fill one.
  const index_t done = by_rows ? tile.width / L * L : tile.width / (together * L) * (together * L);
  for (index_t run = 0; run < tile.runs && done < tile.width; ++run) {
    const block_type block(p, tile.offsets + run * V, place);
    for (index_t lane = done; lane < tile.width; lane += L) {
      const index_t at = run * run_size + lane / L * Problem::value_size;
      block.template strip<Pass, 1, false, false>(lane, std::min(L, tile.width - lane), steps, chain + at,
                                                  carry != nullptr ? carry + at : nullptr, carry != nullptr);
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
