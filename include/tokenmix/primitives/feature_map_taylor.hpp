// SPDX-License-Identifier: Apache-2.0
/// @file The second-order Taylor map: features whose inner product is 1 + s + s^2 / 2, each product of channels once.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/batch.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// x -> [1, y, and y[i] y[j] for i <= j, over sqrt 2 where i = j],   y = x sqrt(scale)
///
/// so that feature(q).feature(k) = 1 + s + s^2 / 2 with s = scale q.k, which is e^s to second order and at least 1/2.
///
/// Shapes     D channels become 1 + D + D (D + 1) / 2 features: 16 become 153. In which order is not promised.
/// Numerics   at most three roundings per feature.
/// Source     Arora et al. 2024 (Based), section 3 and appendix B; Zhang et al. 2024 (Hedgehog), section 3.
struct taylor_second_order {
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given

  static constexpr index_t width(index_t channels) { return 1 + channels + channels * (channels + 1) / 2; }

  template <class T>
  void apply(const T* from, T* to, index_t channels) const {
    constexpr index_t L = simd::lanes<T>;
    scratch_frame frame;
    T* y = frame.take<T>(channels + 2 * L);
    const double of_scores = scale ? *scale : 1 / std::sqrt(static_cast<double>(std::max<index_t>(channels, 1)));
    const simd::batch<T> factor(static_cast<T>(std::sqrt(of_scores)));
    for (index_t i = 0; i < channels; i += L) {
      const index_t n = std::min(L, channels - i);
      simd::store(y + i, simd::load_n(from + i, n) * factor);
    }
    std::fill_n(y + channels, 2 * L, T(0));
    const T* const end = to + width(channels);
    *to++ = T(1);
    to = std::copy_n(y, channels, to);
    // Row i is y[i] y[i], y[i] y[i + 1], ...; registers reach into the next row, which is written later.
    constexpr T half = static_cast<T>(0.70710678118654752440);
    const auto square = simd::first_lanes<T>(1);
    for (index_t i = 0; i < channels; ++i) {
      const simd::batch<T> left(y[i]);
      for (index_t j = i; j < channels; j += L) {
        const simd::batch<T> right = simd::load(y + j);
        const simd::batch<T> products =
            left * (j == i ? simd::select(square, right * simd::batch<T>(half), right) : right);
        T* const at = to + (j - i);
        if (end - at >= L) {
          simd::store(at, products);
        } else {
          simd::store_n(at, products, static_cast<index_t>(end - at));
        }
      }
      to += channels - i;
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
