// SPDX-License-Identifier: Apache-2.0
/// @file The block of Mamba: projection, short convolution, selective scan, gate, projection.
#pragma once

#include <tokenmix/state_space.hpp>
#include <utility>

#include "layers.hpp"

namespace blocks {

/// E channels inside, N states for each of them, K taps of the convolution, R the rank of the step sizes.
struct mamba_weights {
  matrix into;                  // (2 E, C): x, gate
  matrix convolution;           // (E, K)
  row_vector convolution_bias;  // (E)
  matrix select;                // (R + 2 N, E): delta's R numbers, b, c
  matrix delta;                 // (E, R)
  row_vector delta_bias;        // (E)
  matrix log_a;                 // (E, N): A = -exp(log_a)
  row_vector skip;              // (E)
  matrix out;                   // (C, E)
};

/// What the block remembers of the tokens that it has read, however many.
struct mamba_state {
  mix::tensor<float, 3> convolution;  // (1, E, K - 1): the last inputs of the convolution
  mix::tensor<float, 3> scan;         // (1, E, N)

  index_t bytes() const { return (convolution.size() + scan.size()) * index_t{sizeof(float)}; }
};
