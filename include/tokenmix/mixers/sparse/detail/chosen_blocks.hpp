// SPDX-License-Identifier: Apache-2.0
/// @file The blocks of keys that the rows of a panel have chosen, by row and by block.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/types.hpp>

#include <algorithm>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Ascending lists of blocks. Rows in a row may share a list.
struct chosen_blocks {
  index_t* blocks = nullptr;  // (lists, most)
  index_t* counts = nullptr;  // (lists)
  index_t lists = 0;
  index_t most = 0;
  index_t rows_of_list = 1;

  chosen_blocks(index_t lists_, index_t most_, index_t rows_of_list_, scratch_frame& frame)
      : blocks(frame.take<index_t>(lists_ * most_)),
        counts(frame.take<index_t>(lists_)),
        lists(lists_),
        most(most_),
        rows_of_list(rows_of_list_) {}

  index_t* list(index_t i) const { return blocks + i * most; }
};

/// For every block the rows whose lists have it, ascending.
class rows_of_blocks {
 public:
  /// Blocks are 0 .. n - 1.
  rows_of_blocks(const chosen_blocks& chosen, index_t n, scratch_frame& frame)
      : first_(frame.take<index_t>(n + 2)), rows_of_list_(chosen.rows_of_list) {
    std::fill_n(first_, n + 2, index_t{0});
    // Counts stand two places on, so that the filling below leaves the beginnings in place.
    for (index_t i = 0; i < chosen.lists; ++i) {
      for (index_t e = 0; e < chosen.counts[i]; ++e) ++first_[chosen.list(i)[e] + 2];
    }
    for (index_t j = 2; j < n + 2; ++j) first_[j] += first_[j - 1];
    lists_ = frame.take<std::int32_t>(first_[n + 1]);
    for (index_t i = 0; i < chosen.lists; ++i) {
      for (index_t e = 0; e < chosen.counts[i]; ++e) {
        lists_[first_[chosen.list(i)[e] + 1]++] = static_cast<std::int32_t>(i);
      }
    }
  }

  index_t count(index_t block) const { return (first_[block + 1] - first_[block]) * rows_of_list_; }
  /// Row i of those of a block.
  index_t row(index_t block, index_t i) const {
    return lists_[first_[block] + i / rows_of_list_] * rows_of_list_ + i % rows_of_list_;
  }

 private:
  index_t* first_;  // (n + 2)
  index_t rows_of_list_;
  std::int32_t* lists_ = nullptr;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
