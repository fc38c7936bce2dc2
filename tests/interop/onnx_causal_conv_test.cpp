// SPDX-License-Identifier: Apache-2.0
// ONNX's CausalConvWithState against the operator's formula in double.
//
// Budget: (k + 1) u (|bias| + sum |w x|) before the activation, whose slope is below 1.1, and 5 u of what it gives.
#include <tokenmix/interop/onnx_causal_conv.hpp>

#include <reference/cases.hpp>
#include <reference/convolution_oracle.hpp>

namespace {

using cases::index_t;
using activation = mix::onnx_conv_activation;

void expect_operator(index_t B, index_t C, index_t T, index_t k, activation a, bool bias, bool past) {
  const auto x = reference::normal<float>({B, C, T}, 1), w = reference::normal<float>({C, 1, k}, 2),
             state = reference::normal<float>({B, C, k - 1}, 3);
  const auto biases = reference::normal<float>({C}, 4);
  mix::tensor<float, 3> out({B, C, T}, cases::untouched<float>()), present({B, C, k - 1}, cases::untouched<float>());
  mix::onnx_causal_conv_inputs<float> in{.input = x, .weight = w};
  if (bias) in.bias = biases;
  if (past) in.past_state = state;
  mix::onnx_causal_conv(in, out.view(),
                        mix::onnx_causal_conv_options<float>{.activation = a, .present_state = present.view()});
  const auto numbers = [](const float* p, index_t n) { return std::vector<double>(p, p + n); };
  for (index_t b = 0; b < B; ++b) {
    for (index_t c = 0; c < C; ++c) {
      const auto line = numbers(x.row(b, c), T),
                 before = past ? numbers(state.row(b, c), k - 1) : std::vector<double>();
      const auto want = reference::short_convolution(line, numbers(w.row(c), k),
                                                     bias ? static_cast<double>(biases(c)) : 0.0, 1, k - 1, before);
      for (index_t t = 0; t < T; ++t) {
        const auto& z = want[static_cast<std::size_t>(t)];
        const double y = a == activation::silu ? z.value / (1 + std::exp(-z.value)) : z.value;
        EXPECT_NEAR(static_cast<double>(out(b, c, t)), y,
                    0x1p-24 * (static_cast<double>(k + 1) * 1.1 * z.magnitude + 5 * std::abs(y)));
      }
      const auto last = reference::last_inputs(line, before, k - 1);
      for (index_t t = 0; t < k - 1; ++t)
        EXPECT_EQ(static_cast<double>(present(b, c, t)), last[static_cast<std::size_t>(t)]);
    }
  }
}

TEST(onnx_causal_conv, oracle) {
  for (const activation a : {activation::none, activation::silu})
    for (const bool past : {false, true})
      for (index_t T : {1, 2, 3, 40}) {
        expect_operator(2, 5, T, 4, a, past, past);
        expect_operator(1, 3, T, 2, a, !past, past);
        expect_operator(1, 3, T, 1, a, true, past);
      }
}

// Decoding with a state in place, 16-bit tensors: the same bits as one call.
TEST(onnx_causal_conv, steps_in_place) {
  const auto x = reference::normal<mix::float16>({2, 9, 12}, 1), w = reference::normal<mix::float16>({9, 1, 4}, 2);
  mix::tensor<mix::float16, 3> whole({2, 9, 12}), steps = whole, state({2, 9, 3});
  const mix::onnx_causal_conv_options<mix::float16> silu{.activation = activation::silu};
  mix::onnx_causal_conv(mix::onnx_causal_conv_inputs<mix::float16>{.input = x, .weight = w}, whole.view(), silu);
  for (index_t t = 0; t < 12; ++t) {
    auto options = silu;
    options.present_state = state;
    mix::onnx_causal_conv(
        mix::onnx_causal_conv_inputs<mix::float16>{.input = x.slice(2, t, 1), .weight = w, .past_state = state},
        steps.slice(2, t, 1), options);
  }
  cases::expect_same_bits<mix::float16, 3>(steps, whole, "steps");
}

TEST(onnx_causal_conv, errors) {
  const mix::tensor<float, 3> x({2, 5, 8}), w({5, 1, 4}), dense({5, 5, 4}), past({2, 5, 4});
  mix::tensor<float, 3> out({2, 5, 8}, cases::untouched<float>());
  const auto fails = [&](const mix::onnx_causal_conv_inputs<float>& in, const std::string& message) {
    try {
      mix::onnx_causal_conv(in, out.view());
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.input = x, .weight = dense}, "weight has 5 inputs per channel, expected 1: the convolution is depthwise");
  fails({.input = x, .weight = w, .past_state = past},
        "initial_state is (2, 5, 4), expected (states, C, (k - 1) dilation) = (2, 5, 3)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
