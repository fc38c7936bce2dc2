// SPDX-License-Identifier: Apache-2.0
// No step allocates, and no call after the first of its kind: scratch is kept by the thread.
//
// Budget: zero calls of operator new.
#include <mixers/linear/linear_cases.hpp>
#include <reference/no_allocation.hpp>

namespace {

using cases::index_t;
using reference::expect_no_allocation;

TEST(linear_allocation, none_per_step_or_call) {
  for (index_t tokens : {1, 100}) {
    const auto q = reference::normal<float>({2, 4, tokens, 40}, 1), k = reference::normal<float>({2, 4, tokens, 40}, 2),
               v = reference::normal<float>({2, 4, tokens, 70}, 3);
    const auto gates = reference::uniform<float>({2, 4, tokens, 40}, 4, -1, 0);
    const mix::tensor<float, 3> beta({2, 4, tokens}, 0.01f);
    mix::tensor<float, 4> state({2, 4, 40, 70}), out({2, 4, tokens, 70});
    const std::string label = std::to_string(tokens) + " tokens, ";
    expect_no_allocation(
        [&] {
          mix::linear_attention(mix::linear_inputs{.q = q, .k = k, .v = v, .initial_state = state}, out.view(),
                                mix::linear_options{.feature = mix::elu_plus_one{}, .final_state = state.view()});
        },
        label + "linear");
    expect_no_allocation(
        [&] {
          mix::kimi_delta_attention(
              mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = gates, .beta = beta, .initial_state = state},
              out.view(), {.final_state = state});
        },
        label + "kimi delta");
    const mix::tensor<float, 2> bonus({4, 40}, 0.5f);
    expect_no_allocation(
        [&] {
          mix::rwkv6(
              mix::rwkv6_inputs{.r = q, .k = k, .v = v, .log_decay = gates, .bonus = bonus, .initial_state = state},
              out.view(), {.final_state = state});
        },
        label + "rwkv6");
    const auto small = reference::normal<float>({2, 4, tokens, 40}, 5, 0.0, 0.01);
    expect_no_allocation(
        [&] {
          mix::rwkv7(
              mix::rwkv7_inputs{
                  .r = q, .k = k, .v = v, .a = small, .b = small, .log_decay = gates, .initial_state = state},
              out.view(), {.final_state = state});
        },
        label + "rwkv7");
    const auto keys = reference::normal<float>({2, 4, tokens, 3, 40}, 6),
               values = reference::normal<float>({2, 4, tokens, 3, 70}, 7);
    const mix::tensor<float, 4> rates({2, 4, tokens, 3}, 0.01f);
    expect_no_allocation(
        [&] {
          mix::delta_product(
              mix::delta_product_inputs{.q = q, .k = keys, .v = values, .beta = rates, .initial_state = state},
              out.view(), {.final_state = state});
        },
        label + "delta product");
  }
}

}  // namespace
