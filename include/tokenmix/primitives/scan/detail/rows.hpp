// SPDX-License-Identifier: Apache-2.0
/// @file Scans of lines that go through the steps together: neighbours in memory, or as many as stand in lanes.
#pragma once

#include <tokenmix/primitives/scan/detail/carries.hpp>
#include <tokenmix/primitives/scan/detail/line_block.hpp>
#include <tokenmix/primitives/scan/detail/row_block.hpp>
#include <tokenmix/simd/stream.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

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
    if (p.apart) {
      // One register of lines at a time; several, if they have one block, for the sake of what every tile costs.
      const index_t columns = (p.lines.width + L - 1) / L;
      const index_t most_columns = p.segments.total_blocks() > 1 ? 1 : 8;
      const index_t each = std::clamp<index_t>(p.lines.outer * columns / (4 * workers), 1, most_columns);
      return {1, each * L, (columns + each - 1) / each};
    }
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

/// A tile's way through segments, with its states.
template <scan_kind Kind, class Problem>
class row_scan {
  using number = typename Problem::number;
  static constexpr scan_pass pass = Kind == scan_kind::inclusive ? scan_pass::inclusive : scan_pass::exclusive;

 public:
  row_scan(const Problem& p, const row_tile& tile, scratch_frame& frame)
      : p_(p),
        tile_(tile),
        chain_(p.operation, tile.runs * tile.columns, p.segments.most_blocks(), frame),
        manner_(manner_of(p, tile)),
        local_(frame.take<number>(chain_.size())),
        chains_(p.apart ? frame.take<number>(chain_tile_size<Problem>) : nullptr) {}
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
        step<pass>(segment, block, local_, chain_.carry());
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
      step<scan_pass::totals>(segment, block, to + block * size(), nullptr);
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
      step<pass>(segment, block, local_, carry);
      if (block + 1 == p_.segments.blocks[segment + 1]) finish(segment, carry);
    }
  }

 private:
  template <scan_pass Pass>
  void step(index_t segment, index_t block, number* chain, const number* carry) {
    const index_t first = (block - p_.segments.blocks[segment]) * scan_block_steps;
    const index_t steps = p_.segments.steps_of_block(segment, block);
    if constexpr (Problem::in_lanes) {
      if (p_.apart) {
        constexpr lane_pass lanes = Pass == scan_pass::totals ? lane_pass::chains : lane_pass::whole;
        scan_lines_of_tile<Kind, lanes>(p_, tile_, ahead_, segment, first, chain, carry, chains_);
        return;
      }
    }
    scan_rows<Pass>(p_, tile_, manner_, segment, first, steps, chain, carry);
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
    manner.stream = p.streams && cheap_operation<Problem>;
    if (p.apart) return manner;
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
  carry_chain<Problem> chain_;
  row_manner manner_;
  simd::lines_ahead ahead_;
  number* local_;
  number* chains_;
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
