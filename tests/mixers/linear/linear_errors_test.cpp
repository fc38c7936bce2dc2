// SPDX-License-Identifier: Apache-2.0
// What bad input gets: an error that names the argument, what it is and what was expected; nothing written.
//
// Budget: none.
#include <mixers/linear/linear_cases.hpp>

namespace {

using cases::index_t;

template <class Error, class Call>
void expect_error(const std::string& message, const Call& call) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what() << "\nexpected: " << message;
  }
}

struct linear_errors : testing::Test {
  mix::tensor<float, 4> q{{2, 4, 10, 8}}, k{{2, 2, 10, 8}}, v{{2, 2, 10, 6}};
  mix::tensor<float, 4> out{{2, 4, 10, 6}, cases::untouched<float>()}, state{{2, 2, 8, 6}, cases::untouched<float>()};
  mix::tensor<float, 3> gate{{2, 2, 10}}, beta{{2, 2, 10}};
  mix::tensor<float, 4> channels{{2, 2, 10, 8}};

  void TearDown() override {
    for (const auto* x : {&out, &state})
      for (float e : *x) ASSERT_TRUE(cases::same_bits(e, cases::untouched<float>())) << "written in spite of an error";
  }
  auto inputs() const { return mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = gate, .beta = beta}; }
};

TEST_F(linear_errors, shapes) {
  const auto attend = [&](const auto& q1, const auto& k1, const auto& v1, auto& out1) {
    mix::linear_attention(q1, k1, v1, out1);
  };
  const auto shape = [](index_t b, index_t h, index_t t, index_t d) { return mix::tensor<float, 4>({b, h, t, d}); };
  using mix::shape_error;
  expect_error<shape_error>("k has 3 batch elements, q has 2", [&] { attend(q, shape(3, 2, 10, 8), v, out); });
  expect_error<shape_error>("k has 9 tokens, q has 10", [&] { attend(q, shape(2, 2, 9, 8), v, out); });
  expect_error<shape_error>("v has 9 tokens, k has 10", [&] { attend(q, k, shape(2, 2, 9, 6), out); });
  expect_error<shape_error>("k has 7 channels, q has 8", [&] { attend(q, shape(2, 2, 10, 7), v, out); });
  expect_error<shape_error>("k has 3 heads, q has 4: the number of query heads must be a multiple",
                            [&] { attend(q, shape(2, 3, 10, 8), v, out); });
  expect_error<shape_error>("k has 2 heads, v has 3: the number of value heads must be a multiple",
                            [&] { attend(q, k, shape(2, 3, 10, 6), out); });
  expect_error<shape_error>("q has 4 heads, k has 2, v has 4: q or v must have as many heads as k",
                            [&] { attend(q, k, shape(2, 4, 10, 6), out); });
  auto narrow = shape(2, 4, 10, 5);
  expect_error<shape_error>("out is (2, 4, 10, 5), expected (B, H, T, Dv) = (2, 4, 10, 6)",
                            [&] { attend(q, k, v, narrow); });
  expect_error<shape_error>("out overlaps an input", [&] { attend(q, k, k, q); });
}

TEST_F(linear_errors, gates) {
  using mix::shape_error;
  const auto run = [&](auto in) { mix::gated_delta_rule(in, out.view(), {.final_state = state}); };
  const mix::tensor<float, 3> three_heads({2, 3, 10}), short_gate({2, 2, 9});
  const mix::tensor<float, 4> wide({2, 2, 10, 9});
  auto in = inputs();
  in.log_decay = three_heads;
  expect_error<shape_error>("log_decay has 3 heads, v has 2: the number of value heads must be a multiple of the number "
                            "of gate heads",
                            [&] { run(in); });
  in = inputs();
  in.beta = short_gate;
  expect_error<shape_error>("beta has 9 tokens, k has 10", [&] { run(in); });
  expect_error<shape_error>("log_decay has 9 channels, expected 8: k has that many", [&] {
    mix::kimi_delta_attention(mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = wide, .beta = beta},
                              out.view());
  });
  expect_error<shape_error>("log_decay has 8 channels, expected 6: v has that many", [&] {
    mix::gated_linear_attention(mix::gated_linear_inputs{.q = q, .k = k, .v = v, .log_decay = channels}, out.view(),
                                mix::gated_linear_options{.channels = mix::value_channels{}});
  });
  expect_error<mix::value_error>("rate is a null pointer", [&] {
    mix::gated_delta_rule(inputs(), out.view(), mix::gated_delta_options{.gate = mix::softplus_gate{}});
  });
  const mix::tensor<float, 1> rate({3});
  in = inputs();
  in.rate = rate;
  expect_error<mix::value_error>("rate is given: options.gate has no use for it", [&] { run(in); });
  expect_error<shape_error>("rate has 3 heads, expected 2", [&] {
    mix::gated_delta_rule(in, out.view(), mix::gated_delta_options{.gate = mix::softplus_gate{}});
  });
  expect_error<mix::value_error>("order is bidirectional", [&] {
    mix::gated_delta_rule(inputs(), out.view(), {.order = mix::order::bidirectional});
  });
}

TEST_F(linear_errors, states) {
  using mix::shape_error;
  mix::tensor<float, 4> other({2, 2, 8, 5});
  mix::tensor<float, 3> sum({2, 2, 8});
  auto in = inputs();
  in.initial_state = other;
  expect_error<shape_error>("initial_state is (2, 2, 8, 5), expected (sequences, Hv, D, Dv) = (2, 2, 8, 6)",
                            [&] { mix::gated_delta_rule(in, out.view()); });
  expect_error<shape_error>("final_state is (2, 2, 8, 5), expected",
                            [&] { mix::gated_delta_rule(inputs(), out.view(), {.final_state = other}); });
  mix::tensor<float, 4> both({2, 2, 9, 6});
  in.initial_state = both.slice(2, 0, 8);
  expect_error<shape_error>("final_state overlaps initial_state: it must be initial_state itself", [&] {
    mix::gated_delta_rule(in, out.view(), {.final_state = both.slice(2, 1, 8)});
  });
  expect_error<mix::value_error>("initial_sum is given: the normaliser takes no sum", [&] {
    mix::linear_attention(mix::linear_inputs{.q = q, .k = k, .v = v, .initial_sum = sum}, out.view());
  });
  expect_error<mix::value_error>("final_sum is given",
                                 [&] { mix::linear_attention(q, k, v, out, {.final_sum = sum}); });
}

TEST_F(linear_errors, sequences) {
  const std::vector<std::int32_t> down{0, 5, 3}, far{0, 5, 11}, fine{0, 5, 10}, keys{0, 4, 10};
  mix::tensor<float, 4> q1 = mix::tensor<float, 4>({1, 2, 10, 8}), v1({1, 2, 10, 6}), out1({1, 2, 10, 6});
  const auto run = [&](const mix::packed<std::int32_t>& sequences) {
    mix::linear_attention(q1, q1, v1, out1, mix::linear_options{.sequences = sequences});
  };
  expect_error<mix::value_error>("packed.offsets[2] is 3", [&] { run({.offsets = down}); });
  expect_error<mix::value_error>("packed.offsets[2] is 11: q has 10 rows", [&] { run({.offsets = far}); });
  expect_error<mix::value_error>("number 0 has 5 queries and 4 keys",
                                 [&] { run({.offsets = fine, .key_offsets = keys}); });
  const std::vector<std::int32_t> one{3};
  run({.offsets = one});  // no sequence at all
}

}  // namespace
