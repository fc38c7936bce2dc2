// SPDX-License-Identifier: Apache-2.0
/// @file The CausalConvWithState operator of ONNX: channels before time, read in place.
#pragma once

#include <tokenmix/mixers/state_space/causal_conv1d.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The operator's attribute activation; its "swish" is silu.
enum class onnx_conv_activation : unsigned char { none, silu };

/// The operator's inputs, all of one type.
template <class E>
struct onnx_causal_conv_inputs {
  tensor_view<const E, 3> input{};       // (B, C, T)
  tensor_view<const E, 3> weight{};      // (C, 1, k)
  tensor_view<const E, 1> bias{};        // (C); none if empty
  tensor_view<const E, 3> past_state{};  // (B, C, k - 1); zero if empty
};

/// The operator's attribute and its second output.
template <class E>
struct onnx_causal_conv_options {
  onnx_conv_activation activation = onnx_conv_activation::none;
  tensor_view<E, 3> present_state{};  ///< (B, C, k - 1); may be the past state; none if empty
};

/// The CausalConvWithState operator of ONNX, opset 27: causal_conv1d with time on the last axis, nothing copied.
///
///     output[b, c, t]     = activation(bias[c] + sum over j < k of weight[c, 0, j] line[t + j])
///     line                = past_state[b, c] and then input[b, c]
///     present_state[b, c] = the last k - 1 numbers of line
///
/// Shapes     input, output: (B, C, T); weight: (C, 1, k); bias: (C); states: (B, C, k - 1).
/// Aliasing   output may be input itself, present_state may be past_state itself; otherwise no element is shared.
/// Numerics   as causal_conv1d: 16-bit inputs are computed in float; states are exact.
/// Cost       as causal_conv1d.
/// Errors     shape_error and value_error as causal_conv1d's, and for a weight whose middle axis is not 1; nothing is written then.
/// Source     ONNX operators, CausalConvWithState, version 27.
template <class E, class O, executor Executor = calling_thread>
void onnx_causal_conv(const onnx_causal_conv_inputs<E>& inputs, tensor_view<O, 3> output,  // (B, C, T)
                      const onnx_causal_conv_options<E>& options = {}, Executor&& on = {}) {
  const auto& w = inputs.weight;
  detail::check_view("weight", w);
  detail::check_extent("weight", w, 1, "inputs per channel", 1, "the convolution is depthwise");
  const tensor_view<const E, 2> weight(w.data(), {w.extent(0), w.extent(2)}, {w.stride(0), w.stride(2)});
  const auto run = [&](const auto& activation) {
    using Activation = std::remove_cvref_t<decltype(activation)>;
    causal_conv1d(
        causal_conv1d_inputs<E, E, E>{
            .x = inputs.input, .weight = weight, .bias = inputs.bias, .initial_state = inputs.past_state},
        output, causal_conv1d_options<Activation, whole_sequences, E>{.axis = 2, .final_state = options.present_state},
        on);
  };
  if (options.activation == onnx_conv_activation::silu) {
    run(silu{});
  } else {
    run(as_given{});
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
