// SPDX-License-Identifier: Apache-2.0
/// @file Sums and products of registers and of plain numbers with the same bits, which no compiler contracts.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <cmath>
#include <concepts>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

template <class Score>
struct number_of_score {
  using type = Score;
};
template <class T>
struct number_of_score<simd::batch<T>> {
  using type = T;
};

}  // namespace detail

/// The number type of an operand: T for T and for a register of T.
template <class Score>
using score_number = typename detail::number_of_score<Score>::type;

namespace detail {

// A formula gives the same bits with queries in the lanes, with keys in the lanes and for a plain number, whatever
// stands before and behind it. So no compiler may join its product with a neighbour's sum: both go through fma.

#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
inline constexpr bool rounds_fma_once = true;
#else
inline constexpr bool rounds_fma_once = false;
#endif

/// a * b + c for a register of scores or for one, with the same bits.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> multiply_add(const simd::batch<T>& a, const simd::batch<T>& b,
                                                   const simd::batch<T>& c) {
  return simd::fma(a, b, c);
}
template <std::floating_point T>
TOKENMIX_ALWAYS_INLINE T multiply_add(T a, T b, T c) {
  if constexpr (rounds_fma_once) {
    return std::fma(a, b, c);
  } else {
    return a * b + c;
  }
}

template <class Score>
TOKENMIX_ALWAYS_INLINE Score product(const Score& a, const Score& b) {
  using T = score_number<Score>;
  if constexpr (rounds_fma_once) {
    return multiply_add(a, b, Score(T(-0.0)));
  } else {
    return a * b;
  }
}
template <class Score>
TOKENMIX_ALWAYS_INLINE Score sum(const Score& a, const Score& b) {
  using T = score_number<Score>;
  if constexpr (rounds_fma_once) {
    return multiply_add(a, Score(T(1)), b);
  } else {
    return a + b;
  }
}

/// a / b, correctly rounded.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> quotient(const simd::batch<T>& a, const simd::batch<T>& b) {
  return simd::divide(a, b);
}
template <std::floating_point T>
TOKENMIX_ALWAYS_INLINE T quotient(T a, T b) {
  return a / b;
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
