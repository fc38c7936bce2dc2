// SPDX-License-Identifier: Apache-2.0
/// @file What becomes of the candidates that minimal gated units write.
#pragma once

#include <tokenmix/mixers/state_space/detail/gates.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// x + 1/2 from 0 on, sigmoid(x) below, which is within (6 + 3 |x|) u of itself: positive, so that a recurrence of it could be
/// run on logs. Feng et al. 2024, appendix B.
struct positive_candidate {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    const simd::batch<T> zero(T(0));
    return simd::select(x < zero, detail::gated<T>(simd::batch<T>(T(1)), x), x + simd::batch<T>(T(0.5)));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
