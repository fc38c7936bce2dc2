// SPDX-License-Identifier: Apache-2.0
/// @file The largest entries of rows, and the order of all entries.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/simd/batch.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
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

/// The entries that can be among the k largest, ascending; 0 of them where that would not narrow the choice.
///
/// Lanes of registers in a row form k groups or more; at least k entries reach the smallest of the groups' maxima.
template <class T>
TOKENMIX_NOINLINE index_t candidates_of(const T* scores, index_t n, index_t k, index_t* found) {
  constexpr index_t L = simd::lanes<T>;
  const index_t registers = n / L, rounds = (k + L - 1) / L;
  if (rounds == 0 || registers / rounds < 4) return 0;
  const index_t each = registers / rounds;
  const simd::batch<T> lowest(-std::numeric_limits<T>::infinity());
  simd::batch<T> least(std::numeric_limits<T>::infinity());
  for (index_t i = 0; i < rounds; ++i) {
    simd::batch<T> most = lowest;
    for (index_t j = i * each; j < (i + 1) * each; ++j) {
      const simd::batch<T> x = simd::load(scores + j * L);
      most = simd::select(x > most, x, most);  // no NaN enters
    }
    least = simd::select(most < least, most, least);
  }
  alignas(64) T lanes[static_cast<std::size_t>(L)];
  simd::store(lanes, least);
  const T threshold = *std::min_element(lanes, lanes + L);
  if (threshold == -std::numeric_limits<T>::infinity()) return 0;
  index_t count = 0;
  for (index_t j = 0; j < registers; ++j) {
    for (std::uint32_t bits = simd::bits<T>(simd::load(scores + j * L) >= simd::batch<T>(threshold)); bits != 0;
         bits &= bits - 1) {
      found[count++] = j * L + std::countr_zero(bits);
    }
  }
  for (index_t i = registers * L; i < n; ++i) {
    if (scores[i] >= threshold) found[count++] = i;
  }
  return count;
}

/// The k first of scores[0 .. n) in the total order: larger first, ties by index, NaN last. `order` has room for n indices and
/// holds them in its first k entries, best first or (by_score = false) in ascending order of index.
template <class E>
void select_largest(const E* scores, index_t n, index_t k, bool by_score, index_t* order) {
  using T = accumulator_t<E>;
  using word = decltype(descending_key(T(0)));
  if (k == 0) return;
  scratch_frame frame;
  index_t* names = frame.take<index_t>(n);
  index_t m = 0;
  if constexpr (std::is_same_v<E, T>) m = k < n ? candidates_of(scores, n, k, names) : 0;
  if (m == 0) {
    m = n;
    for (index_t i = 0; i < n; ++i) names[i] = i;
  }
  word* keys = frame.take<word>(m);
  for (index_t i = 0; i < m; ++i) keys[i] = descending_key(static_cast<T>(scores[names[i]]));
  // The k-th key by counting digits of 8 bits, from the top: every pass looks at what shares the digits found so far.
  word prefix = 0, known = 0;
  index_t wanted = k;
  for (int shift = static_cast<int>(8 * sizeof(word)) - 8; shift >= 0 && k < m; shift -= 8) {
    index_t counts[256] = {};
    for (index_t i = 0; i < m; ++i) {
      if ((keys[i] & known) == prefix) ++counts[(keys[i] >> shift) & 255u];
    }
    index_t digit = 0;
    while (counts[digit] < wanted) wanted -= counts[digit++];
    prefix |= static_cast<word>(digit) << shift;
    known |= word{255} << shift;
  }
  index_t found = 0;
  for (index_t i = 0; i < m; ++i) {
    const bool tied = keys[i] == prefix && wanted > 0;
    if (k < m && !(keys[i] < prefix || tied)) continue;
    if (tied) --wanted;
    order[found++] = names[i];
  }
  if (!by_score) return;
  std::sort(order, order + k, [&](index_t a, index_t b) {
    const word x = descending_key(static_cast<T>(scores[a])), y = descending_key(static_cast<T>(scores[b]));
    return x != y ? x < y : a < b;
  });
}

}  // namespace detail

/// The k largest entries of every row, best first.
///
///     scores[r][indices[r][0]] >= scores[r][indices[r][1]] >= ...      equal ones by ascending index, NaN behind all others
///
/// Shapes     scores: (R, N); indices: (R, k), k <= N.
/// Numerics   exact; a total order, so the answer is unique. -0 equals 0.
/// Cost       O(N + k log k) per row: a bound from maxima of groups leaves few candidates, of which the k-th is found by counting
///            digits. Scratch: 3 N words per worker.
/// Errors     shape_error as the message says, if k is above N for one; nothing is written then.
template <class E, executor Executor = calling_thread>
void top_k(tensor_view<const E, 2> scores,   // (R, N)
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
