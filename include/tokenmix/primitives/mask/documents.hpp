// SPDX-License-Identifier: Apache-2.0
/// @file Documents in one sequence: a query sees the keys of its own document.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Every token carries the number of its document; a query sees the keys with the same number.
///
///     ids[batch][key] == ids[batch][query],   or query_ids[batch][row] on the right if query_ids is given
///
/// Documents usually lie one after another, but need not. A query at a negative position (T > S without query_ids) has no
/// document and sees nothing. Ids are only compared, so any value may stand for padding.
///
/// Shapes     ids: (B or 1, S or more), query_ids: empty or (B or 1, T or more); any strides; the mask refers to both.
/// Cost       a run compares at most 64 keys with the block's queries; blocks inside one document compare each key once.
/// Errors     shape_error if a view is none of these shapes.
struct documents {
  using is_mask = void;
  tensor_view<const index_t, 2> ids = {};        // (B | 1, S)
  tensor_view<const index_t, 2> query_ids = {};  // (B | 1, T), for cross attention

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      if (query_ids.data() == nullptr && pair.query < 0) return false;
      return id(ids, pair.batch, pair.key) == query_id(pair.batch, pair.query, pair.query_row());
    });
  }

  constexpr span run(const query_block& block, index_t key) const {
    const index_t shift = block.keys - block.queries;
    const index_t first = query_ids.data() == nullptr ? std::max(block.query_first, index_t{0}) : block.query_first;
    const bool homeless = first > block.query_first;  // some query has no document
    if (first >= block.query_last) return {key, block.keys, coverage::none};

    const auto coverage_of = [&](index_t key_id) {
      index_t matches = 0;
      bool all = !homeless;
      for (index_t q = first; q < block.query_last && (matches == 0 || all); ++q) {
        const bool match = query_id(block.batch, q, q - shift) == key_id;
        matches += match ? 1 : 0;
        all = all && match;
      }
      return all ? coverage::all : matches > 0 ? coverage::some : coverage::none;
    };
    const index_t limit = std::min(key + detail::scan_limit, block.keys);
    index_t last_id = id(ids, block.batch, key);
    const coverage visible = coverage_of(last_id);
    index_t end = key + 1;
    for (; end < limit; ++end) {
      const index_t next_id = id(ids, block.batch, end);
      if (next_id == last_id) continue;
      if (coverage_of(next_id) != visible) break;
      last_id = next_id;
    }
    return {key, end, visible};
  }

  void check(index_t batches, index_t /*heads*/, index_t queries, index_t keys) const {
    check_ids("documents.ids", ids, batches, keys, "S");
    if (query_ids.data() != nullptr) check_ids("documents.query_ids", query_ids, batches, queries, "T");
  }

 private:
  static constexpr index_t id(const tensor_view<const index_t, 2>& table, index_t batch, index_t token) {
    return table(table.extent(0) == 1 ? 0 : batch, token);
  }
  constexpr index_t query_id(index_t batch, index_t query, index_t row) const {
    return query_ids.data() == nullptr ? id(ids, batch, query) : id(query_ids, batch, row);
  }
  static void check_ids(const char* name, const tensor_view<const index_t, 2>& table, index_t batches, index_t tokens,
                        const char* letter) {
    detail::check_view(name, table);
    if ((table.extent(0) != batches && table.extent(0) != 1) || table.extent(1) < tokens) {
      detail::fail_shape(name, " is ", detail::shape_text(table.shape()), ", expected (B or 1, at least ", letter,
                         ") = (", batches, " or 1, at least ", tokens, ")");
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
