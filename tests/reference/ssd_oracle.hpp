// SPDX-License-Identifier: Apache-2.0
/// @file The duals of a state space token by token in double, with what their errors are measured by.
#pragma once

#include <tokenmix/core/types.hpp>

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace tokenmix::reference {

inline double softplus(double x) { return x > 30 ? x : std::log1p(std::exp(x)); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// One head of a state space with a matrix state S (P, N):
///
///     S = exp(log_decay) (S + before last_x last_k') + own x k',     y = S q
///
/// `size` is the same on absolute values (of a pair that turns, its length), `far` that with every part times its distance.
struct ssd_head {
  std::size_t P, N;
  std::vector<double> S, size, far;                 // (P, N)
  std::vector<double> last_x, last_k, last_length;  // (P), (N), (N)
  std::vector<double> y, y_size, y_far;             // (P)

  ssd_head(std::size_t p, std::size_t n)
      : P(p), N(n), S(p * n), size(p * n), far(p * n), last_x(p), last_k(n), last_length(n), y(p), y_size(p), y_far(p) {}

  /// length: what the magnitudes of k and q are.
  void token(double log_decay, double before, double own, const std::vector<double>& x, const std::vector<double>& k,
             const std::vector<double>& q, const std::vector<double>& k_length, const std::vector<double>& q_length) {
    const bool forgets = std::isinf(log_decay);
    const double keep = std::exp(log_decay);
    for (std::size_t p = 0; p < P; ++p) {
      y[p] = y_size[p] = y_far[p] = 0;
      for (std::size_t n = 0; n < N; ++n) {
        double &s = S[p * N + n], &m = size[p * N + n], &m1 = far[p * N + n];
        if (forgets) {
          s = m = m1 = 0;
        } else {
          if (before != 0) {
            s += before * last_x[p] * last_k[n];
            m += before * std::abs(last_x[p]) * last_length[n];
          }
          m1 = keep * (m1 + m);
          s *= keep;
          m *= keep;
        }
        s += own * x[p] * k[n];
        m += own * std::abs(x[p]) * k_length[n];
        y[p] += s * q[n];
        y_size[p] += m * q_length[n];
        y_far[p] += m1 * q_length[n];
      }
    }
    last_x = x;
    last_k = k;
    last_length = k_length;
  }
};

/// Pairs (2 r, 2 r + 1) of a row turned by angles, and the lengths that bound what turning makes of them.
inline void turn_pairs(std::vector<double>& row, const std::vector<double>& angles, std::vector<double>& length) {
  length.resize(row.size());
  for (std::size_t n = 0; n < row.size(); ++n) length[n] = std::abs(row[n]);
  for (std::size_t r = 0; r < angles.size(); ++r) {
    const double a = row[2 * r], b = row[2 * r + 1], c = std::cos(angles[r]), s = std::sin(angles[r]);
    row[2 * r] = a * c - b * s;
    row[2 * r + 1] = a * s + b * c;
    length[2 * r] = length[2 * r + 1] = std::hypot(a, b);
  }
}

}  // namespace tokenmix::reference
