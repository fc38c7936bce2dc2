// SPDX-License-Identifier: Apache-2.0
/// @file The parts of a transformer that look at one token at a time: projections, RMSNorm, SwiGLU.
#pragma once

#include <Eigen/Core>
#include <string>

#include "hyper_parameters.hpp"
#include "weights.hpp"

namespace language_model {

/// y = W x for every row x.
///
/// One rank-one update per input channel, so every output is one sum over ascending channels however many rows there are:
/// a token gets the same bits in a long prompt and alone. (x * W^T would let Eigen choose the order by the shape.)
class linear {
 public:
  linear(weights& from, const std::string& name, index_t inputs, index_t outputs)
      : transposed_(from.take_matrix(name + ".weight", outputs, inputs).transpose()) {}

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
  rms_norm(weights& from, const std::string& name, const hyper_parameters& p)
      : weight_(from.take_vector(name + ".weight", p.width)), epsilon_(p.norm_epsilon) {}

  matrix operator()(const matrix& x) const {  // (T, C)
    const Eigen::VectorXf scale = (x.rowwise().squaredNorm() / static_cast<float>(x.cols())).array() + epsilon_;  // (T)
    return scale.cwiseSqrt().cwiseInverse().asDiagonal() * x * weight_.asDiagonal();
  }

 private:
  row_vector weight_;  // (C)
  float epsilon_;
};

/// y = W_down (silu(W_gate x) * W_up x) for every row x, with silu(a) = a / (1 + exp(-a)) (Shazeer 2020, "SwiGLU").
class feed_forward {
 public:
  feed_forward(weights& from, const std::string& name, const hyper_parameters& p)
      : gate_(from, name + ".gate", p.width, p.hidden),
        up_(from, name + ".up", p.width, p.hidden),
        down_(from, name + ".down", p.hidden, p.width) {}

  matrix operator()(const matrix& x) const {  // (T, C)
    const matrix gate = gate_(x);             // (T, F)
    const matrix up = up_(x);                 // (T, F)
    return down_(gate.array() / (1.0f + (-gate.array()).exp()) * up.array());
  }

 private:
  linear gate_, up_, down_;
};

}  // namespace language_model
