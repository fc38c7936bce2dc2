// SPDX-License-Identifier: Apache-2.0
/// @file The block of Mamba-2: projection, short convolution, state-space duality, gated norm, projection.
#pragma once

#include <tokenmix/interop/eigen.hpp>
#include <tokenmix/mixers/state_space/causal_conv1d.hpp>
#include <tokenmix/mixers/state_space/ssd.hpp>
#include <utility>

#include "layers.hpp"

namespace blocks {

/// H heads of D channels, N states per channel; G groups of heads share b and c. H D + 2 G N channels are convolved.
struct mamba2_weights {
  matrix into;                  // (2 H D + 2 G N + H, C): gate, x, b, c, delta
  matrix convolution;           // (H D + 2 G N, K)
  row_vector convolution_bias;  // (H D + 2 G N)
  row_vector delta_bias;        // (H)
  row_vector log_a;             // (H): a = -exp(log_a)
  row_vector skip;              // (H)
  row_vector norm;              // (H D)
  matrix out;                   // (C, H D)
  index_t groups = 1;           // G
  float norm_epsilon = 1e-5f;
};

/// What the block remembers of the tokens that it has read, however many.
struct mamba2_state {
  mix::tensor<float, 3> convolution;  // (1, K - 1, H D + 2 G N): the last inputs of the convolution
  mix::tensor<float, 4> scan;         // (1, H, D, N)

  index_t bytes() const { return (convolution.size() + scan.size()) * index_t{sizeof(float)}; }
};

/// Mamba-2 (Dao and Gu 2024, section 7).
///
///     gate, u, delta = W_in token
///     x, b, c        = silu(convolution(u))
///     delta          = softplus(delta + delta_bias)
///     S              = exp(delta a) S + delta x b',  y = (S c + skip x) silu(gate)     for every head, a = -exp(log_a)
///     result         = W_out rms_norm(y)
///
/// One call reads a prompt or one token: either way the state goes in and comes out.
class mamba2_block {
 public:
  explicit mamba2_block(mamba2_weights weights)
      : into_(weights.into),
        norm_(weights.norm, weights.norm_epsilon),
        out_(weights.out),
        a_(-weights.log_a.array().exp()),
        w_(std::move(weights)) {}

  /// The state before the first token.
  mamba2_state make_state() const {
    return {.convolution = mix::tensor<float, 3>({1, w_.convolution.cols() - 1, w_.convolution.rows()}),
            .scan = mix::tensor<float, 4>({1, heads(), head_width(), state_size()})};
  }

  /// Reads tokens that follow those in the state.
  matrix operator()(const matrix& tokens, mamba2_state& state) const {  // (T, C)
    const index_t T = tokens.rows(), H = heads(), D = head_width(), N = state_size(), G = w_.groups;
    const index_t inner = H * D, channels = w_.convolution.rows();
    matrix projected = into_(tokens);  // (T, 2 H D + 2 G N + H)

    const auto xbc = as_channels(projected, inner, channels);  // (1, T, H D + 2 G N)
    mix::causal_conv1d(mix::causal_conv1d_inputs{.x = xbc,
                                                 .weight = mix::eigen_view(w_.convolution),
                                                 .bias = mix::eigen_vector_view(w_.convolution_bias),
                                                 .initial_state = state.convolution},
                       xbc,
                       mix::causal_conv1d_options{.activation = mix::silu{}, .final_state = state.convolution.view()});

    matrix y(T, inner);                                                             // (T, H D)
    mix::ssd(mix::ssd_inputs{.x = as_heads(projected, inner, H, D),                 // (1, T, H, D)
                             .delta = as_channels(projected, inner + channels, H),  // (1, T, H)
                             .A = mix::eigen_vector_view(a_),                       // (H)
                             .B = as_heads(projected, 2 * inner, G, N),             // (1, T, G, N)
                             .C = as_heads(projected, 2 * inner + G * N, G, N),     // (1, T, G, N)
                             .skip = mix::eigen_vector_view(w_.skip),               // (H)
                             .gate = as_heads(projected, 0, H, D),                  // (1, T, H, D)
                             .delta_bias = mix::eigen_vector_view(w_.delta_bias),   // (H)
                             .initial_state = state.scan},
             as_heads(y, 0, H, D),
             mix::ssd_options{.delta_form = mix::delta_form::softplus, .final_state = state.scan.view()});
    return out_(norm_(y));
  }

 private:
  index_t heads() const { return w_.skip.size(); }                                                   // H
  index_t head_width() const { return w_.norm.size() / heads(); }                                    // D
  index_t state_size() const { return (w_.convolution.rows() - w_.norm.size()) / (2 * w_.groups); }  // N

  linear into_;
  rms_norm norm_;
  linear out_;
  row_vector a_;  // (H)
  mamba2_weights w_;
};

}  // namespace blocks
