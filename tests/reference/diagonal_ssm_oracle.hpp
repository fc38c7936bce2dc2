// SPDX-License-Identifier: Apache-2.0
/// @file A diagonal state-space model of one channel, token by token in double, with the size of its terms.
#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace tokenmix::reference {

/// h = transition h + input x, y = factor Re(sum output h) + skip x.
struct diagonal_channel {
  struct result {
    double value;
    double terms;      ///< the sum of the absolute values of all terms
    double far_terms;  ///< that with every term times its distance in tokens
  };

  std::vector<std::complex<double>> transition, input, output, state;
  double factor = 1;
  double skip = 0;
  std::vector<double> terms{}, far_terms{};  ///< of the states

  void start() {
    terms.clear();
    for (const auto& h : state) terms.push_back(std::abs(h));
    far_terms.assign(state.size(), 0.0);
  }
  result step(double x) {
    result y{skip * x, std::abs(skip * x), 0};
    for (std::size_t n = 0; n < state.size(); ++n) {
      const double keep = std::abs(transition[n]);
      // A transition of 0 does not read the state.
      state[n] = keep == 0 ? input[n] * x : transition[n] * state[n] + input[n] * x;
      far_terms[n] = keep == 0 ? 0 : keep * (far_terms[n] + terms[n]);
      terms[n] = (keep == 0 ? 0 : keep * terms[n]) + std::abs(input[n] * x);
      y.value += factor * (output[n] * state[n]).real();
      y.terms += factor * std::abs(output[n]) * terms[n];
      y.far_terms += factor * std::abs(output[n]) * far_terms[n];
    }
    return y;
  }
};

}  // namespace tokenmix::reference
