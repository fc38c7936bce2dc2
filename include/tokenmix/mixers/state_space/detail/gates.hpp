// SPDX-License-Identifier: Apache-2.0
/// @file Gates of elementwise recurrences, in registers: numbers whose complements do not cancel.
#pragma once

#include <tokenmix/primitives/sigmoid_both.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// keep h + write, where what keeps nothing does not read h.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> kept_and_written(const simd::batch<T>& keep, const simd::batch<T>& h,
                                                       const simd::batch<T>& write) {
  return simd::select(keep == simd::batch<T>(T(0)), write, simd::fma(keep, h, write));
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
