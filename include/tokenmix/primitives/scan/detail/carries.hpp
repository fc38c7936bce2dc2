// SPDX-License-Identifier: Apache-2.0
/// @file What comes into each block: a scan of the totals of the blocks before it, by blocks of blocks.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/scan/detail/lines.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The carries of `columns` registers of lines, from block to block.
///
/// Totals of 128 blocks are combined in a chain and become one total of the level above; the carry is what the levels
/// hold, the uppermost first, after the initial state.
template <class Types, class Operation>
class carry_chain {
  using number = typename Types::number;

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
    index_t level = 0;
    for (const number* from = total;; ++level) {
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
    bool some = has_initial_;
    if (some) std::copy_n(initial_, size(), carry_);
    for (level = levels_; level-- > 0;) {
      if (counts_[level] == 0) continue;
      const number* prefix = prefixes_ + level * size();
      if (some) {
        combine(carry_, prefix, carry_);
      } else {
        std::copy_n(prefix, size(), carry_);
      }
      some = true;
    }
    has_carry_ = true;
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
