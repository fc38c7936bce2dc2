// SPDX-License-Identifier: Apache-2.0
/// @file The Mamba-2 block of one layer, with the weights of a model file.
#pragma once

#include <string>

#include "../blocks/mamba2_block.hpp"
#include "hyper_parameters.hpp"
#include "weights.hpp"

namespace language_model {

class mamba2 {
 public:
  using memory = blocks::mamba2_state;

  mamba2(weights& from, const std::string& name, const hyper_parameters& p) : block_(take_block(from, name, p)) {}

  /// As large for any number of tokens.
  memory make_memory(index_t) const { return block_.make_state(); }

  matrix operator()(const matrix& x, memory& past) const { return block_(x, past); }  // (T, C)

 private:
  static blocks::mamba2_block take_block(weights& from, const std::string& name, const hyper_parameters& p) {
    const index_t inner = p.state_heads * p.state_head_width;
    const index_t channels = inner + 2 * p.state_size;
    return blocks::mamba2_block(
        {.into = from.take_matrix(name + ".into.weight", inner + channels + p.state_heads, p.width),
         .convolution = from.take_matrix(name + ".convolution.weight", channels, p.convolution_width),
         .convolution_bias = from.take_vector(name + ".convolution.bias", channels),
         .delta_bias = from.take_vector(name + ".delta_bias", p.state_heads),
         .log_a = from.take_vector(name + ".log_a", p.state_heads),
         .skip = from.take_vector(name + ".skip", p.state_heads),
         .norm = from.take_vector(name + ".norm.weight", inner),
         .out = from.take_matrix(name + ".out.weight", p.width, inner),
         .groups = 1,
         .norm_epsilon = p.norm_epsilon});
  }

  blocks::mamba2_block block_;
};

}  // namespace language_model
