// SPDX-License-Identifier: Apache-2.0
/// @file Initial values of diagonal transitions: those of HiPPO and what S4D found to do as well.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <utility>
#include <vector>

namespace tokenmix::inline TOKENMIX_ABI {

// All give N continuous eigenvalues with positive imaginary parts, of 2 N that come in conjugate pairs.

/// S4D-Lin: A[n] = -1/2 + i pi n.
///
/// Source     Gu et al. 2022 (S4D), equation 9.
template <class T = float>
tensor<std::complex<T>, 1> s4d_lin(index_t states) {
  tensor<std::complex<T>, 1> A({states});
  for (index_t n = 0; n < states; ++n) A(n) = {T(-0.5), static_cast<T>(std::numbers::pi * static_cast<double>(n))};
  return A;
}

/// S4D-Inv: A[n] = -1/2 + i M / pi (M / (2 n + 1) - 1), M = 2 N being the size with the conjugates.
///
/// Source     Gu et al. 2022 (S4D), equation 8.
template <class T = float>
tensor<std::complex<T>, 1> s4d_inv(index_t states) {
  tensor<std::complex<T>, 1> A({states});
  const double all = 2 * static_cast<double>(states);
  for (index_t n = 0; n < states; ++n)
    A(n) = {T(-0.5), static_cast<T>(all / std::numbers::pi * (all / (2 * static_cast<double>(n) + 1) - 1))};
  return A;
}

namespace detail {

/// The eigenvalues of a symmetric n x n matrix, by Jacobi's rotations; ascending.
inline std::vector<double> symmetric_eigenvalues(std::vector<double> a, std::size_t n) {
  const auto at = [&](std::size_t i, std::size_t j) -> double& { return a[i * n + j]; };
  for (int sweep = 0; sweep < 60; ++sweep) {
    double outside = 0, inside = 0;
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) (i == j ? inside : outside) += at(i, j) * at(i, j);
    if (outside <= 1e-30 * (inside + outside)) break;
    for (std::size_t p = 0; p < n; ++p) {
      for (std::size_t q = p + 1; q < n; ++q) {
        if (at(p, q) == 0) continue;
        const double theta = (at(q, q) - at(p, p)) / (2 * at(p, q));
        const double t = (theta < 0 ? -1.0 : 1.0) / (std::abs(theta) + std::hypot(theta, 1.0));
        const double c = 1 / std::hypot(t, 1.0), s = t * c;
        for (std::size_t k = 0; k < n; ++k) {
          const double kp = at(k, p), kq = at(k, q);
          at(k, p) = c * kp - s * kq;
          at(k, q) = s * kp + c * kq;
        }
        for (std::size_t k = 0; k < n; ++k) {
          const double pk = at(p, k), qk = at(q, k);
          at(p, k) = c * pk - s * qk;
          at(q, k) = s * pk + c * qk;
        }
      }
    }
  }
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = at(i, i);
  std::sort(values.begin(), values.end());
  return values;
}

}  // namespace detail

/// S4D-LegS, the transition S5 begins with: the eigenvalues of HiPPO-LegS without its part of rank one, ascending imaginary parts.
///
///     A = -1/2 + i w,   w > 0 the eigenvalues of -i S,   S[n, k] = sign(k - n) sqrt((2 n + 1) (2 k + 1)) / 2,  2 N x 2 N
///
/// Cost       O(N^3) in double: made for initialisation.
/// Source     Gu et al. 2022 (S4D), section 2 and 3; Smith et al. 2023 (S5), section 3.3.
template <class T = float>
tensor<std::complex<T>, 1> s4d_legs(index_t states) {
  if (states < 0) detail::fail_value("states is ", states, ": a size is not negative");
  // S = [[P, Q], ...] is skew: -i S is Hermitian, and as a real matrix [[0, S], [-S, 0]] has each eigenvalue twice.
  const auto m = static_cast<std::size_t>(2 * states), n = 2 * m;
  std::vector<double> a(n * n);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < m; ++j) {
      if (i == j) continue;
      const double size = std::sqrt(static_cast<double>((2 * i + 1) * (2 * j + 1))) / 2;
      const double s = j > i ? size : -size;
      a[i * n + m + j] = s;
      a[(m + i) * n + j] = -s;
    }
  }
  const std::vector<double> values = detail::symmetric_eigenvalues(std::move(a), n);
  tensor<std::complex<T>, 1> A({states});
  for (index_t k = 0; k < states; ++k) {
    // Ascending: m negative ones, then each positive one twice.
    const auto at = m + 2 * static_cast<std::size_t>(k);
    A(k) = {T(-0.5), static_cast<T>((values[at] + values[at + 1]) / 2)};
  }
  return A;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
