// SPDX-License-Identifier: Apache-2.0
/// @file What becomes of a query or a key before it meets the state: feature maps and the l2 norm.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/primitives/arithmetic.hpp>
#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

// A feature map is one of three things:
//   - a callable of a register, batch<T> -> batch<T>, applied to every channel;
//   - a callable of a number, T -> T, applied lane by lane;
//   - a map of rows: `width(D)` channels of D, made by `apply(const T* from, T* to, D)`, or, where heads have maps of their own, by
//     `apply(const T* from, T* to, D, head_of_rows)`, of which `check_heads(name, heads)` says whether it has maps for so many.

/// Whose rows a feature map is given: head `index` of `count`, query heads or key heads.
struct head_of_rows {
  index_t index = 0;
  index_t count = 1;
};

/// Queries and keys as they are.
struct as_given {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return x;
  }
};

/// elu(x) + 1: x + 1 above 0, e^x below. Katharopoulos et al. 2020, equation 7.
struct elu_plus_one {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return simd::select(x > simd::batch<T>(T(0)), x + simd::batch<T>(T(1)), simd::exp(x));
  }
};

/// max(x, 0).
struct relu {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    const simd::batch<T> zero(T(0));
    return simd::select(x <= zero, zero, x);  // NaN stays
  }
};

/// max(x, 0)^2.
struct relu_squared {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    const simd::batch<T> positive = relu()(x);
    return positive * positive;
  }
};

/// e^x.
struct exponential {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return simd::exp(x);
  }
};

/// x sigmoid(x), as in Lightning attention.
struct silu {
  template <class T>
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& x) const {
    return x * simd::sigmoid(x);
  }
};

/// x / sqrt(sum of x^2 + epsilon), over the channels of a row.
struct l2_normalized {
  double epsilon = 1e-6;

  static constexpr index_t width(index_t channels) { return channels; }
  template <class T>
  void apply(const T* from, T* to, index_t channels) const {
    constexpr index_t L = simd::lanes<T>;
    simd::batch<T> squares(T(0));
    for (index_t i = 0; i < channels; i += L) {
      const simd::batch<T> x = simd::load_n(from + i, std::min(L, channels - i));
      squares = simd::fma(x, x, squares);
    }
    const simd::batch<T> factor(T(1) / std::sqrt(simd::reduce_add(squares) + static_cast<T>(epsilon)));
    for (index_t i = 0; i < channels; i += L) {
      const index_t n = std::min(L, channels - i);
      simd::store_n(to + i, simd::load_n(from + i, n) * factor, n);
    }
  }
};

/// The softmax of a row over its channels.
struct softmax_of_channels {
  static constexpr index_t width(index_t channels) { return channels; }
  template <class T>
  void apply(const T* from, T* to, index_t channels) const {
    constexpr index_t L = simd::lanes<T>;
    T largest = -std::numeric_limits<T>::infinity();
    for (index_t i = 0; i < channels; ++i) largest = from[i] <= largest ? largest : from[i];  // NaN stays
    simd::batch<T> sums(T(0));
    for (index_t i = 0; i < channels; i += L) {
      const index_t n = std::min(L, channels - i);
      const simd::batch<T> e = simd::exp(simd::load_n(from + i, n) - simd::batch<T>(largest));
      sums = sums + simd::select(simd::first_lanes<T>(n), e, simd::batch<T>(T(0)));
      simd::store_n(to + i, e, n);
    }
    const simd::batch<T> factor(T(1) / simd::reduce_add(sums));
    for (index_t i = 0; i < channels; i += L) {
      const index_t n = std::min(L, channels - i);
      simd::store_n(to + i, simd::load_n(to + i, n) * factor, n);
    }
  }
};

/// One map for queries, another for keys, of the same width.
template <class OfQueries, class OfKeys>
struct feature_pair {
  OfQueries of_queries{};
  OfKeys of_keys{};
};

namespace detail {

template <class F>
concept row_feature = requires(const F& f) {
  { f.width(index_t{}) } -> std::convertible_to<index_t>;
};

template <class F>
inline constexpr bool is_feature_pair = false;
template <class Q, class K>
inline constexpr bool is_feature_pair<feature_pair<Q, K>> = true;

template <class F>
constexpr const auto& query_feature(const F& f) {
  if constexpr (is_feature_pair<F>) {
    return f.of_queries;
  } else {
    return f;
  }
}
template <class F>
constexpr const auto& key_feature(const F& f) {
  if constexpr (is_feature_pair<F>) {
    return f.of_keys;
  } else {
    return f;
  }
}

/// The width of the features of rows of `channels`.
template <class F>
constexpr index_t feature_width(const F& f, index_t channels) {
  if constexpr (row_feature<F>) {
    return f.width(channels);
  } else {
    return channels;
  }
}

/// feature.apply for a row of a head.
template <class F, class T>
void apply_feature(const F& f, const T* from, T* to, index_t channels, head_of_rows head) {
  if constexpr (requires { f.apply(from, to, channels, head); }) {
    f.apply(from, to, channels, head);
  } else {
    f.apply(from, to, channels);
  }
}

template <class F>
void check_feature_heads(const F& f, const char* name, index_t heads) {
  if constexpr (requires { f.check_heads(name, heads); }) f.check_heads(name, heads);
}

/// f of every lane.
template <class T, class F>
TOKENMIX_ALWAYS_INLINE simd::batch<T> feature_of(const F& f, const simd::batch<T>& x) {
  if constexpr (std::is_invocable_r_v<T, const F&, T> && !std::is_invocable_v<const F&, simd::batch<T>>) {
    alignas(64) T numbers[static_cast<std::size_t>(simd::lanes<T>)];
    simd::store(numbers, x);
    for (T& n : numbers) n = f(n);
    return simd::load(numbers);
  } else {
    return f(x);
  }
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
