// SPDX-License-Identifier: Apache-2.0
/// @file What a selective scan makes of its step sizes and gates: softplus and SiLU, computed in float lanes for floats.
#pragma once

#include <tokenmix/simd/exponential.hpp>
#include <tokenmix/simd/sigmoidal.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// log(1 + e) / e on [0, 1]: 1.5e-8.
inline constexpr float log1p_quotient[] = {0x1.0p+0f,      -0x1.ffffb8p-2f, 0x1.554bd6p-2f, -0x1.ff0254p-3f,
                                           0x1.92b43p-3f,  -0x1.38b908p-3f, 0x1.afdde8p-4f, -0x1.cdd008p-5f,
                                           0x1.402f4cp-6f, -0x1.a04acap-9f};

/// log(1 + e^x). Relative error in float: 4 u, and 3 u |x| more where x < 0, both of a step size that is then below 1.
TOKENMIX_ALWAYS_INLINE simd::batch<float> step_softplus(const simd::batch<float>& x) {
  const simd::batch<float> zero(0.0f);
  const auto positive = x > zero;
  const simd::batch<float> e = simd::exp_nonpositive(simd::select(positive, zero - x, x));
  return simd::fma(e, simd::detail::polynomial(e, log1p_quotient), simd::select(positive, x, zero));
}
TOKENMIX_ALWAYS_INLINE simd::batch<double> step_softplus(const simd::batch<double>& x) { return simd::softplus(x); }

/// x / (1 + e^-x); 0 at -infinity. Relative error in float: 5 u, and 3 u |x| more where x < 0.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> step_silu(const simd::batch<T>& x) {
  const simd::batch<T> zero(T(0)), one(T(1));
  const auto positive = x > zero;
  const simd::batch<T> e = simd::exp_nonpositive(simd::select(positive, zero - x, x));
  const simd::batch<T> scaled =
      simd::select(e == zero, simd::select(positive, x, zero), simd::select(positive, x, x * e));
  return simd::divide(scaled, one + e);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
