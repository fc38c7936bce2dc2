// SPDX-License-Identifier: Apache-2.0
/// @file The VSS block of VMamba: an image scanned along four paths.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <tokenmix/interop/eigen.hpp>
#include <tokenmix/mixers/state_space/selective_scan_2d.hpp>
#include <tokenmix/primitives/grid_paths.hpp>
#include <utility>
#include <vector>

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
  explicit vss_block(vss_weights weights)
      : norm_(weights.norm, weights.norm_bias, weights.norm_epsilon),
        into_(weights.into),
        out_norm_(weights.out_norm, weights.out_norm_bias, weights.norm_epsilon),
        out_(weights.out),
        a_(4 * weights.out_norm.size(), weights.paths[0].log_a.cols()),
        skip_(4, weights.out_norm.size()),
        delta_bias_(4, weights.out_norm.size()),
        w_(std::move(weights)) {
    const index_t E = skip_.cols();
    for (index_t k = 0; k < 4; ++k) {
      const vss_path& path = w_.paths[static_cast<std::size_t>(k)];
      select_.emplace_back(path.select);
      delta_.emplace_back(path.delta);
      a_.middleRows(k * E, E) = -path.log_a.array().exp();
      skip_.row(k) = path.skip;
      delta_bias_.row(k) = path.delta_bias;
    }
  }

  /// image: (height width, C), row after row.
  matrix operator()(const matrix& image, index_t height, index_t width) const {
    const index_t L = image.rows(), E = skip_.cols(), N = a_.cols(), R = w_.paths[0].delta.cols();
    const matrix projected = into_(norm_(image));                // (H W, 2 E)
    matrix x = convolved(projected.leftCols(E), height, width);  // (H W, E)

    matrix selected(4 * L, R + 2 * N), delta(4 * L, E);  // of one path after the other
    for (index_t k = 0; k < 4; ++k) {
      const auto at = static_cast<std::size_t>(k);
      selected.middleRows(k * L, L) = select_[at](x);
      delta.middleRows(k * L, L) = delta_[at](selected.middleRows(k * L, L).leftCols(R));
    }
    mix::tensor<std::int32_t, 2> paths({2, L});  // both walked both ways
    mix::row_path({height, width}, {paths.row(0), static_cast<std::size_t>(L)});
    mix::column_path({height, width}, {paths.row(1), static_cast<std::size_t>(L)});

    matrix y(L, E);  // (H W, E)
    const auto select = [&](index_t first) {
      const index_t row = selected.cols();
      return mix::tensor_view<float, 5>(selected.data() + first, {1, 4, L, 1, N}, {4 * L * row, L * row, row, N, 1});
    };
    mix::selective_scan_2d(
        mix::selective_scan_2d_inputs{.x = as_channels(x, 0, E),                                        // (1, L, E)
                                      .delta = mix::tensor_view<float, 4>(delta.data(), {1, 4, L, E}),  // (1, 4, L, E)
                                      .A = mix::tensor_view<const float, 3>(a_.data(), {4, E, N}),      // (4, E, N)
                                      .B = select(R),                              // (1, 4, L, 1, N)
                                      .C = select(R + N),                          // (1, 4, L, 1, N)
                                      .skip = mix::eigen_view(skip_),              // (4, E)
                                      .delta_bias = mix::eigen_view(delta_bias_),  // (4, E)
                                      .paths = paths},
        as_channels(y, 0, E));
    return image + out_(out_norm_(y).cwiseProduct(silu(projected.rightCols(E))));
  }

 private:
  /// silu of a convolution of each channel with its 3 x 3 taps; the image is surrounded by zeros.
  matrix convolved(const matrix& x, index_t height, index_t width) const {  // (H W, E)
    matrix y = w_.convolution_bias.replicate(x.rows(), 1);
    for (index_t tap = 0; tap < 9; ++tap) {
      const index_t down = tap / 3 - 1, right = tap % 3 - 1;
      const index_t first = std::max<index_t>(0, -right), count = width - std::abs(right);
      for (index_t i = std::max<index_t>(0, -down); i < height - std::max<index_t>(0, down); ++i) {
        y.middleRows(i * width + first, count) +=
            x.middleRows((i + down) * width + first + right, count) * w_.convolution.col(tap).asDiagonal();
      }
    }
    return silu(y);
  }

  layer_norm norm_;
  linear into_;
  layer_norm out_norm_;
  linear out_;
  std::vector<linear> select_, delta_;  // of each path
  matrix a_;                            // (4 E, N)
  matrix skip_, delta_bias_;            // (4, E)
  vss_weights w_;
};

}  // namespace blocks
