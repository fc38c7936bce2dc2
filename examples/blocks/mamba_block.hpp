// SPDX-License-Identifier: Apache-2.0
/// @file The block of Mamba: projection, short convolution, selective scan, gate, projection.
#pragma once

#include <tokenmix/interop/eigen.hpp>
#include <tokenmix/mixers/state_space/causal_conv1d.hpp>
#include <tokenmix/mixers/state_space/selective_scan.hpp>
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

/// Mamba (Gu and Dao 2023, section 3.4).
///
///     u, gate       = W_in token
///     x             = silu(convolution(u))
///     delta_r, b, c = W_select x
///     delta         = softplus(W_delta delta_r + delta_bias)
///     h             = exp(delta A) h + delta x b',   y = (h c + skip x) silu(gate)     for every channel, A = -exp(log_a)
///     result        = W_out y
///
/// One call reads a prompt or one token: either way the state goes in and comes out.
class mamba_block {
 public:
  explicit mamba_block(mamba_weights weights)
      : into_(weights.into),
        select_(weights.select),
        delta_(weights.delta),
        out_(weights.out),
        a_(-weights.log_a.array().exp()),
        w_(std::move(weights)) {}

  /// The state before the first token.
  mamba_state make_state() const {
    return {.convolution = mix::tensor<float, 3>({1, w_.convolution.cols() - 1, w_.convolution.rows()}),
            .scan = mix::tensor<float, 3>({1, a_.rows(), a_.cols()})};
  }

  /// Reads tokens that follow those in the state.
  matrix operator()(const matrix& tokens, mamba_state& state) const {  // (T, C)
    const index_t T = tokens.rows(), E = a_.rows(), N = a_.cols(), R = w_.delta.cols();
    matrix projected = into_(tokens);              // (T, 2 E)
    matrix x = projected.leftCols(E);              // (T, E)
    const auto x_channels = as_channels(x, 0, E);  // (1, T, E)
    mix::causal_conv1d(mix::causal_conv1d_inputs{.x = x_channels,
                                                 .weight = mix::eigen_view(w_.convolution),
                                                 .bias = mix::eigen_vector_view(w_.convolution_bias),
                                                 .initial_state = state.convolution},
                       x_channels,
                       mix::causal_conv1d_options{.activation = mix::silu{}, .final_state = state.convolution.view()});

    matrix selected = select_(x);                 // (T, R + 2 N)
    matrix delta = delta_(selected.leftCols(R));  // (T, E)
    matrix y(T, E);                               // (T, E)
    mix::selective_scan(
        mix::selective_scan_inputs{.x = x_channels,                                      // (1, T, E)
                                   .delta = as_channels(delta, 0, E),                    // (1, T, E)
                                   .A = mix::eigen_view(a_),                             // (E, N)
                                   .B = as_heads(selected, R, 1, N),                     // (1, T, 1, N)
                                   .C = as_heads(selected, R + N, 1, N),                 // (1, T, 1, N)
                                   .skip = mix::eigen_vector_view(w_.skip),              // (E)
                                   .gate = as_channels(projected, E, E),                 // (1, T, E)
                                   .delta_bias = mix::eigen_vector_view(w_.delta_bias),  // (E)
                                   .initial_state = state.scan},
        as_channels(y, 0, E),
        mix::selective_scan_options{.delta_form = mix::delta_form::softplus, .final_state = state.scan.view()});
    return out_(y);
  }

 private:
  linear into_, select_, delta_, out_;
  matrix a_;  // (E, N)
  mamba_weights w_;
};

}  // namespace blocks
