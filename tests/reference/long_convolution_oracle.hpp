// SPDX-License-Identifier: Apache-2.0
/// @file A long convolution as the sum it stands for, in a wider type, with the size of its terms.
#pragma once

#include <tokenmix/core/tensor.hpp>

#include <cmath>
#include <vector>

#include <reference/exact.hpp>

namespace tokenmix::reference {

/// One channel of one sequence.
template <class Real>
struct convolution_line {
  std::vector<Real> x, pre_gate, post_gate;  ///< gates: empty if there are none
  std::vector<Real> taps;
  Real skip = 0;
  index_t future = 0;
  bool circular = false;
  bool reversed = false;
};

template <class Real>
struct convolution_result {
  std::vector<Real> out;
  std::vector<Real> terms;  ///< the sum of the absolute values of the terms, times the gate
  std::vector<Real> gate;   ///< of the output: 1 if there is none
  Real norms = 0;           ///< |taps|_2 |u|_2
};

template <class Real>
convolution_result<Real> long_convolution_oracle(const convolution_line<Real>& in) {
  const auto n = static_cast<index_t>(in.x.size()), L = static_cast<index_t>(in.taps.size());
  const auto at = [](const std::vector<Real>& v, index_t i) { return v[static_cast<std::size_t>(i)]; };
  const auto u = [&](index_t t) { return in.pre_gate.empty() ? at(in.x, t) : at(in.x, t) * at(in.pre_gate, t); };
  convolution_result<Real> result;
  Real of_taps = 0, of_u = 0;
  for (const Real tap : in.taps) of_taps += tap * tap;
  for (index_t t = 0; t < n; ++t) of_u += u(t) * u(t);
  result.norms = std::sqrt(of_taps) * std::sqrt(of_u);
  for (index_t t = 0; t < n; ++t) {
    Real sum = in.skip * u(t), terms = std::abs(sum);
    for (index_t l = 0; l < L; ++l) {
      index_t s = in.reversed ? t - in.future + l : t + in.future - l;
      if (in.circular) s = (s % n + n) % n;
      if (s < 0 || s >= n) continue;
      sum += at(in.taps, l) * u(s);
      terms += std::abs(at(in.taps, l) * u(s));
    }
    const Real gate = in.post_gate.empty() ? Real(1) : at(in.post_gate, t);
    result.out.push_back(sum * gate);
    result.terms.push_back(terms * std::abs(gate));
    result.gate.push_back(std::abs(gate));
  }
  return result;
}

}  // namespace tokenmix::reference
