// SPDX-License-Identifier: Apache-2.0
/// @file Whether numbers are finite.
#pragma once

#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Whether all of n numbers are finite.
template <class T>
TOKENMIX_NOINLINE bool all_finite(const T* x, index_t n) {
  constexpr index_t L = lanes<T>;
  const batch<T> zero(T(0));
  batch<T> zeros[4] = {zero, zero, zero, zero};  // sums of x * 0, which is not 0 where x is NaN or infinite
  index_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L)
    unroll<4>([&](auto r) TOKENMIX_LAMBDA_INLINE { zeros[r] = fma(load(x + i + r * L), zero, zeros[r]); });
  for (; i + L <= n; i += L) zeros[0] = fma(load(x + i), zero, zeros[0]);
  if (i < n) zeros[0] = fma(load_n(x + i, n - i), zero, zeros[0]);
  return reduce_add((zeros[0] + zeros[1]) + (zeros[2] + zeros[3])) == T(0);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
