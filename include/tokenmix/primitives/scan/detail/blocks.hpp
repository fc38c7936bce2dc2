// SPDX-License-Identifier: Apache-2.0
/// @file Scans of few lines along contiguous time: blocks of one line stand in lanes.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/primitives/scan/detail/carries.hpp>
#include <tokenmix/primitives/scan/detail/line_block.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A walk over the blocks of all lines, numbered line after line. As many whole blocks of a segment as there are lanes are
/// computed at a time: their chains, which stay in a tile; what comes before each of them; their results.
template <scan_kind Kind, class Problem>
class block_scan {
  using T = typename Problem::number;
  using value = typename Problem::value;
  using chain_type = carry_chain<Problem>;
  static constexpr index_t L = Problem::lanes;

 public:
  /// Numbers of one line's value.
  static constexpr index_t numbers = Problem::value_size / L;

  block_scan(const Problem& p, scratch_frame& frame)
      : p_(p),
        chain_(p.operation, 1, p.segments.most_blocks(), frame),
        tile_(frame.take<T>(chain_tile_size<Problem>)) {}
  block_scan(const block_scan&) = delete;
  block_scan& operator=(const block_scan&) = delete;
  ~block_scan() {
    if (p_.streams) simd::fence_after_stream();
  }

  /// Blocks [first, last) of all lines, which are whole segments, in one pass.
  void segments(index_t first, index_t last) {
    for (index_t i = first; i < last; i += count_) {
      go_to(i, last - i, [&] { return chain_.room(); });
      T carry[Problem::value_size];
      const T* before = chain_.carry();
      if (count_ == 1) {
        if (before != nullptr) std::copy_n(before, Problem::value_size, carry);
        lanes<lane_pass::whole>(before != nullptr ? carry : nullptr);
        spread(total_, 0);
        if (!ends()) chain_.push(total_);
      } else {
        const auto has = !simd::first_lanes<T>(before != nullptr ? 0 : 1);
        lanes<lane_pass::chains>();
        Problem::store_value(carry, chain_.push_lanes(Problem::load_value(total_), count_));
        lanes<lane_pass::results>(carry, before != nullptr ? nullptr : &has);
        spread(total_, count_ - 1);
        spread(carry, count_ - 1);
      }
      if (ends()) finish(before != nullptr || count_ > 1 ? carry : nullptr);
    }
  }

  /// The totals of blocks [first, last).
  void totals(index_t first, index_t last, T* to) {
    for (index_t i = first; i < last; i += count_) {
      go_to(i, last - i);
      lanes<lane_pass::chains>();
      for (index_t lane = 0; lane < count_; ++lane) {
        for (index_t k = 0; k < numbers; ++k) to[(i + lane) * numbers + k] = total_[k * L + lane];
      }
    }
  }

  /// Totals of all blocks of all lines become what comes before them.
  void carries(T* totals) {
    const index_t all = p_.lines.outer * p_.lines.width * p_.segments.total_blocks();
    for (index_t i = 0; i < all; ++i) {
      go_to(i, 1);
      T* at = totals + i * numbers;
      for (index_t k = 0; k < numbers; ++k) std::fill_n(total_ + k * L, L, at[k]);
      if (const T* carry = chain_.carry()) {
        for (index_t k = 0; k < numbers; ++k) at[k] = carry[k * L];
      }
      if (!ends()) chain_.push(total_);
    }
  }

  /// Blocks [first, last) with what comes before each of them.
  void apply(index_t first, index_t last, const T* carries) {
    for (index_t i = first; i < last; i += count_) {
      go_to(i, last - i);
      T carry[Problem::value_size]{};
      for (index_t lane = 0; lane < count_; ++lane) {
        for (index_t k = 0; k < numbers; ++k) carry[k * L + lane] = carries[(i + lane) * numbers + k];
      }
      const bool first_has = Problem::initial_state::given || !begins();
      const auto has = !simd::first_lanes<T>(first_has ? 0 : 1);
      const bool some = first_has || count_ > 1;
      lanes<lane_pass::chains>();
      lanes<lane_pass::results>(some ? carry : nullptr, first_has ? nullptr : &has);
      if (!ends()) continue;
      spread(total_, count_ - 1);
      spread(carry, count_ - 1);
      finish(some ? carry : nullptr);
    }
  }

 private:
  /// To block i of all lines and those after it that go with it: at most `most`, and at most room(), which is asked where the
  /// segment's chain is.
  template <class Room>
  void go_to(index_t i, index_t most, Room&& room) {
    const index_t line = i / p_.segments.total_blocks();
    if (line != line_) {
      line_ = line;
      p_.lines.offsets(line / p_.lines.width, offsets_);
      for (std::size_t v = 0; v < Problem::views; ++v) offsets_[v] += line % p_.lines.width * p_.lines.lane[v];
    }
    block_ = i % p_.segments.total_blocks();
    segment_ = p_.segments.segment_of(block_);
    first_step_ = (block_ - p_.segments.blocks[segment_]) * scan_block_steps;
    if (begins()) start();
    const index_t whole = (p_.segments.steps(segment_) - first_step_) / scan_block_steps;
    count_ = std::max<index_t>(std::min({whole, most, L, room()}), 1);
  }
  void go_to(index_t i, index_t most) {
    go_to(i, most, [] { return L; });
  }
  bool begins() const { return block_ == p_.segments.blocks[segment_]; }
  bool ends() const { return block_ + count_ == p_.segments.blocks[segment_ + 1]; }

  template <lane_pass Pass>
  void lanes(const T* carry = nullptr, const simd::mask<T>* has = nullptr) {
    const auto blocks_at = [&](index_t step, index_t count) {
      return line_block<Problem>(p_, offsets_, p_.segments.place(segment_, step), scan_block_steps, count,
                                 std::min(scan_block_steps, p_.segments.steps(segment_) - step));
    };
    if constexpr (Pass != lane_pass::results) {
      const index_t next = first_step_ + count_ * scan_block_steps;
      ahead_.clear();
      if (p_.large && next < p_.segments.steps(segment_)) blocks_at(next, L).ask_for(ahead_);
    }
    scan_lanes<Kind, Pass>(p_, blocks_at(first_step_, count_), ahead_, total_, carry, tile_, has);
  }

  /// One lane of a register of values, in all of them.
  static void spread(T* values, index_t lane) { Problem::store_value(values, chain_type::in_all_lanes(values, lane)); }

  void start() {
    if constexpr (Problem::initial_state::given) {
      Problem::store_value(chain_.initial(), p_.load_initial(offsets_, segment_, 1));
      spread(chain_.initial(), 0);
    }
    chain_.restart(Problem::initial_state::given);
  }
  /// total_ is the last block's, `carry` what comes before it; null: nothing.
  void finish([[maybe_unused]] const T* carry) {
    if constexpr (Problem::final_state::given) {
      if (carry != nullptr) chain_.combine(carry, total_, total_);
      p_.store_final(offsets_, segment_, 1, Problem::load_value(total_));
    }
  }

  const Problem& p_;
  chain_type chain_;
  T* tile_;
  simd::lines_ahead ahead_;
  index_t line_ = -1;
  index_t block_ = 0;
  index_t segment_ = 0;
  index_t first_step_ = 0;
  index_t count_ = 1;
  index_t offsets_[Problem::views];
  alignas(64) T total_[Problem::value_size];
};

/// Whether blocks of one line should stand in lanes, rather than lines: a register of lines takes as long as one of blocks, but
/// blocks go through their steps twice. In the caches lines of 16 blocks and their multiples, a power of two apart, are in each
/// other's way, which blocks are not; from memory lines come sooner.
template <class Problem>
bool few_lines(const Problem& p) {
  constexpr index_t L = Problem::lanes;
  const index_t blocks = p.segments.most_blocks();
  if (!p.large && p.segments.count == 1 && p.segments.steps(0) % (L * scan_block_steps) == 0) return true;
  if (p.lines.width >= L || blocks < 2) return false;
  return blocks >= L || 2 * p.lines.width < blocks;
}

template <scan_kind Kind, class Problem, class Executor>
void run_blocks(const Problem& p, Executor& on) {
  using scan_type = block_scan<Kind, Problem>;
  using T = typename Problem::number;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t blocks = p.segments.total_blocks();
  const index_t all = p.lines.outer * p.lines.width * blocks;
  if (all == 0) return;
  constexpr index_t L = Problem::lanes;
  const index_t parts = workers == 1 ? 1 : std::min((all + L - 1) / L, 4 * workers);
  const auto for_each_part = [&](auto&& f) {
    on.for_each(parts, [&](index_t part, index_t /*worker*/) {
      scratch_frame frame;
      scan_type scan(p, frame);
      f(scan, part);
    });
  };
  if (workers == 1 || p.segments.most_blocks() * workers <= all) {
    const auto first = [&](index_t part) {  // parts begin where segments do
      const index_t i = part * all / parts;
      return i / blocks * blocks + p.segments.next_start(i % blocks);
    };
    for_each_part([&](scan_type& scan, index_t part) { scan.segments(first(part), first(part + 1)); });
    return;
  }
  scratch_frame frame;
  T* carries = frame.take<T>(all * scan_type::numbers);
  for_each_part(
      [&](scan_type& scan, index_t part) { scan.totals(part * all / parts, (part + 1) * all / parts, carries); });
  scan_type(p, frame).carries(carries);
  for_each_part(
      [&](scan_type& scan, index_t part) { scan.apply(part * all / parts, (part + 1) * all / parts, carries); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
