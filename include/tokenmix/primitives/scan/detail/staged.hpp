// SPDX-License-Identifier: Apache-2.0
/// @file Scans along contiguous time, or along any strides: blocks of steps are brought into lanes through scratch memory.
#pragma once

#include <tokenmix/primitives/scan/detail/carries.hpp>
#include <tokenmix/primitives/scan/detail/problem.hpp>
#include <tokenmix/primitives/scan/detail/rows.hpp>
#include <tokenmix/primitives/scan/detail/squares.hpp>
#include <tokenmix/primitives/scan/detail/staged_blocks.hpp>
#include <tokenmix/primitives/scan/detail/whole_blocks.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// `lanes` blocks in a row, of one line or of several, are computed at a time, one per lane.
template <scan_kind Kind, class Problem>
class staged_scan : staged_blocks<Problem> {
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
  using whole = whole_blocks<Kind, Problem>;
  static constexpr std::size_t most_parts = std::max({Problem::in_parts, Problem::parts, Problem::out_parts});

  using blocks = staged_blocks<Problem>;
  using blocks::begins, blocks::ends, blocks::gather, blocks::gather_whole, blocks::go_to, blocks::take_block;
  using blocks::p_, blocks::count_, blocks::most_steps_, blocks::block_, blocks::segment_, blocks::steps_,
      blocks::place_, blocks::offsets_, blocks::next_block_;

 public:
  /// Numbers of one line's value.
  static constexpr index_t numbers = static_cast<index_t>(Problem::parts) * planes;

  staged_scan(const Problem& p, scratch_frame& frame)
      : staged_blocks<Problem>(p, frame),
        chain_(p.operation, 1, p.segments.most_blocks(), frame),
        tile_(frame.take<T>(static_cast<index_t>(most_parts) * part)),
        carry_(frame.take<T>(Problem::value_size)),
        register_(frame.take<T>(Problem::value_size)) {}

  staged_scan(const staged_scan&) = delete;
  staged_scan& operator=(const staged_scan&) = delete;
  ~staged_scan() {
    if (p_.streams) simd::fence_after_stream();
  }

  /// Blocks [first, last) of all lines, which are whole segments, in one pass.
  void segments(index_t first, index_t last) {
    if (first < last) go_to(first);
    for (index_t i = first; i < last; i += count_) {
      if constexpr (whole::available) {
        if (gather_whole(last - i, chain_.room())) {
          local_whole();
          if (begins(0)) start(0);
          const bool had = chain_.carry() != nullptr;
          const value before = chain_.push_lanes(last_chains());
          write_whole(before, had);
          if (ends(L - 1)) finish_whole(before);
          continue;
        }
      }
      gather(last - i);
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
    for (index_t i = first; i < last; i += count_) {
      bool done = false;
      if constexpr (whole::available) {
        done = gather_whole(last - i, L);
        if (done) local_whole();
      }
      if (!done) {
        gather(last - i);
        local();
      }
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
    for (index_t i = first; i < last; i += count_) {
      bool done = false;
      if constexpr (whole::available) {
        done = gather_whole(last - i, L);
        if (done) local_whole();
      }
      if (!done) {
        gather(last - i);
        local();
      }
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
      if constexpr (whole::available) {
        if (done) {
          write_whole(Problem::load_value(carry_), has_carry_[0] > T(0));
          continue;
        }
      }
      write();
    }
  }

 private:
  // ---- whole_blocks ---------------------------------------------------------------------------------------------------

  void local_whole() {
    typename whole::template lines_of_time<const T> from[Problem::in_parts];
    const index_t sign = p_.segments.sign();
    const bool same_segment = next_block_ < p_.segments.blocks[segment_[0] + 1];
    for (std::size_t k = 0; k < Problem::in_parts; ++k) {
      from[k] = {p_.in[k] + offsets_[k] + place_[0] * p_.lines.step[k], sign * p_.lines.step[k]};
      constexpr index_t together = L * scan_block_steps;
      const index_t distance =
          same_segment ? from[k].step * together : p_.lines.lane[k] + (place_at_start() - place_[0]) * p_.lines.step[k];
      ahead_[k] = p_.large ? from[k].at + distance - (from[k].step < 0 ? together - 1 : 0) : nullptr;
    }
    whole::local(p_, from, ahead_, tile_);
  }
  index_t place_at_start() const { return p_.segments.place(0, 0); }

  value last_chains() const { return Problem::load_value(tile_ + (scan_block_steps - 1) * row, part); }

  /// `had`: whether something comes before the first of the blocks.
  void write_whole(const value& before, bool had) {
    typename whole::template lines_of_time<T> to[Problem::out_parts];
    bool stream = p_.streams;
    for (std::size_t k = 0; k < Problem::out_parts; ++k) {
      const std::size_t v = Problem::first_out + k;
      to[k] = {p_.out[k] + offsets_[v] + place_[0] * p_.lines.step[v], p_.segments.sign() * p_.lines.step[v]};
      stream = stream && packet::can_stream_to(to[k].step < 0 ? to[k].at + 1 : to[k].at);
    }
    const auto has = !simd::first_lanes<T>(had ? 0 : 1);
    if (stream && sizeof(T) * static_cast<std::size_t>(L) == 64) {
      whole::template write<true>(p_, tile_, before, has, to, ahead_);
    } else {
      whole::template write<false>(p_, tile_, before, has, to, ahead_);
    }
  }

  void finish_whole([[maybe_unused]] const value& before) {
    if constexpr (Problem::final_state::given) {
      T carry[Problem::value_size];
      Problem::store_value(carry, before);
      for (index_t k = 0; k < numbers; ++k) std::fill_n(carry + k * L, L, T(carry[k * L + L - 1]));
      read_total(L - 1);
      finish(L - 1, carry);
    }
  }

  // ---- any blocks -----------------------------------------------------------------------------------------------------

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

  carry_chain<Problem, operation_type> chain_;
  T* tile_;                              // (parts, steps, planes, lanes)
  T* carry_;                             // (parts, planes, lanes)
  T* register_;                          // the same, one value in every lane
  const T* ahead_[Problem::in_parts]{};  // what comes next, if it lies far away
  alignas(64) T has_carry_[static_cast<std::size_t>(L)];
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
