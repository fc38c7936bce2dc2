// SPDX-License-Identifier: Apache-2.0
/// @file The runs of masks that decide by blocks of queries and blocks of keys, or key by key.
#pragma once

#include <tokenmix/primitives/mask/mask.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The run from `key` on of a mask that sees whole blocks: seen(head, row block, column block). At most scan_limit blocks long.
template <class Seen>
constexpr span block_run(const query_block& block, index_t key, index_t rows_of_block, index_t keys_of_block,
                         const Seen& seen) {
  const index_t row_first = block.row_first() / rows_of_block;
  const index_t row_last = (block.row_last() - 1) / rows_of_block + 1;
  const auto coverage_of = [&](index_t column) {
    bool any = false, all = true;
    for (index_t head = block.head_first; head < block.head_last; ++head) {
      for (index_t row = row_first; row < row_last; ++row) {
        const bool sees = seen(head, row, column);
        any = any || sees;
        all = all && sees;
      }
    }
    return all ? coverage::all : any ? coverage::some : coverage::none;
  };
  const index_t column = key / keys_of_block;
  const index_t columns = std::min((block.keys - 1) / keys_of_block + 1, column + scan_limit);
  const coverage found = coverage_of(column);
  index_t end = column + 1;
  while (end < columns && coverage_of(end) == found) ++end;
  return {key, std::min(end * keys_of_block, block.keys), found};
}

/// The word of a key of a mask that sees whole blocks of rows: seen(row block).
template <class Seen>
constexpr std::uint64_t seen_by_blocks(const query_block& block, index_t rows_of_block, const Seen& seen) {
  const index_t first = block.row_first();
  std::uint64_t word = 0;
  for (index_t row = first / rows_of_block; row * rows_of_block < block.row_last(); ++row) {
    if (seen(row))
      word |= first_queries((row + 1) * rows_of_block - first) & ~first_queries(row * rows_of_block - first);
  }
  return word;
}

/// The run from `key` on of a mask that knows the coverage of one key; looks at no more than scan_limit keys.
template <class CoverageOf>
constexpr span key_run(const query_block& block, index_t key, const CoverageOf& coverage_of) {
  const coverage found = coverage_of(key);
  const index_t limit = std::min(block.keys, key + scan_limit);
  index_t end = key + 1;
  while (end < limit && coverage_of(end) == found) ++end;
  return {key, end, found};
}

/// Rounds towards minus infinity: positions of queries in front of the first key are negative.
constexpr index_t floor_division(index_t a, index_t b) { return a / b - (a % b < 0 ? 1 : 0); }

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
