// SPDX-License-Identifier: Apache-2.0
// RG-LRU against its recurrence, for gates of any size, and the identities that it promises.
//
// Budget: (16 + 3 |r| + 3 |i|) u of what is written and (12 + (8 + 3 |r|) |log a|) u of what is kept, at every token, and 2^-61 |x| where
// log a underflows. Identities: memcmp.
#include <reference/no_allocation.hpp>

#include "gated_recurrence_cases.hpp"

#include <tokenmix/mixers/state_space/rg_lru.hpp>

namespace {

using cases::index_t;

struct rg_lru_mixer : cases::recurrence_mixer<rg_lru_mixer, 3, 1> {
  static double lambda_of(index_t c) {  // from forgetting nothing to forgetting all
    return c % 7 == 0 ? -9.0 - static_cast<double>(c % 3) : std::sin(static_cast<double>(c)) * 4 - 3;
  }
  static mix::tensor<float, 1> lambdas(index_t C) {
    mix::tensor<float, 1> lambda({C});
    for (index_t c = 0; c < C; ++c) lambda(c) = static_cast<float>(lambda_of(c));
    return lambda;
  }
  template <class Sequences>
  void call(cases::recurrence_call<3, 1>& c, Sequences sequences) const {
    const auto lambda = lambdas(c.out[0].extent(2));
    mix::rg_lru(mix::rg_lru_inputs<float>{.x = c.in[0],
                                          .recurrence_gate = c.in[1],
                                          .input_gate = c.in[2],
                                          .lambda = lambda,
                                          .initial_state = c.state[0]},
                c.out[0],
                mix::rg_lru_options<Sequences>{.order = c.order, .sequences = sequences, .final_state = c.state[0]},
                c.on);
  }
  cases::recurrence_step step(const double* x, index_t c) const {
    const double lambda = static_cast<double>(static_cast<float>(lambda_of(c)));
    const double rate = std::log1p(std::exp(lambda)), log_a = -8 * rate * cases::sigmoid(x[1]);
    return {std::exp(log_a), std::sqrt(-std::expm1(2 * log_a)) * cases::sigmoid(x[2]) * x[0],
            12 - (8 + 3 * std::abs(x[1])) * log_a, 16 + 3 * std::abs(x[1]) + 3 * std::abs(x[2]),
            (1 + std::sqrt(rate)) * 0x1p-61 * std::abs(x[0])};
  }
};

TEST(rg_lru, oracle_and_identities) { cases::expect_recurrence(rg_lru_mixer{}); }

// The first input counts whole where the code that came with RecurrentGemma says so, unless something came before it.
TEST(rg_lru, start) {
  const auto x = reference::normal<float>({2, 3, 20}, 1), gate = reference::normal<float>({2, 3, 20}, 2);
  const auto lambda = rg_lru_mixer::lambdas(20);
  mix::tensor<float, 3> scaled({2, 3, 20}), whole = scaled, after = scaled;
  const mix::tensor<float, 2> zero({2, 20});
  mix::rg_lru_inputs<float> in{.x = x, .recurrence_gate = gate, .input_gate = gate, .lambda = lambda};
  mix::rg_lru(in, scaled.view());
  mix::rg_lru(in, whole.view(), mix::rg_lru_options<>{.start = mix::rg_lru_start::whole});
  in.initial_state = zero;
  mix::rg_lru(in, after.view(), mix::rg_lru_options<>{.start = mix::rg_lru_start::whole});
  cases::expect_same_bits<float, 3>(after, scaled, "an initial state of zeros");
  for (index_t b = 0; b < 2; ++b)
    for (index_t c = 0; c < 20; ++c) {
      double h = 0;
      for (index_t t = 0; t < 3; ++t) {
        const double v[3] = {static_cast<double>(x(b, t, c)), static_cast<double>(gate(b, t, c)),
                             static_cast<double>(gate(b, t, c))};
        const auto s = rg_lru_mixer{}.step(v, c);
        h = t == 0 ? cases::sigmoid(v[2]) * v[0] : s.keep.real() * h + s.write.real();
        EXPECT_NEAR(static_cast<double>(whole(b, t, c)), h, 1e-5 * (1 + std::abs(h)));
      }
    }
}

// A decay that is hardly one: what is written is sqrt(2 c softplus(lambda) r), which the difference 1 - a^2 would lose.
TEST(rg_lru, no_cancellation) {
  const mix::tensor<float, 3> x({1, 1, 1}, 1.0f), gate({1, 1, 1}, 0.0f);
  mix::tensor<float, 3> out({1, 1, 1});
  mix::tensor<double, 3> wide({1, 1, 1});
  const mix::tensor<double, 3> x2({1, 1, 1}, 1.0), gate2({1, 1, 1}, 0.0);
  for (float l : {-30.0f, -20.0f, -12.0f, -5.0f, -2.7f, -1.0f, 1.0f}) {
    const mix::tensor<float, 1> lambda({1}, l);
    const mix::tensor<double, 1> lambda2({1}, static_cast<double>(l));
    mix::rg_lru(mix::rg_lru_inputs<float>{.x = x, .recurrence_gate = gate, .input_gate = gate, .lambda = lambda},
                out.view());
    mix::rg_lru(mix::rg_lru_inputs<double>{.x = x2, .recurrence_gate = gate2, .input_gate = gate2, .lambda = lambda2},
                wide.view(), mix::rg_lru_options<mix::whole_sequences, double>{});
    const double want = 0.5 * std::sqrt(-std::expm1(-8 * std::log1p(std::exp(static_cast<double>(l)))));
    EXPECT_NEAR(static_cast<double>(out(0, 0, 0)), want, 16 * 0x1p-24 * want) << l;
    EXPECT_NEAR(wide(0, 0, 0), want, 16 * 0x1p-53 * want) << l;
  }
}

TEST(rg_lru, in_place_and_bfloat16) {
  const auto x = reference::normal<mix::bfloat16>({1, 9, 21}, 1), r = reference::normal<mix::bfloat16>({1, 9, 21}, 2);
  auto i = reference::normal<mix::bfloat16>({1, 9, 21}, 3);
  const auto lambda = rg_lru_mixer::lambdas(21);
  mix::tensor<mix::bfloat16, 3> out({1, 9, 21});
  const mix::rg_lru_inputs<mix::bfloat16> in{.x = x, .recurrence_gate = r, .input_gate = i, .lambda = lambda};
  mix::rg_lru(in, out.view());
  mix::rg_lru(in, i.view());
  cases::expect_same_bits<mix::bfloat16, 3>(i, out, "over the input gate");
}

TEST(rg_lru, steps_allocate_nothing) {
  const auto x = reference::normal<float>({2, 1, 70}, 1);
  const auto lambda = rg_lru_mixer::lambdas(70);
  mix::tensor<float, 3> out({2, 1, 70});
  mix::tensor<float, 2> state({2, 70});
  const auto call = [&] {
    mix::rg_lru(
        mix::rg_lru_inputs<float>{
            .x = x, .recurrence_gate = x, .input_gate = x, .lambda = lambda, .initial_state = state},
        out.view(), mix::rg_lru_options<>{.final_state = state.view()});
  };
  reference::expect_no_allocation(call);
}

TEST(rg_lru, errors) {
  const mix::tensor<float, 3> x({1, 5, 8}), narrow({1, 5, 7});
  const mix::tensor<float, 1> lambda({8}), other({1});
  mix::tensor<float, 3> out({1, 5, 8}, cases::untouched<float>());
  mix::tensor<float, 2> state({2, 8});
  const auto fails = [&](const mix::rg_lru_inputs<float>& in, const mix::rg_lru_options<>& o, const std::string& m) {
    cases::expect_message([&] { mix::rg_lru(in, out.view(), o); }, m);
  };
  const mix::rg_lru_inputs<float> good{.x = x, .recurrence_gate = x, .input_gate = x, .lambda = lambda};
  auto in = good;
  in.input_gate = narrow;
  fails(in, {}, "input_gate is (1, 5, 7), x is (1, 5, 8)");
  in = good, in.lambda = other;
  fails(in, {}, "lambda has 1 channels, expected 8: x has that many");
  in = good, in.initial_state = state;
  fails(in, {}, "initial_state is (2, 8), expected (sequences, C) = (1, 8)");
  fails(good, {.c = -1}, "c is -1");
  fails(good, {.order = mix::order::bidirectional}, "order is bidirectional");
  fails(good, {.final_state = {out.data(), {1, 8}}}, "final_state overlaps out");
  in = good, in.x = {out.data() + 1, {1, 5, 7}, {40, 8, 1}}, in.recurrence_gate = in.input_gate = narrow;
  fails(in, {}, "out is (1, 5, 8), x is (1, 5, 7)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
