// SPDX-License-Identifier: Apache-2.0
// Where NDEBUG is not defined, numbers outside their domain end the program: log decays above 0, betas outside [0, 2].
//
// Budget: none.
#undef NDEBUG
#include <cassert>

#include <tokenmix/cache/forget_gate_cache.hpp>
#include <tokenmix/mixers/linear/delta_rule.hpp>
#include <tokenmix/mixers/linear/mlstm.hpp>
#include <tokenmix/mixers/linear/rwkv4.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

namespace mix = tokenmix;
using mix::index_t;

constexpr index_t T = 3, D = 4;

struct operands {
  mix::tensor<float, 4> q{{1, 1, T, D}}, out{{1, 1, T, D}};
  mix::tensor<float, 3> numbers{{1, 1, T}}, gate{{1, 1, T}};
};

TEST(linear_domain_death_test, log_decays) {
  operands x;
  const float numbers[] = {0, -1, std::nanf(""), -INFINITY};
  mix::detail::assert_log_decays(numbers, 4);
  const auto mlstm = [&] {
    mix::mlstm(mix::mlstm_inputs{.q = x.q, .k = x.q, .v = x.q, .input_gate = x.gate, .log_decay = x.numbers},
               x.out.view());
  };
  mlstm();
  mix::forget_gate_cache<float> gates(1, 1, 10);
  gates.append(x.numbers.view());
  mix::tensor<float, 2> decay({1, D}), bonus({1, D});
  const auto rwkv4 = [&] {
    mix::rwkv4(mix::rwkv4_inputs{.k = x.q, .v = x.q, .log_decay = decay, .bonus = bonus}, x.out.view());
  };
  rwkv4();
  x.numbers(0, 0, 1) = 0.5f;
  decay(0, 3) = 1e-3f;
  EXPECT_DEATH(mlstm(), "a log decay is above 0");
  EXPECT_DEATH(gates.append(x.numbers.view()), "a log decay is above 0");
  EXPECT_DEATH(rwkv4(), "a log decay is above 0");
}

TEST(linear_domain_death_test, betas) {
  operands x;
  const std::vector<std::int32_t> offsets{0, 1, 2};
  const auto call = [&] {
    mix::delta_rule(mix::delta_inputs{.q = x.q, .k = x.q, .v = x.q, .beta = x.numbers}, x.out.view(),
                    mix::delta_options{.sequences = mix::packed<std::int32_t>{.offsets = offsets}});
  };
  x.numbers(0, 0, 0) = 2;
  x.numbers(0, 0, 1) = std::nanf("");
  x.numbers(0, 0, 2) = -100;  // of no sequence
  call();
  for (const float outside : {-1e-3f, 2.001f, INFINITY}) {
    x.numbers(0, 0, 1) = outside;
    EXPECT_DEATH(call(), "a beta is outside \\[0, 2\\]");
  }
}

}  // namespace
