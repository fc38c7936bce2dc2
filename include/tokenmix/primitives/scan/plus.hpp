// SPDX-License-Identifier: Apache-2.0
/// @file Sums.
#pragma once

#include <tokenmix/primitives/scan/operation.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// a + b: running sums. T is float, double, std::complex of them, or anything with a +.
///
/// Numerics   |error| <= (2 + log2 n) u sum of |x| at step n, for data whose roundings average out; 128 (1 + log n /
///            log 128) u sum of |x| for any. Infinities of both signs give NaN from there on.
template <class T>
struct plus {
  static constexpr T identity() { return T(0); }

  template <class X>
  TOKENMIX_ALWAYS_INLINE X operator()(const X& before, const X& now) const {
    return before + now;
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
