// SPDX-License-Identifier: Apache-2.0
/// @file What the outputs of linear attention are divided by, and what keeps that away from zero.
#pragma once

#include <tokenmix/core/types.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

// A linear normaliser says by `factor(sum, n)` what an output is multiplied by, where sum is the sum of the weights of the n
// tokens that the query sees.

/// Nothing.
struct unnormalized {
  static constexpr bool takes_sum = false;
};

/// sum + epsilon. A query whose weights sum to -epsilon gives infinities or NaN.
struct sum_plus {
  static constexpr bool takes_sum = true;
  double epsilon = 1e-6;

  template <class T>
  T factor(T sum, index_t /*tokens*/) const {
    return T(1) / (sum + static_cast<T>(epsilon));
  }
};

/// max(sum, epsilon): exact where the sum is larger; a NaN stays.
struct clamped {
  static constexpr bool takes_sum = true;
  double epsilon = 1e-6;

  template <class T>
  T factor(T sum, index_t /*tokens*/) const {
    const T least = static_cast<T>(epsilon);
    return T(1) / (sum <= least ? least : sum);
  }
};

/// sum + n epsilon, which is q (K'V / n) / (q mean(k) + epsilon): LinFusion.
struct mean_plus {
  static constexpr bool takes_sum = true;
  double epsilon = 1e-4;
  index_t tokens_before = 0;  ///< that the initial state has absorbed

  template <class T>
  T factor(T sum, index_t tokens) const {
    return T(1) / (sum + static_cast<T>(static_cast<double>(tokens + tokens_before) * epsilon));
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
