// SPDX-License-Identifier: Apache-2.0
// causal_conv1d in every type, with an activation, and its steps, which allocate nothing.
//
// Budget: (k + 1) u (|bias| + sum |weight x|), half a step of the type stored; silu of that within 5 u. States: memcmp.
#include <reference/no_allocation.hpp>

#include "causal_conv_cases.hpp"

namespace {

using cases::conv_operands;
using cases::index_t;

TEST(causal_conv1d_types, types_and_activation) {
  for (index_t axis : {1, 2}) {
    conv_operands<double> wide({1, 37, 13, 4, 1}, 8, axis);
    wide.run();
    wide.expect_oracle("double");
    conv_operands<mix::bfloat16> narrow({1, 37, 21, 3, 1}, 8, axis);
    narrow.run();
    narrow.expect_oracle("bfloat16");
    // States in the type of the inputs hold the same.
    auto in = narrow.inputs();
    mix::tensor<mix::bfloat16, 3> initial(narrow.initial.shape()), out(narrow.out.shape());
    for (index_t i = 0; i < initial.size(); ++i) initial.data()[i] = mix::bfloat16(narrow.initial.data()[i]);
    mix::causal_conv1d(
        mix::causal_conv1d_inputs<mix::bfloat16, float, mix::bfloat16>{
            .x = in.x, .weight = in.weight, .bias = in.bias, .initial_state = initial},
        out.view(),
        mix::causal_conv1d_options<mix::as_given, mix::whole_sequences, mix::bfloat16>{.axis = axis,
                                                                                       .final_state = initial.view()});
    cases::expect_same_bits<mix::bfloat16, 3>(out, narrow.out, "states of bfloat16");
    for (index_t i = 0; i < initial.size(); ++i)
      EXPECT_EQ(static_cast<float>(initial.data()[i]), narrow.final_state.data()[i]);

    conv_operands<float> plain({1, 37, 21, 4, 1}, 8, axis);
    conv_operands<float, mix::silu> gated({1, 37, 21, 4, 1}, 8, axis);
    plain.run();
    gated.run();
    for (index_t i = 0; i < plain.out.size(); ++i) {
      const auto z = static_cast<double>(plain.out.data()[i]), want = z / (1 + std::exp(-z));
      EXPECT_NEAR(static_cast<double>(gated.out.data()[i]), want, 5 * 0x1p-24 * std::abs(want));
    }
  }
}

TEST(causal_conv1d_types, steps_allocate_nothing) {
  for (index_t axis : {1, 2}) {
    conv_operands<float, mix::silu> x({3, 1, 70, 4, 1}, 1, axis, 5);
    const std::vector<std::int32_t> pool{4, 0, 2};
    auto options = x.options;
    options.state_index = pool;
    options.final_state = x.initial;
    reference::expect_no_allocation([&] { mix::causal_conv1d(x.inputs(), x.out.view(), options); });
  }
}

}  // namespace
