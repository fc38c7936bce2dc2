// SPDX-License-Identifier: Apache-2.0
/// @file Which rows of the buffers are sequences: all of them, given lengths, or packed one after the other.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <concepts>
#include <cstdint>
#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// One sequence in its buffers: T query rows from `query_row` on and S key rows from `key_row` on of batch element `batch`.
struct sequence {
  index_t number = 0;     ///< what masks and scores see as the batch
  index_t batch = 0;      ///< batch element of the tensors
  index_t query_row = 0;  ///< row of the first query
  index_t queries = 0;    ///< T
  index_t key_row = 0;    ///< row of the first key
  index_t keys = 0;       ///< S

  /// The position of the first query: the last query stands at the last key.
  constexpr index_t first_position() const { return keys - queries; }
};

/// Every batch element is one sequence of all T queries and all S keys.
struct whole_sequences {
  static constexpr void check(index_t /*batches*/, index_t /*queries*/, index_t /*keys*/) {}
  static constexpr index_t count(index_t batches) { return batches; }
  static constexpr sequence at(index_t i, index_t queries, index_t keys) { return {i, i, 0, queries, 0, keys}; }
};

/// Batch element b has keys[b] keys and queries[b] queries, its first rows; an empty span stands for all rows. What lies
/// beyond is neither read nor written.
struct lengths {
  std::span<const index_t> keys{};     // (B)
  std::span<const index_t> queries{};  // (B)

  void check(index_t batches, index_t most_queries, index_t most_keys) const {
    check_lengths("lengths.keys", keys, batches, "k", most_keys);
    check_lengths("lengths.queries", queries, batches, "q", most_queries);
  }
  static constexpr index_t count(index_t batches) { return batches; }
  sequence at(index_t i, index_t most_queries, index_t most_keys) const {
    const auto n = static_cast<std::size_t>(i);
    return {i, i, 0, queries.empty() ? most_queries : queries[n], 0, keys.empty() ? most_keys : keys[n]};
  }

 private:
  static void check_lengths(const char* name, std::span<const index_t> values, index_t batches, const char* view,
                            index_t most) {
    if (values.empty()) return;
    const auto n = static_cast<index_t>(values.size());
    if (n != batches) detail::fail_shape(name, " has ", n, " entries, ", view, " has ", batches, " batch elements");
    for (index_t b = 0; b < n; ++b) {
      const index_t value = values[static_cast<std::size_t>(b)];
      if (value < 0 || value > most) {
        detail::fail_value(name, "[", b, "] is ", value, ": expected 0 to ", most, ", the tokens of ", view);
      }
    }
  }
};

/// Sequences one after the other in one batch element: sequence i is rows [offsets[i], offsets[i + 1]) of q, and of k and v
/// by key_offsets, which is the same list if empty. The usual cu_seqlens: n + 1 entries that do not decrease.
template <std::integral I = std::int32_t>
struct packed {
  std::span<const I> offsets{};      // (n + 1)
  std::span<const I> key_offsets{};  // (n + 1) or empty

  void check(index_t batches, index_t queries, index_t keys) const {
    if (batches != 1) detail::fail_shape("q has ", batches, " batch elements: packed sequences stand in one");
    check_offsets("packed.offsets", offsets, "q", queries);
    check_offsets(key_offsets.empty() ? "packed.offsets" : "packed.key_offsets", of_keys(), "k", keys);
    if (of_keys().size() != offsets.size()) {
      detail::fail_shape("packed.key_offsets has ", static_cast<index_t>(key_offsets.size()),
                         " entries, packed.offsets has ", static_cast<index_t>(offsets.size()));
    }
  }
  constexpr index_t count(index_t /*batches*/) const { return static_cast<index_t>(offsets.size()) - 1; }
  constexpr sequence at(index_t i, index_t /*queries*/, index_t /*keys*/) const {
    const auto n = static_cast<std::size_t>(i);
    const auto k = of_keys();
    return {i,
            0,
            static_cast<index_t>(offsets[n]),
            static_cast<index_t>(offsets[n + 1]) - static_cast<index_t>(offsets[n]),
            static_cast<index_t>(k[n]),
            static_cast<index_t>(k[n + 1]) - static_cast<index_t>(k[n])};
  }

 private:
  constexpr std::span<const I> of_keys() const { return key_offsets.empty() ? offsets : key_offsets; }

  static void check_offsets(const char* name, std::span<const I> values, const char* view, index_t rows) {
    if (values.empty()) detail::fail_shape(name, " is empty: n sequences need n + 1 offsets");
    index_t before = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto value = static_cast<index_t>(values[i]);
      if (value < before)
        detail::fail_value(name, "[", i, "] is ", value, ": offsets start at 0 or later and do not decrease");
      if (value > rows) detail::fail_value(name, "[", i, "] is ", value, ": ", view, " has ", rows, " rows");
      before = value;
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
