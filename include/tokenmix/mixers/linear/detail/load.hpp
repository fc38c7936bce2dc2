// SPDX-License-Identifier: Apache-2.0
/// @file Rows of tokens from anybody's memory into scratch: converted, mapped, scaled, padded with zeros.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/simd/convert.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// to (count, stride) = scale feature(rows), the rows being a head's, stride the features in whole registers; what lies beyond the features is zero.
template <class T, class E, class Feature>
void load_features(const Feature& feature, token_rows<const E> rows, index_t first, index_t count, index_t channels,
                   T scale, T* to, index_t stride, [[maybe_unused]] head_of_rows head = {}) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> factor(scale);
  const simd::batch<T> zero(T(0));
  if constexpr (row_feature<Feature>) {
    scratch_frame frame;
    const index_t width = feature_width(feature, channels);
    T* row = frame.take<T>(whole_registers<T>(channels));
    T* mapped = frame.take<T>(stride);
    for (index_t t = 0; t < count; ++t) {
      simd::convert_row(rows[first + t], row, channels);
      apply_feature(feature, static_cast<const T*>(row), mapped, channels, head);
      for (index_t i = 0; i < stride; i += L) {
        const index_t n = std::clamp<index_t>(width - i, 0, L);
        const simd::batch<T> x = simd::load(mapped + i) * factor;
        simd::store(to + t * stride + i, simd::select(simd::first_lanes<T>(n), x, zero));
      }
    }
  } else {
    for (index_t t = 0; t < count; ++t) {
      const E* row = rows[first + t];
      T* mapped = to + t * stride;
      index_t i = 0;
      for (; i + L <= channels; i += L)
        simd::store(mapped + i, feature_of<T>(feature, simd::load_as<T>(row + i)) * factor);
      if (i < channels) {
        const simd::batch<T> x = feature_of<T>(feature, simd::load_as_n<T>(row + i, channels - i)) * factor;
        simd::store(mapped + i, simd::select(simd::first_lanes<T>(channels - i), x, zero));
      }
    }
  }
}

/// to (count, width) = channels [channel, channel + width) of the rows, zeros behind their last. Numbers of another computing
/// type (log decays in double beside float) are rounded one by one.
template <class T, class E>
void load_channels(token_rows<const E> rows, index_t first, index_t count, index_t channels, index_t channel, T* to,
                   index_t width) {
  constexpr index_t L = simd::lanes<T>;
  for (index_t t = 0; t < count; ++t) {
    const E* row = rows[first + t] + channel;
    T* line = to + t * width;
    for (index_t i = 0; i < width; i += L) {
      const index_t n = channels - channel - i;
      if constexpr (!std::is_same_v<simd::computed_t<E>, T>) {
        for (index_t j = i; j < i + L; ++j) line[j] = j < channels - channel ? static_cast<T>(row[j]) : T(0);
      } else if (n >= L) {
        simd::store(line + i, simd::load_as<T>(row + i));
      } else if (n > 0) {
        simd::store(line + i, simd::load_as_n<T>(row + i, n));
      } else {
        simd::store(line + i, simd::batch<T>(T(0)));
      }
    }
  }
}

/// The sum of a[i] b[i] over whole registers, lanes first.
template <class T>
T dot_of_rows(const T* a, const T* b, index_t width) {
  simd::batch<T> sum(T(0));
  for (index_t i = 0; i < width; i += simd::lanes<T>) sum = simd::fma(simd::load(a + i), simd::load(b + i), sum);
  return simd::reduce_add(sum);
}

/// The sum of a[i] weights[i] b[i] over whole registers, lanes first.
template <class T>
T weighted_dot_of_rows(const T* a, const T* weights, const T* b, index_t width) {
  simd::batch<T> sum(T(0));
  for (index_t i = 0; i < width; i += simd::lanes<T>)
    sum = simd::fma(simd::load(a + i) * simd::load(weights + i), simd::load(b + i), sum);
  return simd::reduce_add(sum);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
