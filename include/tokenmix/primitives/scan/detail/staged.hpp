// SPDX-License-Identifier: Apache-2.0
/// @file Scans along contiguous time, or along any strides: blocks of steps are brought into lanes through scratch memory.
#pragma once

#include <tokenmix/primitives/scan/detail/carries.hpp>
#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/primitives/scan/detail/rows.hpp>
#include <tokenmix/primitives/scan/detail/squares.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Blocks are numbered line after line. `lanes` of them in a row, of one line or of several, are computed at a time,
/// one per lane.
template <scan_kind Kind, class Problem>
class staged_scan {
  using E = typename Problem::E;
  using O = typename Problem::O;
  using T = typename Problem::number;
  using X = typename Problem::X;
  using value = typename Problem::value;
  using packet = typename Problem::packet;
  using operation_type = std::remove_cvref_t<decltype(std::declval<const Problem&>().operation)>;
  static constexpr index_t L = Problem::lanes;
  static constexpr index_t planes = packet::planes;
  static constexpr index_t row = planes * L;               // numbers of one part at one step
  static constexpr index_t part = scan_block_steps * row;  // and at all steps of a block
  static constexpr auto V = static_cast<index_t>(Problem::views);
  static constexpr std::size_t most_parts = std::max({Problem::in_parts, Problem::parts, Problem::out_parts});

 public:
  /// Numbers of one line's value.
  static constexpr index_t numbers = static_cast<index_t>(Problem::parts) * planes;

  staged_scan(const Problem& p, scratch_frame& frame)
      : p_(p),
        chain_(p.operation, 1, p.segments.most_blocks(), frame),
        tile_(frame.take<T>(static_cast<index_t>(most_parts) * part)),
        carry_(frame.take<T>(Problem::value_size)),
        register_(frame.take<T>(Problem::value_size)),
        offsets_(frame.take<index_t>(L * V)) {}

  staged_scan(const staged_scan&) = delete;
  staged_scan& operator=(const staged_scan&) = delete;
  ~staged_scan() {
    if (p_.streams) simd::fence_after_stream();
  }

  /// Blocks [first, last) of all lines, which are whole segments, in one pass.
  void segments(index_t first, index_t last) {
    if (first < last) go_to(first);
    for (index_t i = first; i < last; i += L) {
      gather(std::min(L, last - i));
      local();
      for (index_t lane = 0; lane < count_; ++lane) {
        if (begins(lane)) start(lane);
        put_carry(lane, chain_.carry());
        read_total(lane);
        if (ends(lane)) {
          finish(lane, chain_.carry());
        } else {
          chain_.push(register_);
        }
      }
      write();
    }
  }

  void totals(index_t first, index_t last, T* to) {
    if (first < last) go_to(first);
    for (index_t i = first; i < last; i += L) {
      gather(std::min(L, last - i));
      local();
      for (index_t lane = 0; lane < count_; ++lane) {
        read_total(lane);
        for (index_t k = 0; k < numbers; ++k) to[(i + lane) * numbers + k] = register_[k * L];
      }
    }
  }

  /// Totals of all blocks of all lines become what comes before them.
  void carries(T* totals) {
    const index_t all = p_.lines.outer * p_.lines.width * p_.segments.total_blocks();
    go_to(0);
    for (index_t i = 0; i < all; ++i) {
      take_block(0);
      if (begins(0)) start(0);
      T* at = totals + i * numbers;
      fill_register(at);
      if (const T* carry = chain_.carry()) {
        for (index_t k = 0; k < numbers; ++k) at[k] = carry[k * L];
      }
      if (!ends(0)) chain_.push(register_);
    }
  }

  void apply(index_t first, index_t last, const T* carries) {
    if (first < last) go_to(first);
    for (index_t i = first; i < last; i += L) {
      gather(std::min(L, last - i));
      local();
      for (index_t lane = 0; lane < count_; ++lane) {
        const bool has = Problem::initial_state::given || !begins(lane);
        if (has) fill_register(carries + (i + lane) * numbers);
        put_carry(lane, has ? register_ : nullptr);
        if (ends(lane)) {
          T before[Problem::value_size];
          std::copy_n(register_, Problem::value_size, before);
          read_total(lane);
          finish(lane, has ? before : nullptr);
        }
      }
      write();
    }
  }

 private:
  bool begins(index_t lane) const { return block_[lane] == p_.segments.blocks[segment_[lane]]; }
  bool ends(index_t lane) const { return block_[lane] + 1 == p_.segments.blocks[segment_[lane] + 1]; }

  /// Block i of all lines is the next one.
  void go_to(index_t i) {
    line_ = i / p_.segments.total_blocks();
    next_block_ = i % p_.segments.total_blocks();
    next_segment_ = p_.segments.segment_of(next_block_);
    go_to_line();
  }
  void go_to_line() {
    p_.lines.offsets(line_ / p_.lines.width, line_offsets_);
    for (std::size_t v = 0; v < Problem::views; ++v) {
      line_offsets_[v] += line_ % p_.lines.width * p_.lines.lane[v];
    }
  }

  /// The next block, in a lane.
  void take_block(index_t lane) {
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
    block_[lane] = next_block_;
    segment_[lane] = next_segment_;
    steps_[lane] = p_.segments.steps_of_block(next_segment_, next_block_);
    place_[lane] =
        p_.segments.place(next_segment_, (next_block_ - p_.segments.blocks[next_segment_]) * scan_block_steps);
    std::copy_n(line_offsets_, V, offsets_ + lane * V);
    ++next_block_;
  }

  void gather(index_t count) {
    count_ = count;
    most_steps_ = 0;
    for (index_t lane = 0; lane < count; ++lane) {
      take_block(lane);
      most_steps_ = std::max(most_steps_, steps_[lane]);
    }
  }

  /// Chains from each block's own start.
  void local() {
    value chain{};
    const auto step_with = [&](index_t t, const X& last_part) TOKENMIX_LAMBDA_INLINE {
      std::array<X, Problem::in_parts> x;
      for (std::size_t k = 0; k + 1 < Problem::in_parts; ++k) {
        x[k] = packet::from_scratch(tile_ + static_cast<index_t>(k) * part + t * row);
      }
      x[Problem::in_parts - 1] = last_part;
      const value now = Problem::template from_parts<typename Problem::in_operand>(p_.operation, x);
      chain = t == 0 ? now : Problem::combine(p_.operation, chain, now);
      Problem::store_value(tile_ + t * row, chain, part);
    };
    constexpr index_t last_part = static_cast<index_t>(Problem::in_parts - 1) * part;
    const auto go_on = [&](index_t first, index_t last) TOKENMIX_LAMBDA_INLINE {
      for (index_t t = first; t < last; ++t) step_with(t, packet::from_scratch(tile_ + last_part + t * row));
    };
    [[maybe_unused]] const auto go_on_in_registers = [&](index_t first, const auto& rows) TOKENMIX_LAMBDA_INLINE {
      simd::unroll<L>([&](auto i) TOKENMIX_LAMBDA_INLINE { step_with(first + i, rows[i]); });
    };
    for (std::size_t k = 0; k < Problem::in_parts; ++k) {
      const E* from[static_cast<std::size_t>(L)];
      const index_t step = p_.segments.sign() * p_.lines.step[k];
      for (index_t lane = 0; lane < count_; ++lane) {
        from[lane] = p_.in[k] + offsets_[lane * V + static_cast<index_t>(k)] + place_[lane] * p_.lines.step[k];
      }
      if (p_.large && (step == 1 || step == -1)) touch_steps(from, step, steps_, count_);
      T* to = tile_ + static_cast<index_t>(k) * part;
      if (k + 1 < Problem::in_parts) {
        steps_into_lanes<packet>(from, step, steps_, count_, to, nullptr, [](index_t, index_t) {});
      } else if constexpr (planes == 1) {
        steps_into_lanes<packet>(from, step, steps_, count_, to, go_on_in_registers, go_on);
      } else {
        steps_into_lanes<packet>(from, step, steps_, count_, to, nullptr, go_on);
      }
    }
  }

  /// The total of a lane's block, in every lane of a register.
  void read_total(index_t lane) {
    const T* last = tile_ + (steps_[lane] - 1) * row + lane;
    for (index_t k = 0; k < numbers; ++k) {
      std::fill_n(register_ + k * L, L, last[k / planes * part + k % planes * L]);
    }
  }
  void fill_register(const T* from) {
    for (index_t k = 0; k < numbers; ++k) std::fill_n(register_ + k * L, L, from[k]);
  }
  void put_carry(index_t lane, const T* carry) {
    has_carry_[lane] = carry != nullptr ? T(1) : T(0);
    for (index_t k = 0; k < numbers; ++k) carry_[k * L + lane] = carry != nullptr ? carry[k * L] : T(0);
  }

  void write() {
    for (index_t lane = count_; lane < L; ++lane) put_carry(lane, nullptr);
    index_t with = 0;
    for (index_t lane = 0; lane < count_; ++lane) with += has_carry_[lane] > T(0) ? 1 : 0;
    const auto has = simd::load(has_carry_) > simd::batch<T>(T(0));
    const value carry = Problem::load_value(carry_);
    const auto after = [&](const value& carried, const value& local) TOKENMIX_LAMBDA_INLINE {
      const auto a = to_array<X>(carried);
      auto b = to_array<X>(local);
      for (std::size_t k = 0; k < Problem::parts; ++k) b[k] = packet::select(has, a[k], b[k]);
      return from_array<value>(b);
    };
    const value identity = Problem::identity(p_.operation);
    value before{};
    const auto step = [&](index_t t) TOKENMIX_LAMBDA_INLINE {
      const value chain = Problem::load_value(tile_ + t * row, part);
      value result;
      if constexpr (Kind == scan_kind::inclusive) {
        result = with == 0 ? chain : after(Problem::combine(p_.operation, carry, chain), chain);
      } else {
        result = t == 0      ? after(carry, identity)
                 : with == 0 ? before
                             : after(Problem::combine(p_.operation, carry, before), before);
        before = chain;
      }
      const auto x = Problem::template to_parts<typename Problem::out_operand>(p_.operation, result);
      for (std::size_t k = 0; k < Problem::out_parts; ++k) {
        packet::to_scratch(tile_ + static_cast<index_t>(k) * part + t * row, x[k]);
      }
    };
    O* to[Problem::out_parts][static_cast<std::size_t>(L)];
    index_t out_step[Problem::out_parts];
    bool stream = p_.streams && packet::template streams<O> && sizeof(T) * static_cast<std::size_t>(L) == 64;
    for (std::size_t k = 0; k < Problem::out_parts; ++k) {
      const std::size_t v = Problem::first_out + k;
      out_step[k] = p_.segments.sign() * p_.lines.step[v];
      for (index_t lane = 0; lane < count_; ++lane) {
        to[k][lane] = p_.out[k] + offsets_[lane * V + static_cast<index_t>(v)] + place_[lane] * p_.lines.step[v];
        stream = stream && out_step[k] == 1 && packet::can_stream_to(to[k][lane]);
      }
    }
    const index_t least = count_ < L ? 0 : *std::min_element(steps_, steps_ + count_);
    constexpr index_t square = L / planes;
    for (index_t t = 0; t < most_steps_; t += square) {
      const index_t last = std::min(t + square, most_steps_);
      for (index_t i = t; i < last; ++i) step(i);
      for (std::size_t k = 0; k < Problem::out_parts; ++k) {
        const T* from = tile_ + static_cast<index_t>(k) * part;
        if constexpr (packet::template streams<O>) {
          if (stream) {
            square_out_of_lanes<packet, true>(from, t, out_step[k], steps_, count_, least, to[k]);
            continue;
          }
        }
        square_out_of_lanes<packet, false>(from, t, out_step[k], steps_, count_, least, to[k]);
      }
    }
  }

  void start([[maybe_unused]] index_t lane) {
    if constexpr (Problem::initial_state::given) {
      Problem::store_value(register_, p_.load_initial(offsets_ + lane * V, segment_[lane], 1));
      for (index_t k = 0; k < numbers; ++k) std::fill_n(chain_.initial() + k * L, L, register_[k * L]);
    }
    chain_.restart(Problem::initial_state::given);
  }
  /// register_ holds the lane's total.
  void finish([[maybe_unused]] index_t lane, [[maybe_unused]] const T* carry) {
    if constexpr (Problem::final_state::given) {
      if (carry != nullptr) chain_.combine(carry, register_, register_);
      p_.store_final(offsets_ + lane * V, segment_[lane], 1, Problem::load_value(register_));
    }
  }

  const Problem& p_;
  carry_chain<Problem, operation_type> chain_;
  T* tile_;           // (parts, steps, planes, lanes)
  T* carry_;          // (parts, planes, lanes)
  T* register_;       // the same, one value in every lane
  index_t* offsets_;  // (lanes, views)
  index_t line_ = 0;
  index_t next_block_ = 0;
  index_t next_segment_ = 0;
  index_t line_offsets_[Problem::views];
  index_t count_ = 0;
  index_t most_steps_ = 0;
  index_t block_[static_cast<std::size_t>(L)];
  index_t segment_[static_cast<std::size_t>(L)];
  index_t steps_[static_cast<std::size_t>(L)];
  index_t place_[static_cast<std::size_t>(L)];
  alignas(64) T has_carry_[static_cast<std::size_t>(L)];
};

template <scan_kind Kind, class Problem, class Executor>
void run_staged(const Problem& p, Executor& on) {
  using scan_type = staged_scan<Kind, Problem>;
  using T = typename Problem::number;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t blocks = p.segments.total_blocks();
  const index_t lines = p.lines.outer * p.lines.width;
  const index_t all = lines * blocks;
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
