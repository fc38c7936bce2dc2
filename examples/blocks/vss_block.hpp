// SPDX-License-Identifier: Apache-2.0
/// @file The VSS block of VMamba: an image scanned along four paths.
#pragma once

#include <algorithm>
#include <array>
#include <tokenmix/interop/eigen.hpp>
#include <tokenmix/state_space.hpp>
#include <utility>

#include "layers.hpp"

namespace blocks {

/// What one of the four paths selects by: as in mamba_weights.
struct vss_path {
  matrix select;          // (R + 2 N, E): delta's R numbers, b, c
  matrix delta;           // (E, R)
  row_vector delta_bias;  // (E)
  matrix log_a;           // (E, N): A = -exp(log_a)
  row_vector skip;        // (E)
};

/// E channels inside, N states for each of them, R the rank of the step sizes.
struct vss_weights {
  row_vector norm, norm_bias;          // (C), (C)
  matrix into;                         // (2 E, C): x, gate
  matrix convolution;                  // (E, 9): 3 rows of 3 taps
  row_vector convolution_bias;         // (E)
  std::array<vss_path, 4> paths;       // rows, columns, rows from the end, columns from the end
  row_vector out_norm, out_norm_bias;  // (E), (E)
  matrix out;                          // (C, E)
  float norm_epsilon = 1e-5f;
};

/// The block of VMamba (Liu et al. 2024), with SS2D and a gate.
///
///     x, gate = W_in layer_norm(image)
///     x       = silu(convolution of 3 x 3 pixels(x))
///     y       = sum over four paths through the pixels of the selective scan of x along the path
///     result  = image + W_out (layer_norm(y) silu(gate))
///
/// Every pixel sees all others: an image comes as a whole, and there is no state.
class vss_block {
 public:
  explicit vss_block(vss_weights weights);
};

}  // namespace blocks
