// SPDX-License-Identifier: Apache-2.0
/// @file The largest entries of rows, and the order of all entries.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// A whole number that falls where the value rises: -0 and 0 are one, every NaN is the largest number.
template <class T>
TOKENMIX_ALWAYS_INLINE constexpr auto descending_key(T value) {
  using word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr word sign = word{1} << (8 * sizeof(T) - 1);
  if (value != value) return ~word{0};
  const word bits = std::bit_cast<word>(value + T(0));  // -0 + 0 = 0
  return (bits & sign) != 0 ? bits : static_cast<word>(~(bits | sign));
}

/// The k first of scores[0 .. n) in the total order: larger first, ties by index, NaN last. `order` has room for n indices and
/// holds them, best first or (sorted = false) in ascending index order, in its first k entries.
template <class E>
void select_largest(const E* scores, index_t n, index_t k, bool by_score, index_t* order) {
  using T = accumulator_t<E>;
  using word = decltype(descending_key(T(0)));
  if (k == 0) return;
  scratch_frame frame;
  word* keys = frame.take<word>(n);
  for (index_t i = 0; i < n; ++i) keys[i] = descending_key(static_cast<T>(scores[i]));
  const auto before = [&](index_t a, index_t b) { return keys[a] != keys[b] ? keys[a] < keys[b] : a < b; };
  if (k == n) {
    for (index_t i = 0; i < n; ++i) order[i] = i;
  } else {
    // The k-th key by counting digits of 8 bits, from the top: every pass looks at what shares the digits found so far.
    word prefix = 0, known = 0;
    index_t wanted = k;
    for (int shift = static_cast<int>(8 * sizeof(word)) - 8; shift >= 0; shift -= 8) {
      index_t counts[256] = {};
      for (index_t i = 0; i < n; ++i) {
        if ((keys[i] & known) == prefix) ++counts[(keys[i] >> shift) & 255u];
      }
      index_t digit = 0;
      while (counts[digit] < wanted) wanted -= counts[digit++];
      prefix |= static_cast<word>(digit) << shift;
      known |= word{255} << shift;
    }
    index_t found = 0;
    for (index_t i = 0; i < n; ++i) {
      if (keys[i] < prefix) {
        order[found++] = i;
      } else if (keys[i] == prefix && wanted > 0) {
        order[found++] = i;
        --wanted;
      }
    }
  }
  if (by_score) std::sort(order, order + k, before);
}

}  // namespace detail

/// The k largest entries of every row, best first.
///
///     scores[r][indices[r][0]] >= scores[r][indices[r][1]] >= ...      equal ones by ascending index, NaN behind all others
///
/// Shapes     scores: (R, N); indices: (R, k), k <= N.
/// Numerics   exact; a total order, so the answer is unique. -0 equals 0.
/// Cost       O(N + k log k) per row: the k-th entry is found by counting digits. Scratch: 2 N words per worker.
/// Errors     shape_error as the message says, if k is above N for one; nothing is written then.
template <class E, executor Executor = calling_thread>
void top_k(tensor_view<const E, 2> scores,  // (R, N)
           tensor_view<index_t, 2> indices,  // (R, k)
           Executor&& on = {}) {
  detail::check_input("scores", scores);
  detail::check_output("indices", indices);
  const tensor_view<const index_t, 2> chosen = indices;
  detail::check_same_extent("indices", chosen, 0, "scores", scores, 0, "rows");
  const index_t n = scores.extent(1), k = indices.extent(1);
  if (k > n) detail::fail_shape("indices has ", k, " entries in a row, scores has ", n, ": k is at most N");
  detail::check_overlap("indices", indices, "scores", scores);
  detail::run_tasks(on, k == 0 ? 0 : scores.extent(0), [&](index_t r) {
    scratch_frame frame;
    index_t* order = frame.take<index_t>(n);
    detail::select_largest(scores.row(r), n, k, true, order);
    std::copy_n(order, k, indices.row(r));
  });
}

/// The order of every row, largest first; stable: equal entries stay in their order, NaN go behind all others.
///
/// Shapes     scores: (R, N); indices: (R, N).
/// Cost       O(N log N) per row.
/// Errors     shape_error as the message says; nothing is written then.
template <class E, executor Executor = calling_thread>
void argsort(tensor_view<const E, 2> scores,   // (R, N)
             tensor_view<index_t, 2> indices,  // (R, N)
             Executor&& on = {}) {
  detail::check_view("scores", scores);
  detail::check_view("indices", tensor_view<const index_t, 2>(indices));
  detail::check_shape("indices", tensor_view<const index_t, 2>(indices), scores.shape(), "(R, N)");
  top_k(scores, indices, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
