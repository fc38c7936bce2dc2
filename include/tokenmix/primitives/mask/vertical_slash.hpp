// SPDX-License-Identifier: Apache-2.0
/// @file Some keys for everybody, and some distances.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/block_run.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Queries see the keys of one list (vertical lines of the score matrix) and the keys at the distances of another (slashes).
///
///     key in keys[head] || query - key in distances[head]
///
/// Shapes     keys: (H or 1, n), distances: (H or 1, m), both ascending without repetition, last axis contiguous; either may be
///            empty; the mask refers to them.
/// Cost       O(log n + log m) per question. check() reads both lists once per call.
/// Errors     shape_error if there are neither H rows nor 1; value_error, with the entry, if a key is outside [0, S), a
///            distance is negative, or an entry is not above the one before it.
/// Source     Jiang et al. 2024, MInference 1.0, section 3 (vertical-slash).
struct vertical_slash {
  using is_mask = void;
  tensor_view<const index_t, 2> keys = {};       // (H | 1, n)
  tensor_view<const index_t, 2> distances = {};  // (H | 1, m)

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return within(keys, pair.head, pair.key, pair.key) > 0 ||
             within(distances, pair.head, pair.query - pair.key, pair.query - pair.key) > 0;
    });
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t count = block.query_last - block.query_first;
    const auto coverage_of = [&](index_t at) {
      bool any = false, all = true;
      for (index_t head = block.head_first; head < block.head_last; ++head) {
        const index_t seen = within(keys, head, at, at) > 0
                                 ? count
                                 : within(distances, head, block.query_first - at, block.query_last - 1 - at);
        any = any || seen > 0;
        all = all && seen == count;
      }
      return all ? coverage::all : any ? coverage::some : coverage::none;
    };
    return detail::key_run(block, key, coverage_of);
  }
  void check(index_t /*batches*/, index_t heads, index_t /*queries*/, index_t of_keys) const {
    check_lists("vertical_slash.keys", keys, heads, of_keys);
    check_lists("vertical_slash.distances", distances, heads, index_t{1} << 60);
  }

 private:
  // How many entries of a head's list lie in [low, high].
  static constexpr index_t within(const tensor_view<const index_t, 2>& lists, index_t head, index_t low, index_t high) {
    const index_t n = lists.extent(1);
    if (n == 0) return 0;
    const index_t* first = lists.row(lists.extent(0) == 1 ? 0 : head);
    return std::upper_bound(first, first + n, high) - std::lower_bound(first, first + n, low);
  }
  static void check_lists(const char* name, const tensor_view<const index_t, 2>& lists, index_t heads, index_t limit) {
    detail::check_input(name, lists);
    if (lists.extent(1) == 0) return;
    if (lists.extent(0) != 1 && lists.extent(0) != heads) {
      detail::fail_shape(name, " has ", lists.extent(0), " rows, expected 1 or ", heads, ": one for each head");
    }
    for (index_t h = 0; h < lists.extent(0); ++h) {
      for (index_t i = 0; i < lists.extent(1); ++i) {
        const index_t entry = lists(h, i);
        if (entry < 0 || entry >= limit) {
          detail::fail_value(name, "(", h, ", ", i, ") is ", entry, ", expected 0 to ", limit - 1);
        }
        if (i > 0 && entry <= lists(h, i - 1)) {
          detail::fail_value(name, "(", h, ", ", i, ") is ", entry, " after ", lists(h, i - 1), ": the entries ascend");
        }
      }
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
