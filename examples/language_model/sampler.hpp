// SPDX-License-Identifier: Apache-2.0
/// @file Draws the next token.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <random>

#include "weights.hpp"

namespace language_model {

/// Draws token i with probability exp(logit_i / temperature) / sum; the likeliest one at temperature 0.
///
/// The same seed gives the same tokens everywhere: mt19937_64 is specified to the bit, and the standard library's
/// distributions, which are not, stay out of it.
class sampler {
 public:
  sampler(std::uint64_t seed, double temperature) : random_(seed), temperature_(temperature) {}

  std::uint8_t operator()(const row_vector& logits) {  // (V)
    index_t likeliest = 0;
    const auto highest = static_cast<double>(logits.maxCoeff(&likeliest));
    if (temperature_ <= 0) return static_cast<std::uint8_t>(likeliest);

    const Eigen::ArrayXd weight = ((logits.cast<double>().array() - highest) / temperature_).exp();  // (V)
    double left = weight.sum() * static_cast<double>(random_() >> 11) * 0x1p-53;
    for (index_t i = 0; i < weight.size(); ++i) {
      left -= weight[i];
      if (left < 0) return static_cast<std::uint8_t>(i);
    }
    return static_cast<std::uint8_t>(likeliest);  // rounding ate the last sliver
  }

 private:
  std::mt19937_64 random_;
  double temperature_;
};

}  // namespace language_model
