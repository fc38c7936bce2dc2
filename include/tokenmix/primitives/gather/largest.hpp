// SPDX-License-Identifier: Apache-2.0
/// @file What separates the k largest of some numbers from the others, found by counting.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The k largest of some values, ties by index and NaN last: all above `value`, and the first `ties` of those that equal it. Where
/// numbers are too few, `value` is NaN: every number is above it, and every NaN equals it.
template <class T>
struct largest_bound {
  T value;
  index_t ties;

  bool is_above(T x) const { return value == value ? x > value : x == x; }
  bool is_tied(T x) const { return value == value ? x == value : !(x == x); }
};

/// Whole numbers in the order of the floating-point numbers that have their bits; -0 and 0 are neighbours.
template <class T>
constexpr simd::integer_of<T> ascending_key(T value) {
  using word = simd::integer_of<T>;
  const auto bits = std::bit_cast<word>(value);
  return bits < 0 ? bits ^ std::numeric_limits<word>::max() : bits;
}
template <class T>
constexpr T number_of_key(simd::integer_of<T> key) {
  return std::bit_cast<T>(key < 0 ? key ^ std::numeric_limits<simd::integer_of<T>>::max() : key);
}

/// How many of n values `keep(register)` keeps.
template <class T, class Keep>
TOKENMIX_ALWAYS_INLINE index_t count_if(const T* values, index_t n, Keep&& keep) {
  constexpr index_t L = simd::lanes<T>;
  index_t count = 0, i = 0;
  for (; i + L <= n; i += L) count += simd::count_true<T>(keep(simd::load(values + i)));
  if (i < n) count += simd::count_true<T>(keep(simd::load_n(values + i, n - i)) & simd::first_lanes<T>(n - i));
  return count;
}

/// The bound of the k largest of n values, 0 < k < n; or, found sooner, one of up to `most`, k <= most < n, without ties.
///
/// Cost       a pass over the values for each halving of the range between the smallest and the largest, counted in floating-point
///            numbers, until one separates them: about as many as log2 n where values are spread, 8 sizeof(T) at most.
template <class T>
TOKENMIX_NOINLINE largest_bound<T> bound_of_largest(const T* values, index_t n, index_t k, index_t most) {
  constexpr index_t L = simd::lanes<T>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const index_t numbers = count_if(values, n, [](const simd::batch<T>& x) { return x == x; });
  if (numbers <= k) return {std::numeric_limits<T>::quiet_NaN(), k - numbers};
  simd::batch<T> largest(-infinity), least(infinity);
  index_t i = 0;
  for (; i + L <= n; i += L) {
    const simd::batch<T> x = simd::load(values + i);
    largest = simd::max_or_second(x, largest);
    least = simd::min_or_second(x, least);
  }
  T high = simd::reduce_max(largest), low = -simd::reduce_max(simd::batch<T>(T(0)) - least);
  for (; i < n; ++i) {
    high = values[i] > high ? values[i] : high;
    low = values[i] < low ? values[i] : low;
  }
  const auto above = [&](T bound) {
    return count_if(values, n, [b = simd::batch<T>(bound)](const simd::batch<T>& x) { return x > b; });
  };
  if (const index_t count = above(low); count <= k) return {low, k - count};
  // More than k are above `below`, less than k above `reached`.
  simd::integer_of<T> below = ascending_key(low), reached = ascending_key(high);
  index_t count_above_reached = 0;
  while (true) {
    const auto middle = static_cast<simd::integer_of<T>>((below & reached) + ((below ^ reached) >> 1));
    if (middle == below) return {number_of_key<T>(reached), k - count_above_reached};
    const index_t count = above(number_of_key<T>(middle));
    if (k <= count && count <= most) return {number_of_key<T>(middle), 0};
    if (count > k) {
      below = middle;
    } else {
      reached = middle;
      count_above_reached = count;
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
