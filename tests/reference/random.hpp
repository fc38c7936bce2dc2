// SPDX-License-Identifier: Apache-2.0
/// @file Random tensors that depend on a seed and on nothing else: not on strides, threads or the standard library.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace tokenmix::reference {

/// A sequence of random numbers. Counter based: number i is a hash of (seed, i).
class random_source {
 public:
  explicit random_source(std::uint64_t seed) : key_(mixed(seed + 0x9e3779b97f4a7c15u)) {}

  std::uint64_t bits() { return bits_at(next_++); }
  /// In [0, 1), 53 bits.
  double unit() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * unit(); }
  /// Box-Muller.
  double normal(double mean = 0.0, double deviation = 1.0) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - unit()));
    return mean + deviation * radius * std::cos(2.0 * std::numbers::pi * unit());
  }
  /// In [low, high], both included.
  index_t integer(index_t low, index_t high) {
    const auto span = static_cast<std::uint64_t>(high - low) + 1u;
    return low + static_cast<index_t>(span == 0u ? bits() : bits() % span);
  }

 private:
  static std::uint64_t mixed(std::uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  std::uint64_t bits_at(std::uint64_t i) const { return mixed(key_ + i * 0x9e3779b97f4a7c15u); }

  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

/// Calls f(element) for every element, last axis first in time, whatever the strides.
template <class E, std::size_t R, class F>
void for_each_element(tensor_view<E, R> view, F&& f) {
  if constexpr (R == 0) {
    f(view());
  } else {
    for (index_t i = 0; i < view.extent(0); ++i) for_each_element(view.part(i), f);
  }
}

/// Uniform in [low, high). The defaults are not symmetric around zero, so that sign and mean errors show.
template <class E, std::size_t R>
void fill_uniform(tensor_view<E, R> view, std::uint64_t seed, double low = -0.7, double high = 1.3) {
  random_source random(seed);
  for_each_element(view, [&](E& element) { element = static_cast<E>(random.uniform(low, high)); });
}
template <class E, std::size_t R>
void fill_normal(tensor_view<E, R> view, std::uint64_t seed, double mean = 0.1, double deviation = 1.0) {
  random_source random(seed);
  for_each_element(view, [&](E& element) { element = static_cast<E>(random.normal(mean, deviation)); });
}

/// `uniform<float>({B, H, T, D}, 1)`: a tensor filled so.
template <class E, std::size_t R>
tensor<E, R> uniform(const index_t (&shape)[R], std::uint64_t seed, double low = -0.7, double high = 1.3) {
  tensor<E, R> result(std::to_array(shape));
  fill_uniform(result.view(), seed, low, high);
  return result;
}
template <class E, std::size_t R>
tensor<E, R> normal(const index_t (&shape)[R], std::uint64_t seed, double mean = 0.1, double deviation = 1.0) {
  tensor<E, R> result(std::to_array(shape));
  fill_normal(result.view(), seed, mean, deviation);
  return result;
}

/// The same for shapes that are computed: `uniform<float>(q.shape(), 1)`.
template <class E, std::size_t R>
tensor<E, R> uniform(const extents<R>& shape, std::uint64_t seed, double low = -0.7, double high = 1.3) {
  tensor<E, R> result(shape);
  fill_uniform(result.view(), seed, low, high);
  return result;
}
template <class E, std::size_t R>
tensor<E, R> normal(const extents<R>& shape, std::uint64_t seed, double mean = 0.1, double deviation = 1.0) {
  tensor<E, R> result(shape);
  fill_normal(result.view(), seed, mean, deviation);
  return result;
}

}  // namespace tokenmix::reference
