// SPDX-License-Identifier: Apache-2.0
/// @file Scans whose lines stand side by side in memory: rows of lanes, read and written as they lie.
#pragma once

#include <tokenmix/primitives/scan/detail/carries.hpp>
#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/simd/stream.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>

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

/// How the lines of a problem are cut into tiles.
template <class Problem>
struct row_tiles {
  index_t runs = 1;    ///< outer indices of a tile
  index_t width = 1;   ///< lines of a run
  index_t pieces = 1;  ///< tiles that share an outer index

  /// Wide enough that memory is read in long runs, narrow enough that the tile's states stay in the first cache and that
  /// every worker has a tile.
  static row_tiles of(const Problem& p, index_t workers) {
    constexpr index_t L = Problem::lanes;
    constexpr index_t most = std::max<index_t>(most_state_bytes / (Problem::value_size * number_bytes), 1) * L;
    const index_t lines = p.lines.outer * p.lines.width;
    const index_t share = workers == 1 ? most : std::clamp(lines / workers, std::min(least_lines, most), most);
    if (p.lines.width <= share) {
      // Neighbours in memory are one row; what lies steps away is better read when its turn comes.
      constexpr std::size_t main = Problem::in_parts - 1;
      const std::size_t last = p.lines.count - 1;
      const bool neighbours = p.lines.count > 0 && std::abs(p.lines.strides[main][last]) < std::abs(p.lines.step[main]);
      const index_t most_runs = neighbours ? p.lines.extents[last] : 1;
      return {std::clamp<index_t>(share / p.lines.width, 1, most_runs), p.lines.width, 1};
    }
    const index_t pieces = (p.lines.width + share - 1) / share;
    const index_t width = ((p.lines.width + pieces - 1) / pieces + L - 1) / L * L;
    return {1, width, (p.lines.width + width - 1) / width};
  }

  index_t count(const Problem& p) const { return (p.lines.outer + runs - 1) / runs * pieces; }

  row_tile tile(const Problem& p, index_t i, scratch_frame& frame) const {
    const index_t first = i / pieces * runs;
    const index_t lane = i % pieces * width;
    row_tile result;
    result.runs = std::min(runs, p.lines.outer - first);
    result.width = std::min(width, p.lines.width - lane);
    result.columns = (result.width + Problem::lanes - 1) / Problem::lanes;
    constexpr auto V = static_cast<index_t>(Problem::views);
    index_t* offsets = frame.take<index_t>(result.runs * V);
    for (index_t run = 0; run < result.runs; ++run) {
      p.lines.offsets(first + run, offsets + run * V);
      for (index_t v = 0; v < V; ++v) offsets[run * V + v] += lane * p.lines.lane[static_cast<std::size_t>(v)];
    }
    result.offsets = offsets;
    return result;
  }

 private:
  static constexpr index_t number_bytes = static_cast<index_t>(sizeof(typename Problem::number));
  static constexpr index_t most_state_bytes = 16384;  // of chains, and as much of carries
  static constexpr index_t least_lines = 128;
};

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
    const value x = load<Full, Same>(lane, n);
    if constexpr (Pass == scan_pass::exclusive) {
      if (first) {
        store<Full, Stream>(lane, n, carries ? carry : Problem::identity(p.operation));
      } else {
        store<Full, Stream>(lane, n, carries ? Problem::combine(p.operation, carry, chain) : chain);
      }
    }
    chain = first ? x : Problem::combine(p.operation, chain, x);
    if constexpr (Pass == scan_pass::inclusive) {
      store<Full, Stream>(lane, n, carries ? Problem::combine(p.operation, carry, chain) : chain);
    }
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
      row.template step<Pass, Full, Same, false>(lane + c * L, n, true, chains[c], carries, before[c]);
    });
    for (index_t t = 1; t < steps; ++t) {
      row.next_row();
      simd::unroll<Columns>([&](auto c) TOKENMIX_LAMBDA_INLINE {
        row.template step<Pass, Full, Same, false>(lane + c * L, n, false, chains[c], carries, before[c]);
      });
    }
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
/// What comes from memory comes soonest in its own order, row by row, with the chains in the first cache. What is in a cache is
/// taken in strips of a few registers, with the chains in registers.
template <scan_pass Pass, class Problem>
TOKENMIX_NOINLINE void scan_rows(const Problem& p, const row_tile& tile, row_manner manner, index_t segment,
                                 index_t first_step, index_t steps, typename Problem::number* chain,
                                 const typename Problem::number* carry) {
  using number = typename Problem::number;
  constexpr index_t L = Problem::lanes;
  constexpr auto V = static_cast<index_t>(Problem::views);
  constexpr index_t together = Problem::parts * Problem::packet::planes > 1 ? 2 : 4;
  constexpr bool may_stream = Problem::packet::template streams<typename Problem::O> && Pass != scan_pass::totals;
  constexpr bool may_repeat = Problem::in_lanes && Problem::in_parts > 1;
  const index_t place = p.segments.place(segment, first_step);
  const auto run_of = [&](index_t run, auto&& f) TOKENMIX_LAMBDA_INLINE {
    const index_t at = run * tile.columns * Problem::value_size;
    f(row_block<Problem>(p, tile.offsets + run * V, place), chain + at, carry != nullptr ? carry + at : nullptr);
  };
  // Whole registers and what is left of them.
  const auto rest = [&](const auto& block, index_t lane, number* own, const number* own_carry) TOKENMIX_LAMBDA_INLINE {
    for (; lane < tile.width; lane += L) {
      const index_t at = lane / L * Problem::value_size;
      block.template strip<Pass, 1, false, false>(lane, std::min(L, tile.width - lane), steps, own + at,
                                                  own_carry != nullptr ? own_carry + at : nullptr,
                                                  own_carry != nullptr);
    }
  };
  if (!manner.large) {
    with_constant(carry != nullptr, [&](auto carries) TOKENMIX_LAMBDA_INLINE {
      with_constant(may_repeat && !manner.same, [&](auto repeated) TOKENMIX_LAMBDA_INLINE {
        if constexpr (may_repeat || !repeated.value) {
          for (index_t run = 0; run < tile.runs; ++run) {
            run_of(run, [&](const auto& block, number* own, const number* own_carry) TOKENMIX_LAMBDA_INLINE {
              index_t lane = 0;
              for (; lane + together * L <= tile.width; lane += together * L) {
                const index_t at = lane / L * Problem::value_size;
                block.template strip<Pass, together, true, !repeated.value>(
                    lane, L, steps, own + at, carries ? own_carry + at : nullptr, carries.value);
              }
              rest(block, lane, own, own_carry);
            });
          }
        }
      });
    });
    return;
  }
  with_constant(carry != nullptr, [&](auto carries) TOKENMIX_LAMBDA_INLINE {
    with_constant(may_stream && manner.stream, [&](auto stream) TOKENMIX_LAMBDA_INLINE {
      if constexpr (may_stream || !stream.value) {
        for (index_t row = 0; row < steps; ++row) {
          const index_t at_row = p.segments.sign() * row;
          for (index_t run = 0; run < tile.runs; ++run) {
            const index_t at = run * tile.columns * Problem::value_size;
            row_block<Problem>(p, tile.offsets + run * V, place + at_row)
                .template columns<Pass, stream.value>(tile.width, row == 0, chain + at, carries ? carry + at : nullptr,
                                                      carries.value);
          }
        }
      }
    });
  });
  if (tile.width % L == 0) return;
  for (index_t run = 0; run < tile.runs; ++run) {
    run_of(run, [&](const auto& block, number* own, const number* own_carry)
                    TOKENMIX_LAMBDA_INLINE { rest(block, tile.width / L * L, own, own_carry); });
  }
}

/// A tile's way through segments, with its states.
template <scan_kind Kind, class Problem>
class row_scan {
  using number = typename Problem::number;
  using operation_type = std::remove_cvref_t<decltype(std::declval<const Problem&>().operation)>;
  static constexpr scan_pass pass = Kind == scan_kind::inclusive ? scan_pass::inclusive : scan_pass::exclusive;

 public:
  row_scan(const Problem& p, const row_tile& tile, scratch_frame& frame)
      : p_(p),
        tile_(tile),
        chain_(p.operation, tile.runs * tile.columns, p.segments.most_blocks(), frame),
        manner_(manner_of(p, tile)),
        local_(frame.take<number>(chain_.size())) {}
  row_scan(const row_scan&) = delete;
  row_scan& operator=(const row_scan&) = delete;
  ~row_scan() {
    if (manner_.stream) simd::fence_after_stream();
  }

  /// Numbers of a state of all lines.
  index_t size() const { return chain_.size(); }

  /// Blocks [first, last), which are whole segments, in one pass.
  void segments(index_t first, index_t last) {
    for (index_t block = first; block < last;) {
      const index_t segment = p_.segments.segment_of(block);
      start(segment);
      const index_t end = p_.segments.blocks[segment + 1];
      for (; block < end; ++block) {
        step(segment, block, chain_.carry());
        if (block + 1 < end) {
          chain_.push(local_);
        } else {
          finish(segment, chain_.carry());
        }
      }
    }
  }

  /// The totals of blocks [first, last).
  void totals(index_t first, index_t last, number* to) {
    for (index_t block = first; block < last; ++block) {
      const index_t segment = p_.segments.segment_of(block);
      if (block + 1 == p_.segments.blocks[segment + 1]) continue;  // nobody asks for it
      scan_rows<scan_pass::totals>(p_, tile_, manner_, segment,
                                   (block - p_.segments.blocks[segment]) * scan_block_steps,
                                   p_.segments.steps_of_block(segment, block), to + block * size(), nullptr);
    }
  }

  /// Totals of all blocks become what comes before them.
  void carries(number* totals) {
    number* total = local_;
    for (index_t segment = 0; segment < p_.segments.count; ++segment) {
      start(segment);
      for (index_t block = p_.segments.blocks[segment]; block < p_.segments.blocks[segment + 1]; ++block) {
        number* at = totals + block * size();
        std::copy_n(at, size(), total);
        if (chain_.carry() != nullptr) std::copy_n(chain_.carry(), size(), at);
        if (block + 1 < p_.segments.blocks[segment + 1]) chain_.push(total);
      }
    }
  }

  /// Blocks [first, last) with what comes before each of them.
  void apply(index_t first, index_t last, const number* carries) {
    for (index_t block = first; block < last; ++block) {
      const index_t segment = p_.segments.segment_of(block);
      const bool begins = block == p_.segments.blocks[segment];
      const number* carry = Problem::initial_state::given || !begins ? carries + block * size() : nullptr;
      step(segment, block, carry);
      if (block + 1 == p_.segments.blocks[segment + 1]) finish(segment, carry);
    }
  }

 private:
  void step(index_t segment, index_t block, const number* carry) {
    scan_rows<pass>(p_, tile_, manner_, segment, (block - p_.segments.blocks[segment]) * scan_block_steps,
                    p_.segments.steps_of_block(segment, block), local_, carry);
  }

  /// f(register, offsets of its first line, lines).
  template <class F>
  void for_each_register(F&& f) const {
    constexpr auto V = static_cast<index_t>(Problem::views);
    index_t offsets[Problem::views];
    for (index_t run = 0; run < tile_.runs; ++run) {
      for (index_t i = 0; i < tile_.columns; ++i) {
        for (std::size_t v = 0; v < Problem::views; ++v) {
          offsets[v] = tile_.offsets[run * V + static_cast<index_t>(v)] + i * Problem::lanes * p_.lines.lane[v];
        }
        f(run * tile_.columns + i, offsets, std::min(Problem::lanes, tile_.width - i * Problem::lanes));
      }
    }
  }

  void start([[maybe_unused]] index_t segment) {
    if constexpr (Problem::initial_state::given) {
      for_each_register([&](index_t i, const index_t* at, index_t n) {
        Problem::store_value(chain_.initial() + i * Problem::value_size, p_.load_initial(at, segment, n));
      });
    }
    chain_.restart(Problem::initial_state::given);
  }

  void finish([[maybe_unused]] index_t segment, [[maybe_unused]] const number* carry) {
    if constexpr (Problem::final_state::given) {
      if (carry != nullptr) chain_.combine(carry, local_, local_);
      for_each_register([&](index_t i, const index_t* at, index_t n) {
        p_.store_final(at, segment, n, Problem::load_value(local_ + i * Problem::value_size));
      });
    }
  }

  static row_manner manner_of(const Problem& p, const row_tile& tile) {
    constexpr auto V = static_cast<index_t>(Problem::views);
    row_manner manner;
    for (std::size_t k = 0; k < Problem::in_parts; ++k) manner.same = manner.same && p.lines.lane[k] != 0;
    manner.large = p.large;
    manner.stream = p.streams;
    for (index_t run = 0; run < tile.runs; ++run) {
      for (std::size_t k = 0; k < Problem::out_parts; ++k) {
        const std::size_t v = Problem::first_out + k;
        const auto* first = p.out[k] + tile.offsets[run * V + static_cast<index_t>(v)];
        manner.stream = manner.stream && Problem::packet::can_stream_to(first) &&
                        Problem::packet::can_stream_to(first + p.lines.step[v]);
      }
    }
    return manner;
  }

  const Problem& p_;
  const row_tile& tile_;
  carry_chain<Problem, operation_type> chain_;
  row_manner manner_;
  number* local_;
};

/// Blocks that whole segments take, cut into `parts` of about the same size: the first block of part i.
inline index_t first_of_part(const scan_segments& segments, index_t part, index_t parts) {
  return segments.next_start(part * segments.total_blocks() / parts);
}

template <scan_kind Kind, class Problem, class Executor>
void run_rows(const Problem& p, Executor& on) {
  using number = typename Problem::number;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t blocks = p.segments.total_blocks();
  const auto tiles = row_tiles<Problem>::of(p, workers);
  const index_t count = tiles.count(p);
  if (blocks == 0 || count == 0) return;
  const index_t parts = workers == 1 ? 1 : std::min(blocks, (4 * workers + count - 1) / count);
  const bool two_levels = workers > 1 && p.segments.most_blocks() * workers > blocks * count;
  // A task without state of its own per block: tiles, and parts of the blocks within them.
  const auto for_each_part = [&](auto&& f) {
    on.for_each(count * parts, [&](index_t task, index_t /*worker*/) {
      scratch_frame frame;
      const row_tile tile = tiles.tile(p, task / parts, frame);
      row_scan<Kind, Problem> scan(p, tile, frame);
      f(scan, task / parts, task % parts);
    });
  };
  if (!two_levels) {
    for_each_part([&](auto& scan, index_t, index_t part) {
      scan.segments(first_of_part(p.segments, part, parts), first_of_part(p.segments, part + 1, parts));
    });
    return;
  }
  scratch_frame frame;
  const index_t most = tiles.runs * ((tiles.width + Problem::lanes - 1) / Problem::lanes) * Problem::value_size;
  number* carries = frame.take<number>(count * blocks * most);
  const auto of_tile = [&](index_t tile) { return carries + tile * blocks * most; };
  for_each_part([&](auto& scan, index_t tile, index_t part) {
    scan.totals(part * blocks / parts, (part + 1) * blocks / parts, of_tile(tile));
  });
  on.for_each(count, [&](index_t i, index_t /*worker*/) {
    scratch_frame own;
    const row_tile tile = tiles.tile(p, i, own);
    row_scan<Kind, Problem>(p, tile, own).carries(of_tile(i));
  });
  for_each_part([&](auto& scan, index_t tile, index_t part) {
    scan.apply(part * blocks / parts, (part + 1) * blocks / parts, of_tile(tile));
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
