// SPDX-License-Identifier: Apache-2.0
/// @file The parts that look at one token at a time, as a model file has them: projections, RMSNorm, SwiGLU.
#pragma once

#include <string>

#include "../blocks/layers.hpp"
#include "hyper_parameters.hpp"
#include "weights.hpp"

namespace language_model {

namespace mix = tokenmix;
using blocks::linear;
using blocks::rms_norm;

inline linear take_linear(weights& from, const std::string& name, index_t inputs, index_t outputs) {
  return linear(from.take_matrix(name + ".weight", outputs, inputs));
}

inline rms_norm take_rms_norm(weights& from, const std::string& name, index_t width, const hyper_parameters& p) {
  return {from.take_vector(name + ".weight", width), p.norm_epsilon};
}

/// y = W_down (silu(W_gate x) * W_up x) for every row x (Shazeer 2020, "SwiGLU").
class feed_forward {
 public:
  feed_forward(weights& from, const std::string& name, const hyper_parameters& p)
      : gate_(take_linear(from, name + ".gate", p.width, p.hidden)),
        up_(take_linear(from, name + ".up", p.width, p.hidden)),
        down_(take_linear(from, name + ".down", p.hidden, p.width)) {}

  matrix operator()(const matrix& x) const {  // (T, C)
    return down_(blocks::silu(gate_(x)).cwiseProduct(up_(x)));
  }

 private:
  linear gate_, up_, down_;
};

}  // namespace language_model
