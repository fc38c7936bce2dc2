// SPDX-License-Identifier: Apache-2.0
/// @file What gates are given as: log decays, or numbers that the usual formulas make log decays of.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/math.hpp>

#include <cassert>

namespace tokenmix::inline TOKENMIX_ABI {

// A gate makes the log decay of a number x, of its head's rate and of a bias: `log_decay(x, rate, bias)`, lane by lane.

/// x is the log decay: <= 0, -infinity is a reset.
struct given_log_decay {
  static constexpr bool takes_rate = false;
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> log_decay(const simd::batch<T>& x, T /*rate*/,
                                                  const simd::batch<T>& /*bias*/) const {
    return x;
  }
};

/// log sigmoid(x) / divisor: GLA, with a divisor of 16.
struct log_sigmoid_gate {
  static constexpr bool takes_rate = false;
  double divisor = 1;
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> log_decay(const simd::batch<T>& x, T /*rate*/,
                                                  const simd::batch<T>& /*bias*/) const {
    const simd::batch<T> zero(T(0));
    return simd::softplus(zero - x) * simd::batch<T>(static_cast<T>(-1 / divisor));
  }
};

/// -exp(rate) softplus(x + bias): Mamba 2, gated delta net, KDA. The rate is their A_log.
struct softplus_gate {
  static constexpr bool takes_rate = true;
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> log_decay(const simd::batch<T>& x, T rate, const simd::batch<T>& bias) const {
    const simd::batch<T> factor = simd::batch<T>(T(0)) - simd::exp(simd::batch<T>(rate));
    return simd::softplus(x + bias) * factor;
  }
};

/// -exp(x): RWKV-6.
struct exponential_gate {
  static constexpr bool takes_rate = false;
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> log_decay(const simd::batch<T>& x, T /*rate*/,
                                                  const simd::batch<T>& /*bias*/) const {
    return simd::batch<T>(T(0)) - simd::exp(x);
  }
};

/// -strength sigmoid(x): RWKV-7, whose strength is exp(-1/2).
struct sigmoid_gate {
  static constexpr bool takes_rate = false;
  double strength = 0.6065306597126334;
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> log_decay(const simd::batch<T>& x, T /*rate*/,
                                                  const simd::batch<T>& /*bias*/) const {
    return simd::sigmoid(x) * simd::batch<T>(static_cast<T>(-strength));
  }
};

namespace detail {

/// Where NDEBUG is not defined, ends the program if one of n log decays is above 0. NaN is not.
template <class T>
TOKENMIX_ALWAYS_INLINE void assert_log_decays([[maybe_unused]] const T* log_decay, [[maybe_unused]] index_t n) {
#if !defined(NDEBUG)
  for (index_t i = 0; i < n; ++i) assert(!(log_decay[i] > T(0)) && "a log decay is above 0");
#endif
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
