// SPDX-License-Identifier: Apache-2.0
/// @file The largest entries of rows, and the order of all entries.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/primitives/gather/largest.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <numeric>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

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
  if (k == 0) return;
  index_t m = 0;
  if constexpr (std::is_same_v<E, T>) m = k < n ? candidates_of(scores, n, k, order) : 0;
  if (m == 0) {
    m = n;
    std::iota(order, order + n, index_t{0});
  }
  if (k < m) {
    scratch_frame frame;
    T* values = frame.take<T>(m);
    for (index_t i = 0; i < m; ++i) values[i] = static_cast<T>(scores[order[i]]);
    const largest_bound<T> bound = bound_of_largest(values, m, k, k);
    index_t found = 0, ties = bound.ties;
    for (index_t i = 0; i < m; ++i) {
      if (bound.is_above(values[i]) || (bound.is_tied(values[i]) && ties-- > 0)) order[found++] = order[i];
    }
  }
  if (!by_score) return;
  std::sort(order, order + k, [&](index_t a, index_t b) {
    const T x = static_cast<T>(scores[a]), y = static_cast<T>(scores[b]);
    const bool numbers = x == x && y == y;
    if (numbers ? x == y : !(x == x) && !(y == y)) return a < b;
    return numbers ? x > y : x == x;
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
///            how many are above a number. Scratch: 2 N words per worker.
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
