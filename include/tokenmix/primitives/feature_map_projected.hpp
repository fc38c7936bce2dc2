// SPDX-License-Identifier: Apache-2.0
/// @file Feature maps with weights: positive random features (FAVOR+) and learned softmax features (Hedgehog).
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// A matrix that rows are multiplied by, one for all heads or one for each, kept so that features stand in the lanes. Copies share it.
template <class T>
class row_projection {
 public:
  row_projection() = default;
  /// weight (m, D): feature r of a row x is weight[r].x
  template <class E>
  explicit row_projection(const tensor_view<const E, 2>& weight)
      : row_projection(tensor_view<const E, 3>(weight.data(), {1, weight.extent(0), weight.extent(1)},
                                               {0, weight.stride(0), weight.stride(1)})) {}
  /// weight (heads, m, D), one for each head, or for as many heads in a row as there are to each
  template <class E>
  explicit row_projection(const tensor_view<const E, 3>& weight)
      : heads_(weight.extent(0)), channels_(weight.extent(2)), features_(weight.extent(1)) {
    check_view("weight", weight);
    stride_ = (features_ + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
    auto columns = std::make_shared<tensor<T, 3>>(extents<3>{heads_, channels_, stride_});
    for (index_t h = 0; h < heads_; ++h) {
      for (index_t r = 0; r < features_; ++r) {
        for (index_t d = 0; d < channels_; ++d)
          (*columns)(h, d, r) = static_cast<T>(simd::to<accumulator_t<E>>(weight(h, r, d)));
      }
    }
    columns_ = std::move(columns);
  }

  index_t features() const { return features_; }
  index_t padded_features() const { return stride_; }

  void check(index_t channels) const {
    if (channels != channels_)
      fail_shape("weight has ", channels_, " channels, q and k have ", channels, ": they must be equal");
  }
  void check_heads(const char* name, index_t heads) const {
    if (heads_ == 1 || (heads_ > 0 && heads % heads_ == 0)) return;
    fail_shape("weight has ", heads_, " heads, ", name, " has ", heads, ": the number of heads of ", name,
               " must be a multiple of the number of heads of weight");
  }

  /// to (padded_features) = W (scale x), W being the head's
  void multiply(const T* x, T scale, T* to, head_of_rows head) const {
    scratch_frame frame;
    T* row = frame.take<T>(channels_);
    for (index_t d = 0; d < channels_; ++d) row[d] = scale * x[d];
    const T* columns = columns_->data() + head.index * heads_ / head.count * (channels_ * stride_);
    constexpr index_t L = simd::lanes<T>;
    for (index_t r = 0; r < stride_; r += simd::max_tile_vectors * L) {
      simd::with_tile_vectors(std::min(simd::max_tile_vectors, (stride_ - r) / L), [&](auto vectors) {
        simd::tile_product<T, vectors>({row, channels_, 1}, 1, columns + r, stride_, channels_, to + r, stride_, false);
      });
    }
  }

 private:
  std::shared_ptr<const tensor<T, 3>> columns_;  // (heads, D, padded m)
  index_t heads_ = 1;
  index_t channels_ = 0;
  index_t features_ = 0;
  index_t stride_ = 0;
};

template <class T>
T largest_of(const T* x, index_t n) {
  T largest = -std::numeric_limits<T>::infinity();
  for (index_t i = 0; i < n; ++i) largest = x[i] <= largest ? largest : x[i];  // NaN stays
  return largest;
}

}  // namespace detail

/// What the exponents of positive random features are taken relative to.
enum class favor_reference : unsigned char {
  row_maximum,  ///< the largest of the row: for queries, whose scale a normaliser divides out
  fixed,        ///< a constant: for keys, whose scales count against each other
};

/// x -> (exp(W y - |y|^2 / 2 - reference) + epsilon) / sqrt(m),   y = x sqrt(scale)
///
/// so that feature(q).feature(k) is in the mean over normal W the softmax kernel exp(scale q.k), but for the references.
///
/// Shapes     W: (m, D), or (heads, m, D) for a projection per head, copied; D channels become m features. Where there are more
///            heads than projections, as many heads in a row share each: with one per key head, grouped queries have
///            their keys'.
/// Numerics   exponents of a row relative to its maximum are <= 0; relative to a constant c they are <= max |W[r]|^2 / 2 - c,
///            which overflows in float beyond 88.
/// Errors     shape_error if rows have not D channels, or a number of heads that is no multiple of that of W.
/// Source     Choromanski et al. 2021 (Performers), lemma 1 and section 2.3 (FAVOR+).
template <class T = float>
struct favor_features {
  detail::row_projection<T> projection;
  favor_reference relative_to = favor_reference::row_maximum;
  double reference = 0;           ///< where it is fixed
  double epsilon = 0;             ///< keeps features away from zero; the published code has 1e-4
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given

  index_t width(index_t channels) const {
    projection.check(channels);
    return projection.features();
  }
  void check_heads(const char* name, index_t heads) const { projection.check_heads(name, heads); }
  void apply(const T* from, T* to, index_t channels, head_of_rows head = {}) const {
    constexpr index_t L = simd::lanes<T>;
    const index_t m = projection.features();
    scratch_frame frame;
    T* exponents = frame.take<T>(projection.padded_features());
    const double of_scores = scale ? *scale : 1 / std::sqrt(static_cast<double>(std::max<index_t>(channels, 1)));
    projection.multiply(from, static_cast<T>(std::sqrt(of_scores)), exponents, head);
    simd::batch<T> squares(T(0));
    for (index_t i = 0; i < channels; i += L) {
      const simd::batch<T> x = simd::load_n(from + i, std::min(L, channels - i));
      squares = simd::fma(x, x, squares);
    }
    // Of a row's maximum the norm is a part: it cancels.
    const T norm = static_cast<T>(of_scores / 2) * simd::reduce_add(squares);
    const T shift = relative_to == favor_reference::row_maximum ? detail::largest_of(exponents, m)
                                                                : norm + static_cast<T>(reference);
    const simd::batch<T> from_exponents(shift == -std::numeric_limits<T>::infinity() ? T(0) : shift);
    const simd::batch<T> factor(static_cast<T>(1 / std::sqrt(static_cast<double>(std::max<index_t>(m, 1)))));
    const simd::batch<T> least(static_cast<T>(epsilon));
    for (index_t i = 0; i < m; i += L) {
      const index_t n = std::min(L, m - i);
      const simd::batch<T> e = simd::exp(simd::load(exponents + i) - from_exponents);
      simd::store_n(to + i, (e + least) * factor, n);
    }
  }
};

/// FAVOR+ for queries and keys: one projection, queries relative to their rows' maxima, keys to a constant.
template <class T = float, class E, std::size_t R>
  requires(R == 2 || R == 3)
feature_pair<favor_features<T>, favor_features<T>> favor_plus(tensor_view<const E, R> weight,  // (m, D) or (Hk, m, D)
                                                              double key_reference = 0, double epsilon = 0,
                                                              std::optional<double> scale = {}) {
  const detail::row_projection<T> projection(weight);
  return {{projection, favor_reference::row_maximum, 0, epsilon, scale},
          {projection, favor_reference::fixed, key_reference, epsilon, scale}};
}

/// x -> softmax of [W x, -W x] over its 2 m features
///
/// Shapes     weight: (m, D), or (heads, m, D) for weights per head, copied; D channels become 2 m features. Where there are
///            more heads than weights, as many heads in a row share each. Queries and keys learn weights of their own:
///            feature_pair{hedgehog_features(of_queries), hedgehog_features(of_keys)}.
/// Numerics   exponents are relative to the largest, none exceeds 0.
/// Errors     shape_error if rows have not D channels, or a number of heads that is no multiple of that of the weights.
/// Source     Zhang et al. 2024 (Hedgehog), section 4.2, with the softmax of the authors' code.
template <class T = float>
struct hedgehog_features {
  detail::row_projection<T> projection;

  hedgehog_features() = default;
  template <class E, std::size_t R>
    requires(R == 2 || R == 3)
  explicit hedgehog_features(const tensor_view<const E, R>& weight) : projection(weight) {}

  index_t width(index_t channels) const {
    projection.check(channels);
    return 2 * projection.features();
  }
  void check_heads(const char* name, index_t heads) const { projection.check_heads(name, heads); }
  void apply(const T* from, T* to, index_t /*channels*/, head_of_rows head = {}) const {
    constexpr index_t L = simd::lanes<T>;
    const index_t m = projection.features();
    scratch_frame frame;
    T* both = frame.take<T>(2 * projection.padded_features());
    projection.multiply(from, T(1), both, head);
    for (index_t i = 0; i < m; i += L) {
      const index_t n = std::min(L, m - i);
      simd::store_n(both + m + i, simd::batch<T>(T(0)) - simd::load(both + i), n);
    }
    softmax_of_channels().apply(static_cast<const T*>(both), to, 2 * m);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
