// SPDX-License-Identifier: Apache-2.0
// float16 as storage: what is computed of it is what float computes of the same numbers, rounded once at the end.
//
// Budget: none. Widening is exact, so outputs are the rounded ones bit for bit, and states are float's.
#include <tokenmix/mixers/linear/gated_delta_rule.hpp>
#include <tokenmix/mixers/linear/gated_linear_attention.hpp>
#include <tokenmix/mixers/linear/rwkv4.hpp>

#include <reference/cases.hpp>

namespace {

using cases::index_t;
using mix::float16;

constexpr index_t H = 2, T = 37, D = 20, Dv = 24;

template <std::size_t R>
mix::tensor<float, R> widened(const mix::tensor<float16, R>& x) {
  mix::tensor<float, R> y(x.shape());
  for (index_t i = 0; i < x.size(); ++i) y.data()[i] = static_cast<float>(x.data()[i]);
  return y;
}

template <std::size_t R>
void expect_rounded(const mix::tensor<float16, R>& half, const mix::tensor<float, R>& single, const char* what) {
  mix::tensor<float16, R> rounded(single.shape());
  for (index_t i = 0; i < single.size(); ++i) rounded.data()[i] = float16(single.data()[i]);
  cases::expect_same_bits<float16, R>(half, rounded, what);
}

struct operands {
  mix::tensor<float16, 4> q = reference::normal<float16>({1, H, T, D}, 1),
                          k = reference::normal<float16>({1, H, T, D}, 2, 0, 0.2),
                          v = reference::normal<float16>({1, H, T, Dv}, 3),
                          decay = reference::uniform<float16>({1, H, T, D}, 4, -1, 0);
  mix::tensor<float16, 3> beta = reference::uniform<float16>({1, H, T}, 5, 0.2, 1);
};

// A prefill, and the same token by token with a state in place.
template <class Call, class Wide>
void expect_float(const Call& call, const Wide& wide, const char* what) {
  mix::tensor<float16, 4> out({1, H, T, Dv});
  mix::tensor<float, 4> single({1, H, T, Dv}), state({1, H, D, Dv}), want = state;
  call(0, T, out, state);
  wide(0, T, single, want);
  expect_rounded(out, single, what);
  cases::expect_same_bits<float, 4>(state, want, what);
  for (mix::tensor<float, 4>* s : {&state, &want}) std::fill(s->begin(), s->end(), 0.0f);
  for (index_t t = 0; t < T; ++t) {
    call(t, 1, out, state);
    wide(t, 1, single, want);
  }
  expect_rounded(out, single, what);
  cases::expect_same_bits<float, 4>(state, want, what);
}

TEST(linear_float16, gated_linear_attention_and_gated_delta_rule) {
  const operands x;
  const auto q = widened(x.q), k = widened(x.k), v = widened(x.v), decay = widened(x.decay);
  const auto beta = widened(x.beta);
  const auto linear = [](const auto& q_, const auto& k_, const auto& v_, const auto& decay_) {
    return [&](index_t t, index_t n, auto& out, mix::tensor<float, 4>& state) {
      mix::gated_linear_attention(mix::gated_linear_inputs{.q = q_.slice(2, t, n),
                                                           .k = k_.slice(2, t, n),
                                                           .v = v_.slice(2, t, n),
                                                           .log_decay = decay_.slice(2, t, n),
                                                           .initial_state = state},
                                  out.slice(2, t, n), mix::gated_linear_options{.final_state = state.view()});
    };
  };
  expect_float(linear(x.q, x.k, x.v, x.decay), linear(q, k, v, decay), "gated linear attention");
  const auto delta = [](const auto& q_, const auto& k_, const auto& v_, const auto& decay_, const auto& beta_) {
    return [&](index_t t, index_t n, auto& out, mix::tensor<float, 4>& state) {
      mix::gated_delta_rule(mix::gated_delta_inputs{.q = q_.slice(2, t, n),
                                                    .k = k_.slice(2, t, n),
                                                    .v = v_.slice(2, t, n),
                                                    .log_decay = decay_.slice(2, t, n),
                                                    .beta = beta_.slice(2, t, n),
                                                    .initial_state = state},
                            out.slice(2, t, n), mix::gated_delta_options{.final_state = state.view()});
    };
  };
  expect_float(delta(x.q, x.k, x.v, x.decay, x.beta), delta(q, k, v, decay, beta), "gated delta rule");
}

TEST(linear_float16, rwkv4) {
  const operands x;
  const auto k = widened(x.k), r = widened(x.q);
  const mix::tensor<float, 2> decay({H, D}, -0.1f), bonus({H, D}, 0.3f);
  mix::tensor<float16, 4> out({1, H, T, D});
  mix::tensor<float, 4> single({1, H, T, D});
  mix::rwkv4(
      mix::rwkv4_inputs<float16, float>{.k = x.k, .v = x.q, .log_decay = decay, .bonus = bonus, .receptance = x.q},
      out.view());
  mix::rwkv4(mix::rwkv4_inputs<float, float>{.k = k, .v = r, .log_decay = decay, .bonus = bonus, .receptance = r},
             single.view());
  expect_rounded(out, single, "rwkv4");
}

}  // namespace
