// SPDX-License-Identifier: Apache-2.0
/// @file What the tables of score modifiers share: one number per head, axes of extent 1, biases along diagonals.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// What a table by distance says about distances that it does not hold.
enum class outside_table : unsigned char {
  clamped,  ///< the same as its nearest entry
  zero,     ///< nothing is added
};

/// For tables by distance: the entry in the middle stands for distance 0.
inline constexpr index_t centred = -1;

namespace detail {

template <class Values>
decltype(auto) head_value(const Values& values, index_t head) {
  if constexpr (requires { values.extent(0); }) {
    return values(head);
  } else {
    return values[static_cast<std::size_t>(head)];
  }
}

template <class Values>
void check_head_values(const char* name, const Values& values, index_t heads) {
  const auto count = static_cast<index_t>(values.size());
  if (count != heads) fail_shape(name, " has ", count, " numbers, q has ", heads, " heads: there must be one per head");
}

template <class E, std::size_t R>
void check_broadcast(const char* name, const tensor_view<const E, R>& view, std::size_t axis, const char* axis_name,
                     index_t expected) {
  if (view.extent(axis) != 1 && view.extent(axis) != expected) {
    fail_shape(name, " has ", view.extent(axis), " ", axis_name, ", expected 1 or ", expected);
  }
}

/// A table must hold something: its nearest entry answers for all that lies outside.
template <class E, std::size_t R>
void check_not_empty(const char* name, const tensor_view<const E, R>& view, std::size_t axis, const char* axis_name) {
  if (view.extent(axis) < 1) fail_shape(name, " has ", view.extent(axis), " ", axis_name, ", expected at least 1");
}

/// Which entry of a table by distance stands for distance 0.
constexpr index_t entry_of_zero(index_t zero_entry, index_t entries) {
  return zero_entry == centred ? (entries - 1) / 2 : zero_entry;
}

inline void check_zero_entry(const char* name, index_t zero_entry, index_t entries) {
  if (zero_entry != centred && (zero_entry < 0 || zero_entry >= entries)) {
    fail_value(name, ".zero_entry is ", zero_entry, ": it must lie in [0, ", entries, ") or be tokenmix::centred");
  }
  if (zero_entry == centred && entries % 2 == 0) {
    fail_shape(name, ".table has ", entries, " distances: an even number has no middle, so zero_entry must be given");
  }
}

/// A bias that depends on key - query alone, for one tile: computed once per distance.
///
/// Neighbouring lanes are neighbouring distances, so the tile reads registers out of one line of key_count + width - 1
/// numbers, which starts at the largest distance.
template <class T, class F>
tile_bias<T> prepare_diagonals(const score_tile<T>& tile, scratch_frame& frame, F&& of_distance) {
  const index_t largest = tile.key_first + tile.key_count - 1 - tile.query_first;
  const index_t count = tile.key_count + tile.width - 1;
  T* line = frame.template take<T>(count);
  for (index_t i = 0; i < count; ++i) line[i] = of_distance(largest - i);
  return {line + (tile.key_count - 1), -1, tile.query_first, tile.key_first};
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
