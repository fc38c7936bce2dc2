// SPDX-License-Identifier: Apache-2.0
/// @file The parts of a block that look at one token at a time: projections, norms, SiLU, on Eigen's matrices.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <tokenmix/core/tensor.hpp>
#include <utility>

namespace blocks {

namespace mix = tokenmix;
using mix::index_t;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_vector = Eigen::Matrix<float, 1, Eigen::Dynamic>;

/// y = W x for every row x.
///
/// One rank-one update per input channel, so every output is one sum over ascending channels however many rows there are:
/// a token gets the same bits in a long prompt and alone. (x * W^T would let Eigen choose the order by the shape.)
class linear {
 public:
  explicit linear(const matrix& weight) : transposed_(weight.transpose()) {}  // (outputs, inputs)

  matrix operator()(const matrix& x) const {                // (T, inputs)
    matrix y = matrix::Zero(x.rows(), transposed_.cols());  // (T, outputs)
    for (index_t i = 0; i < x.cols(); ++i) y.noalias() += x.col(i) * transposed_.row(i);
    return y;
  }

 private:
  matrix transposed_;  // (inputs, outputs)
};

/// y = w x / sqrt(mean(x^2) + epsilon) for every row x (Zhang and Sennrich 2019).
class rms_norm {
 public:
  rms_norm(row_vector weight, float epsilon) : weight_(std::move(weight)), epsilon_(epsilon) {}  // (C)

  matrix operator()(const matrix& x) const {  // (T, C)
    const Eigen::VectorXf scale = (x.rowwise().squaredNorm() / static_cast<float>(x.cols())).array() + epsilon_;  // (T)
    return scale.cwiseSqrt().cwiseInverse().asDiagonal() * x * weight_.asDiagonal();
  }

 private:
  row_vector weight_;  // (C)
  float epsilon_;
};

/// y = w (x - mean(x)) / sqrt(variance(x) + epsilon) + bias for every row x (Ba et al. 2016).
class layer_norm {
 public:
  layer_norm(row_vector weight, row_vector bias, float epsilon)  // (C), (C)
      : weight_(std::move(weight)), bias_(std::move(bias)), epsilon_(epsilon) {}

  matrix operator()(const matrix& x) const {  // (T, C)
    const matrix centred = x.colwise() - x.rowwise().mean();
    return rms_norm(weight_, epsilon_)(centred).rowwise() + bias_;
  }

 private:
  row_vector weight_, bias_;  // (C), (C)
  float epsilon_;
};

/// silu(a) = a / (1 + exp(-a)).
inline matrix silu(const matrix& x) { return x.array() / (1.0f + (-x.array()).exp()); }

/// Columns of a matrix as heads, in place: (T, H D) of the columns from `first` on as (1, T, H, D).
inline mix::tensor_view<float, 4> as_heads(matrix& x, index_t first, index_t heads, index_t head_width) {
  return {x.data() + first, {1, x.rows(), heads, head_width}, {x.size(), x.cols(), head_width, 1}};
}

/// Columns of a matrix as channels, in place: (T, channels) of the columns from `first` on as (1, T, channels).
inline mix::tensor_view<float, 3> as_channels(matrix& x, index_t first, index_t channels) {
  return {x.data() + first, {1, x.rows(), channels}, {x.size(), x.cols(), 1}};
}

}  // namespace blocks
