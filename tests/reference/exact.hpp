// SPDX-License-Identifier: Apache-2.0
/// @file Elements of any type as the numbers that an oracle computes with, and how finely their types are spaced.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/tensor.hpp>

namespace tokenmix::reference {

/// The number type of the oracle of a kernel that computes in T: at least 11 bits wider.
template <class T>
using oracle_real = std::conditional_t<std::is_same_v<T, double>, long double, double>;

/// The exact value of an element.
template <class Real, class E>
Real exact(E value) {
  if constexpr (std::is_arithmetic_v<E>) {
    return static_cast<Real>(value);
  } else {
    return static_cast<Real>(static_cast<float>(value));
  }
}

/// The exact values of all elements of a view, in row-major order.
template <class Real, class E, std::size_t R>
std::vector<Real> exact_values(const tokenmix::tensor_view<const E, R>& view) {
  std::vector<Real> values;
  if (view.size() == 0) return values;
  values.reserve(static_cast<std::size_t>(view.size()));
  tokenmix::extents<R> at{};
  for (index_t n = 0; n < view.size(); ++n) {
    index_t offset = 0;
    for (std::size_t axis = 0; axis < R; ++axis) offset += at[axis] * view.stride(axis);
    values.push_back(exact<Real>(view.data()[offset]));
    for (std::size_t axis = R; axis-- > 0;) {
      if (++at[axis] < view.extent(axis)) break;
      at[axis] = 0;
    }
  }
  return values;
}

/// The distance from |value| to the next element of O above it: exponent ranges as storage has them.
template <class O>
double element_ulp(double value) {
  int digits = 24, lowest = -149;
  if constexpr (std::is_same_v<O, tokenmix::bfloat16>) digits = 8, lowest = -133;
  if constexpr (std::is_same_v<O, tokenmix::float16>) digits = 11, lowest = -24;
  if constexpr (std::is_same_v<O, double>) digits = 53, lowest = -1074;
  const double size = std::abs(value);
  if (size == 0 || !std::isfinite(size)) return std::ldexp(1.0, lowest);
  return std::ldexp(1.0, std::max(std::ilogb(size) - digits + 1, lowest));
}

/// Unit round-off of the type that a kernel computes in.
template <class T>
constexpr double unit_roundoff() {
  return std::is_same_v<T, double> ? 0x1p-53 : 0x1p-24;
}

}  // namespace tokenmix::reference
