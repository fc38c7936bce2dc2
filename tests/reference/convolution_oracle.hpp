// SPDX-License-Identifier: Apache-2.0
/// @file A short depthwise convolution in double, one token and one channel at a time.
#pragma once

#include <tokenmix/core/types.hpp>

#include <cmath>
#include <vector>

namespace tokenmix::reference {

/// What a tap chain sums up, and the sum of the magnitudes.
struct convolution_sum {
  double value = 0;
  double magnitude = 0;
};

/// One channel of one sequence in the order of processing: `before` tokens of taps lie before the present one.
///
///     y[t] = bias + sum over j < k of w[j] x[t + j dilation - before]
///
/// with past[past.size() + t] for t < 0 if there is a past, else 0, and 0 beyond the end.
inline std::vector<convolution_sum> short_convolution(const std::vector<double>& x, const std::vector<double>& w,
                                                      double bias, index_t dilation, index_t before,
                                                      const std::vector<double>& past) {
  const auto T = static_cast<index_t>(x.size()), P = static_cast<index_t>(past.size());
  std::vector<convolution_sum> y(x.size());
  for (index_t t = 0; t < T; ++t) {
    convolution_sum sum{bias, std::abs(bias)};
    for (std::size_t j = 0; j < w.size(); ++j) {
      const index_t s = t + static_cast<index_t>(j) * dilation - before;
      double value = 0;
      if (s >= 0 && s < T) value = x[static_cast<std::size_t>(s)];
      if (s < 0 && P + s >= 0) value = past[static_cast<std::size_t>(P + s)];
      sum.value += w[j] * value;
      sum.magnitude += std::abs(w[j] * value);
    }
    y[static_cast<std::size_t>(t)] = sum;
  }
  return y;
}

/// The last `size` inputs, those of the past included, zero where there is none.
inline std::vector<double> last_inputs(const std::vector<double>& x, const std::vector<double>& past, index_t size) {
  std::vector<double> all(static_cast<std::size_t>(size), 0.0);
  all.insert(all.end(), past.begin(), past.end());
  all.insert(all.end(), x.begin(), x.end());
  return {all.end() - size, all.end()};
}

}  // namespace tokenmix::reference
