// SPDX-License-Identifier: Apache-2.0
/// @file Which blocks stand in lanes together.
#pragma once

#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/primitives/scan/detail/whole_blocks.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>  // std::abs

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A walk over all blocks, numbered line after line; those that were taken last stand in lanes.
template <class Problem>
class staged_blocks {
  static constexpr index_t L = Problem::lanes;
  static constexpr auto V = static_cast<index_t>(Problem::views);

 protected:
  staged_blocks(const Problem& p, scratch_frame& frame)
      : p_(p),
        offsets_(frame.take<index_t>(L * V)),
        contiguous_(whole_blocks<scan_kind::inclusive, Problem>::available) {
    for (std::size_t k = 0; k < Problem::in_parts + Problem::out_parts; ++k) {
      contiguous_ = contiguous_ && std::abs(p.lines.step[k]) == 1;
    }
  }

  bool begins(index_t lane) const { return block_[lane] == p_.segments.blocks[segment_[lane]]; }
  bool ends(index_t lane) const { return block_[lane] + 1 == p_.segments.blocks[segment_[lane] + 1]; }

  /// Block i of all lines is the next one.
  void go_to(index_t i) {
    line_ = i / p_.segments.total_blocks();
    next_block_ = i % p_.segments.total_blocks();
    next_segment_ = p_.segments.segment_of(next_block_);
    go_to_line();
  }

  /// The next block, in a lane.
  void take_block(index_t lane) {
    settle();
    block_[lane] = next_block_;
    segment_[lane] = next_segment_;
    steps_[lane] = p_.segments.steps_of_block(next_segment_, next_block_);
    place_[lane] =
        p_.segments.place(next_segment_, (next_block_ - p_.segments.blocks[next_segment_]) * scan_block_steps);
    std::copy_n(line_offsets_, V, offsets_ + lane * V);
    ++next_block_;
  }

  /// The next `most` blocks, or as many as there are lanes; of one segment only if others have whole_blocks.
  void gather(index_t most) {
    most = std::min(most, L);
    most_steps_ = 0;
    for (count_ = 0; count_ < most; ++count_) {
      const index_t lane = count_;
      if (contiguous_ && lane > 0 && ends(lane - 1) && p_.segments.most_blocks() >= L) break;
      take_block(lane);
      most_steps_ = std::max(most_steps_, steps_[lane]);
    }
  }

  /// Takes the next blocks if these are whole ones of one segment, as many as there are lanes, all contiguous.
  bool gather_whole(index_t left, index_t room) {
    if (!contiguous_ || std::min(left, room) < L) return false;
    settle();
    const index_t last = next_block_ + L - 1;
    if (last >= p_.segments.blocks[next_segment_ + 1]) return false;
    if (p_.segments.steps_of_block(next_segment_, last) != scan_block_steps) return false;
    count_ = L;
    take_block(0);
    for (index_t lane = 1; lane < L; ++lane) {
      block_[lane] = block_[0] + lane;
      segment_[lane] = segment_[0];
      steps_[lane] = scan_block_steps;
      std::copy_n(offsets_, V, offsets_ + lane * V);
    }
    next_block_ = last + 1;
    return true;
  }

  const Problem& p_;
  index_t* offsets_;  // (lanes, views)
  index_t count_ = 0;
  index_t most_steps_ = 0;
  index_t block_[static_cast<std::size_t>(L)];
  index_t segment_[static_cast<std::size_t>(L)];
  index_t steps_[static_cast<std::size_t>(L)];
  index_t place_[static_cast<std::size_t>(L)];
  index_t next_block_ = 0;

 private:
  void go_to_line() {
    p_.lines.offsets(line_ / p_.lines.width, line_offsets_);
    for (std::size_t v = 0; v < Problem::views; ++v) {
      line_offsets_[v] += line_ % p_.lines.width * p_.lines.lane[v];
    }
  }

  /// To the line and the segment of the next block.
  void settle() {
    if (next_block_ == p_.segments.total_blocks()) {
      ++line_;
      next_block_ = 0;
      next_segment_ = 0;
      if (line_ % p_.lines.width == 0) {
        go_to_line();
      } else {
        for (std::size_t v = 0; v < Problem::views; ++v) line_offsets_[v] += p_.lines.lane[v];
      }
    }
    while (next_block_ == p_.segments.blocks[next_segment_ + 1]) ++next_segment_;  // some are empty
  }

  bool contiguous_;  // steps of all operands are 1 or -1 elements
  index_t line_ = 0;
  index_t next_segment_ = 0;
  index_t line_offsets_[Problem::views];
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
