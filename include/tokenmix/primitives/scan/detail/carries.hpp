// SPDX-License-Identifier: Apache-2.0
/// @file What comes into each block: a scan of the totals of the blocks before it, by blocks of blocks.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/scan/detail/lines.hpp>
#include <tokenmix/simd/batch.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The carries of `columns` registers of lines, from block to block.
///
/// Totals of 128 blocks are combined in a chain and become one total of the level above; the carry is what the levels
/// hold, the uppermost first, after the initial state.
template <class Types>
class carry_chain {
  using number = typename Types::number;
  using Operation = typename Types::operation_type;

 public:
  carry_chain(const Operation& operation, index_t columns, index_t most_blocks, scratch_frame& frame)
      : operation_(operation), columns_(columns), levels_(levels_for(most_blocks)) {
    prefixes_ = frame.take<number>(levels_ * size());
    counts_ = frame.take<index_t>(levels_);
    initial_ = frame.take<number>(size());
    carry_ = frame.take<number>(size());
    restart(false);
  }

  /// A new segment; with an initial state the caller has written it to initial().
  void restart(bool has_initial) {
    has_initial_ = has_initial;
    std::fill_n(counts_, levels_, index_t{0});
    if (has_initial) std::copy_n(initial_, size(), carry_);
    has_carry_ = has_initial;
  }
  number* initial() { return initial_; }

  /// What comes before the present block; null: nothing.
  const number* carry() const { return has_carry_ ? carry_ : nullptr; }

  /// The total of the present block: the next one becomes the present block.
  void push(const number* total) {
    push_at(0, total);
    has_carry_ = take_carry(0);
  }

  /// Blocks that the lowest level has room for.
  index_t room() const { return levels_ > 1 ? scan_block_steps - counts_[0] : scan_block_steps; }

  /// The totals of `n` blocks in a row, for which there is room, each in its lane: what comes before each of them, in its lane; in
  /// the first lane only if there was a carry.
  auto push_lanes(const typename Types::value& totals, index_t n) {
    using value = typename Types::value;
    using X = typename Types::X;
    number each[Types::value_size];
    Types::store_value(each, totals);
    const bool some_above = take_carry(1);
    bool some = counts_[0] > 0;
    value prefix = some ? Types::load_value(prefixes_) : totals;
    auto before = to_array<X>(prefix);
    for (index_t lane = 0; lane < n; ++lane) {
      const auto so_far = to_array<X>(prefix);
      for (std::size_t k = 0; k < Types::parts; ++k) {
        before[k] = Types::packet::select(simd::first_lanes<number>(lane), before[k], so_far[k]);
      }
      const value now = in_all_lanes(each, lane);
      prefix = lane > 0 || some ? Types::combine(operation_, prefix, now) : now;
    }
    value carry = from_array<value>(before);
    if (some_above) {
      const auto above = Types::load_value(carry_);
      const auto below = to_array<X>(Types::combine(operation_, above, carry));
      auto all = to_array<X>(above);
      const auto only_above = simd::first_lanes<number>(some ? 0 : 1);
      for (std::size_t k = 0; k < Types::parts; ++k) all[k] = Types::packet::select(only_above, all[k], below[k]);
      carry = from_array<value>(all);
    }
    Types::store_value(prefixes_, prefix);
    counts_[0] += n;
    if (counts_[0] == scan_block_steps && levels_ > 1) {
      counts_[0] = 0;
      push_at(1, prefixes_);
    }
    has_carry_ = take_carry(0);
    return carry;
  }

  /// One lane of a register of values, in all of them.
  static typename Types::value in_all_lanes(const number* values, index_t lane) {
    number everywhere[Types::value_size];
    for (index_t k = 0; k < Types::value_size; k += Types::lanes) {
      simd::store(everywhere + k, simd::batch<number>(values[k + lane]));
    }
    return Types::load_value(everywhere);
  }

  /// to = before and then now, register by register.
  void combine(const number* before, const number* now, number* to) const {
    for (index_t i = 0; i < columns_; ++i) {
      const index_t at = i * Types::value_size;
      Types::store_value(to + at,
                         Types::combine(operation_, Types::load_value(before + at), Types::load_value(now + at)));
    }
  }

  index_t size() const { return columns_ * Types::value_size; }

 private:
  static index_t levels_for(index_t blocks) {
    index_t levels = 1;
    for (; blocks > scan_block_steps; blocks /= scan_block_steps) ++levels;
    return levels;
  }

  /// One more total of a level.
  void push_at(index_t level, const number* from) {
    for (;; ++level) {
      number* prefix = prefixes_ + level * size();
      if (counts_[level] == 0) {
        std::copy_n(from, size(), prefix);
      } else {
        combine(prefix, from, prefix);
      }
      if (++counts_[level] < scan_block_steps || level + 1 == levels_) break;
      counts_[level] = 0;
      from = prefix;
    }
  }

  /// carry_ becomes the initial state and what the levels hold, the uppermost first and `lowest` last. False if there is nothing.
  bool take_carry(index_t lowest) {
    bool some = has_initial_;
    if (some) std::copy_n(initial_, size(), carry_);
    for (index_t level = levels_; level-- > lowest;) {
      if (counts_[level] == 0) continue;
      const number* prefix = prefixes_ + level * size();
      if (some) {
        combine(carry_, prefix, carry_);
      } else {
        std::copy_n(prefix, size(), carry_);
      }
      some = true;
    }
    return some;
  }

  const Operation& operation_;
  index_t columns_;
  index_t levels_;
  number* prefixes_;
  index_t* counts_;
  number* initial_;
  number* carry_;
  bool has_initial_ = false;
  bool has_carry_ = false;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
