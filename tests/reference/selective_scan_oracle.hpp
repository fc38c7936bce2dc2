// SPDX-License-Identifier: Apache-2.0
/// @file The selective scan in double, token by token, in plain loops; and what its errors are measured by.
#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include <reference/exact.hpp>

namespace tokenmix::reference {

/// One sequence, everything as numbers in the order in which tokens are met. Empty vectors are absent operands.
struct selective_scan_problem {
  using number = std::complex<double>;
  index_t tokens = 0, channels = 0, groups = 1, states = 0;
  std::vector<double> x, delta, gate;  // (T, D)
  std::vector<number> A;               // (D, N)
  std::vector<number> B, C;            // (T, G, N), or (D, N) where constant
  bool constant_B = false, constant_C = false;
  std::vector<double> skip, bias;  // (D)
  std::vector<number> initial;     // (D, N)
  bool softplus = false;
  bool complex = false;  // y is twice the real part
};

struct selective_scan_answer {
  std::vector<double> out;                              // (T, D)
  std::vector<double> magnitude, distance;              // (T, D): A and A1
  std::vector<std::complex<double>> state;              // (D, N)
  std::vector<double> state_magnitude, state_distance;  // (D, N)
};

/// Exponents count as distances: a rounded exponent of 10 is 10 times a rounded factor.
inline selective_scan_answer selective_scan(const selective_scan_problem& p) {
  using number = std::complex<double>;
  const auto T = static_cast<std::size_t>(p.tokens), D = static_cast<std::size_t>(p.channels),
             G = static_cast<std::size_t>(p.groups), N = static_cast<std::size_t>(p.states);
  selective_scan_answer a;
  a.out.assign(T * D, 0), a.magnitude.assign(T * D, 0), a.distance.assign(T * D, 0);
  a.state = p.initial.empty() ? std::vector<number>(D * N) : p.initial;
  a.state_magnitude.assign(D * N, 0), a.state_distance.assign(D * N, 0);
  for (std::size_t d = 0; d < D; ++d) {
    const std::size_t g = d / (D / G);
    for (std::size_t n = 0; n < N; ++n) a.state_magnitude[d * N + n] = std::abs(a.state[d * N + n]);
    for (std::size_t t = 0; t < T; ++t) {
      double delta = p.delta[t * D + d];
      if (!p.bias.empty()) delta += p.bias[d];
      if (p.softplus) delta = delta > 0 ? delta + std::log1p(std::exp(-delta)) : std::log1p(std::exp(delta));
      const double x = p.x[t * D + d];
      double y = 0, magnitude = 0, distance = 0;
      for (std::size_t n = 0; n < N; ++n) {
        const std::size_t i = d * N + n;
        const number b = p.constant_B ? p.B[i] : p.B[(t * G + g) * N + n];
        const number c = p.constant_C ? p.C[i] : p.C[(t * G + g) * N + n];
        const number exponent = delta * p.A[i], write = delta * b * x;
        const double keep = std::exp(exponent.real());
        if (keep == 0) {
          a.state[i] = write;
          a.state_distance[i] = a.state_magnitude[i] = 0;
        } else {
          a.state[i] = keep * std::polar(1.0, exponent.imag()) * a.state[i] + write;
          a.state_distance[i] = keep * (a.state_distance[i] + a.state_magnitude[i] * (1 + std::abs(exponent.real())));
          a.state_magnitude[i] *= keep;
        }
        a.state_magnitude[i] += std::abs(write);
        const number read = c * a.state[i];
        y += p.complex ? 2 * read.real() : read.real();
        magnitude += (p.complex ? 2 : 1) * std::abs(c) * a.state_magnitude[i];
        distance += (p.complex ? 2 : 1) * std::abs(c) * a.state_distance[i];
      }
      if (!p.skip.empty()) y += p.skip[d] * x, magnitude += std::abs(p.skip[d] * x);
      if (!p.gate.empty()) {
        const double z = p.gate[t * D + d];
        const double silu = z / (1 + std::exp(-z));
        y *= silu, distance *= std::abs(silu);
        magnitude *= std::abs(silu) * (1 + (z < 0 ? -z : 0));
      }
      a.out[t * D + d] = y, a.magnitude[t * D + d] = magnitude, a.distance[t * D + d] = distance;
    }
  }
  return a;
}

}  // namespace tokenmix::reference
