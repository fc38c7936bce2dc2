// SPDX-License-Identifier: Apache-2.0
/// @file How many tokens of each of its sequences a cache holds.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <span>
#include <vector>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The lengths of B sequences that grow at the end and may be cut.
class token_counts {
 public:
  explicit token_counts(index_t batches) : lengths_(static_cast<std::size_t>(batches), 0) {}

  index_t of(index_t batch) const { return lengths_[static_cast<std::size_t>(batch)]; }
  std::span<const index_t> all() const { return lengths_; }

  void grow(index_t batch, index_t count) { lengths_[static_cast<std::size_t>(batch)] += count; }
  void clear() { lengths_.assign(lengths_.size(), 0); }
  void truncate(index_t batch, index_t length) {
    if (batch < 0 || batch >= batches()) {
      fail_value("batch is ", batch, ": the cache has ", batches(), " sequences");
    }
    if (length < 0 || length > of(batch)) {
      fail_value("length is ", length, ": sequence ", batch, " has ", of(batch), " tokens");
    }
    lengths_[static_cast<std::size_t>(batch)] = length;
  }

  /// That counts[b] of the `tokens` tokens of the tensor `name`, or all if counts is empty, find room for every sequence.
  void check_append(const char* name, index_t tokens, std::span<const index_t> counts, index_t capacity) const {
    if (!counts.empty() && static_cast<index_t>(counts.size()) != batches()) {
      fail_shape("counts has ", static_cast<index_t>(counts.size()), " entries, the cache has ", batches(),
                 " sequences");
    }
    for (index_t b = 0; b < batches(); ++b) {
      const index_t count = counts.empty() ? tokens : counts[static_cast<std::size_t>(b)];
      if (count < 0 || count > tokens) {
        fail_value("counts[", b, "] is ", count, ": ", name, " has ", tokens, " tokens");
      }
      if (of(b) + count > capacity) {
        fail_value("the cache has room for ", capacity, " tokens, sequence ", b, " has ", of(b), " and gets ", count,
                   " more");
      }
    }
  }

 private:
  index_t batches() const { return static_cast<index_t>(lengths_.size()); }

  std::vector<index_t> lengths_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
