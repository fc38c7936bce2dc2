// SPDX-License-Identifier: Apache-2.0
// What bad input gets from RWKV, the generalised delta rule, the delta product and write gates: an error that names the
// argument; nothing written. And the gates' formulas as RWKV has them.
//
// Budget: none; gates 1e-5 of outputs of order 1, against log decays made in double.
#include <mixers/linear/linear_cases.hpp>

namespace {

using cases::index_t;
using mix::shape_error;
using mix::value_error;

template <class Error, class Call>
void expect_error(const std::string& message, const Call& call) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what() << "\nexpected: " << message;
  }
}

struct linear_delta_errors : testing::Test {
  mix::tensor<float, 4> q{{2, 4, 10, 8}}, k{{2, 2, 10, 8}}, v{{2, 2, 10, 6}}, gate{{2, 2, 10, 8}};
  mix::tensor<float, 4> out{{2, 4, 10, 6}, cases::untouched<float>()}, state{{2, 2, 8, 6}, cases::untouched<float>()};
  mix::tensor<float, 2> bonus{{2, 8}};
  mix::tensor<float, 5> k_steps{{2, 2, 10, 3, 8}}, v_steps{{2, 2, 10, 3, 6}};
  mix::tensor<float, 4> beta{{2, 2, 10, 3}};
  mix::tensor<float, 3> head_gate{{2, 2, 10}};

  void TearDown() override {
    for (const auto* x : {&out, &state})
      for (float e : *x) ASSERT_TRUE(cases::same_bits(e, cases::untouched<float>())) << "written in spite of an error";
  }
};

TEST_F(linear_delta_errors, rwkv6) {
  const auto inputs = [&] { return mix::rwkv6_inputs{.r = q, .k = k, .v = v, .log_decay = gate, .bonus = bonus}; };
  const auto run = [&](const auto& in) { mix::rwkv6(in, out.view(), {.final_state = state}); };
  const mix::tensor<float, 4> short_keys({2, 2, 9, 8}), narrow({2, 2, 10, 7}), three_heads({2, 3, 10, 8});
  const mix::tensor<float, 2> one_head({1, 8}), narrow_bonus({2, 7}), none;
  auto in = inputs();
  in.k = short_keys;
  expect_error<shape_error>("k has 9 tokens, r has 10", [&] { run(in); });
  in = inputs();
  in.log_decay = narrow;
  expect_error<shape_error>("log_decay has 7 channels, expected 8: k has that many", [&] { run(in); });
  in.log_decay = three_heads;
  expect_error<shape_error>("log_decay has 3 heads, v has 2", [&] { run(in); });
  in = inputs();
  in.bonus = one_head;
  expect_error<shape_error>("bonus has 1 heads, expected 2: k has that many", [&] { run(in); });
  in.bonus = narrow_bonus;
  expect_error<shape_error>("bonus has 7 channels, expected 8", [&] { run(in); });
  in.bonus = none;
  expect_error<shape_error>("bonus has 0 heads, expected 2", [&] { run(in); });
  expect_error<value_error>("order is bidirectional",
                            [&] { mix::rwkv6(inputs(), out.view(), {.order = mix::order::bidirectional}); });
}

TEST_F(linear_delta_errors, low_rank) {
  const mix::tensor<float, 4> narrow({2, 2, 10, 7});
  const mix::tensor<float, 1> rate({2});
  mix::generalized_delta_inputs<float, float> in{.q = q, .k = k, .v = v, .a = k, .b = k};
  const auto run = [&] { mix::generalized_delta_rule(in, out.view(), {.final_state = state}); };
  in.a = narrow;
  expect_error<shape_error>("a is (2, 2, 10, 7), k is (2, 2, 10, 8): they must have the same shape", run);
  in.a = k, in.b = q;
  expect_error<shape_error>("b is (2, 4, 10, 8), k is (2, 2, 10, 8)", run);
  in.b = k, in.log_decay = narrow;
  expect_error<shape_error>("log_decay has 7 channels, expected 8", run);
  in.log_decay = gate, in.rate = rate;
  expect_error<value_error>("rate is given: options.gate has no use for it", run);
  in.log_decay = {};
  expect_error<value_error>("rate is given: without a log_decay there is no gate", run);
  expect_error<shape_error>("r has 4 heads, k has 2, v has 4", [&] {
    const mix::tensor<float, 4> v4({2, 4, 10, 6});
    mix::rwkv7(mix::rwkv7_inputs{.r = q, .k = k, .v = v4, .a = k, .b = k, .log_decay = gate}, out.view());
  });
  expect_error<shape_error>("out overlaps an input", [&] {
    mix::tensor<float, 4> same({1, 1, 4, 8});
    mix::rwkv7(mix::rwkv7_inputs{.r = same, .k = same, .v = same, .a = same, .b = same, .log_decay = same},
               same.view());
  });
}

TEST_F(linear_delta_errors, delta_product) {
  const auto inputs = [&] {
    return mix::delta_product_inputs{.q = q, .k = k_steps, .v = v_steps, .beta = beta, .log_decay = head_gate};
  };
  const auto run = [&](const auto& in) { mix::delta_product(in, out.view(), {.final_state = state}); };
  const mix::tensor<float, 5> two_steps({2, 2, 10, 2, 6}), no_keys({2, 2, 10, 0, 8}), no_values({2, 2, 10, 0, 6});
  const mix::tensor<float, 4> two_betas({2, 2, 10, 2}), short_beta({2, 2, 9, 3});
  const mix::tensor<float, 3> short_gate({2, 2, 9});
  auto in = inputs();
  in.v = two_steps;
  expect_error<shape_error>("v has 2 steps, k has 3", [&] { run(in); });
  in = inputs();
  in.beta = two_betas;
  expect_error<shape_error>("beta has 2 steps, k has 3", [&] { run(in); });
  in.beta = short_beta;
  expect_error<shape_error>("beta has 9 tokens, k has 10", [&] { run(in); });
  in = inputs();
  in.log_decay = short_gate;
  expect_error<shape_error>("log_decay has 9 tokens, k has 10", [&] { run(in); });
  in = inputs();
  in.k = no_keys, in.v = no_values;
  expect_error<shape_error>("k has no steps", [&] { run(in); });
}

TEST_F(linear_delta_errors, write_gates) {
  const mix::tensor<float, 3> short_write({2, 2, 9});
  expect_error<shape_error>("write has 9 tokens, k has 10", [&] {
    mix::delta_rule(mix::delta_inputs{.q = q, .k = k, .v = v, .beta = head_gate, .write = short_write}, out.view());
  });
}

TEST(linear_delta_gates, formulas) {
  const auto x = reference::normal<float>({1, 2, 20, 12}, 1), r = reference::normal<float>({1, 2, 20, 12}, 2, 0.0, 0.3),
             k = reference::normal<float>({1, 2, 20, 12}, 3, 0.0, 0.2);
  const mix::tensor<float, 2> bonus({2, 12}, 0.5f);
  mix::tensor<float, 4> exponential(x.shape()), sigmoid(x.shape()), made(x.shape()), given(x.shape());
  for (index_t i = 0; i < x.size(); ++i) {
    const double e = static_cast<double>(x.data()[i]);
    exponential.data()[i] = static_cast<float>(-std::exp(e));
    sigmoid.data()[i] = static_cast<float>(-std::exp(-0.5) / (1 + std::exp(-e)));
  }
  const auto near = [&](const char* what) {
    for (index_t i = 0; i < x.size(); ++i) EXPECT_NEAR(made.data()[i], given.data()[i], 1e-5f) << what;
  };
  mix::rwkv6(mix::rwkv6_inputs{.r = r, .k = k, .v = k, .log_decay = x, .bonus = bonus}, made.view(),
             mix::rwkv_options{.gate = mix::exponential_gate{}});
  mix::rwkv6(mix::rwkv6_inputs{.r = r, .k = k, .v = k, .log_decay = exponential, .bonus = bonus}, given.view());
  near("exponential");
  mix::tensor<float, 4> minus = k;
  for (float& e : minus) e = -e;
  mix::rwkv7(mix::rwkv7_inputs{.r = r, .k = k, .v = k, .a = minus, .b = k, .log_decay = x}, made.view(),
             mix::rwkv_options{.gate = mix::sigmoid_gate{}});
  mix::rwkv7(mix::rwkv7_inputs{.r = r, .k = k, .v = k, .a = minus, .b = k, .log_decay = sigmoid}, given.view());
  near("sigmoid");
}

}  // namespace
