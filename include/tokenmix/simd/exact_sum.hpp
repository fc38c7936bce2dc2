// SPDX-License-Identifier: Apache-2.0
/// @file Sums with what their rounding lost.
#pragma once

#include <tokenmix/simd/batch.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// a + b and what its rounding lost; nothing is lost to infinities.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> sum_and_rest(const xsimd::batch<T, arch>& a, const xsimd::batch<T, arch>& b,
                                             batch<T>& rest) {
  const batch<T> sum = a + b;
  const batch<T> of_b = sum - a;
  rest = (a - (sum - of_b)) + (b - of_b);
  rest = select(rest == rest, rest, batch<T>(T(0)));
  return sum;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
