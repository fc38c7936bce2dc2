// SPDX-License-Identifier: Apache-2.0
// ONNX's LinearAttention: every rule, decay and beta in both forms, against the operator's recurrence in double.
//
// Budget: 2e-6 of the largest number that an output is a sum of; the mixers have their own tests.
#include <tokenmix/interop/onnx_linear_attention.hpp>

#include <reference/cases.hpp>

namespace {

using cases::index_t;
using rule = mix::onnx_update_rule;

constexpr index_t B = 2, T = 21, Hq = 4, Hkv = 2, Dk = 6, Dv = 5;

struct operands {
  mix::tensor<float, 3> query = reference::normal<float>({B, T, Hq* Dk}, 1),
                        key = reference::normal<float>({B, T, Hkv* Dk}, 2, 0, 0.3),
                        value = reference::normal<float>({B, T, Hkv* Dv}, 3);
  mix::tensor<float, 4> past = reference::normal<float>({B, Hkv, Dk, Dv}, 4);
  mix::tensor<float, 3> head_decay = reference::uniform<float>({B, T, Hkv}, 5, -1, 0),
                        key_decay = reference::uniform<float>({B, T, Hkv* Dk}, 6, -1, 0);
  mix::tensor<float, 3> head_beta = reference::uniform<float>({B, T, Hkv}, 7, 0, 1),
                        one_beta = reference::uniform<float>({B, T, 1}, 8, 0, 1);
};

void expect_operator(const operands& x, rule r, bool per_key, bool one_beta, double scale, bool past) {
  const bool gated = r == rule::gated || r == rule::gated_delta, delta = r == rule::delta || r == rule::gated_delta;
  mix::onnx_linear_attention_inputs<float> in{.query = x.query, .key = x.key, .value = x.value};
  if (past) in.past_state = x.past;
  if (gated) in.decay = per_key ? x.key_decay : x.head_decay;
  if (delta) in.beta = one_beta ? x.one_beta : x.head_beta;
  mix::tensor<float, 3> output({B, T, Hq * Dv}, cases::untouched<float>());
  mix::tensor<float, 4> present({B, Hkv, Dk, Dv}, cases::untouched<float>());
  mix::onnx_linear_attention(
      in, output.view(),
      mix::onnx_linear_attention_options<>{
          .q_num_heads = Hq, .kv_num_heads = Hkv, .update_rule = r, .scale = scale, .present_state = present.view()});
  const double factor = scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(Dk));
  for (index_t b = 0; b < B; ++b) {
    for (index_t h = 0; h < Hkv; ++h) {
      double S[Dk][Dv] = {};
      for (index_t d = 0; d < Dk && past; ++d)
        for (index_t c = 0; c < Dv; ++c) S[d][c] = static_cast<double>(x.past(b, h, d, c));
      for (index_t t = 0; t < T; ++t) {
        for (index_t d = 0; d < Dk && gated; ++d)
          for (double& e : S[d])
            e *= std::exp(static_cast<double>(per_key ? x.key_decay(b, t, h * Dk + d) : x.head_decay(b, t, h)));
        for (index_t c = 0; c < Dv; ++c) {
          double u = static_cast<double>(x.value(b, t, h * Dv + c));
          if (delta) {
            for (index_t d = 0; d < Dk; ++d) u -= S[d][c] * static_cast<double>(x.key(b, t, h * Dk + d));
            u *= static_cast<double>(one_beta ? x.one_beta(b, t, 0) : x.head_beta(b, t, h));
          }
          for (index_t d = 0; d < Dk; ++d) S[d][c] += static_cast<double>(x.key(b, t, h * Dk + d)) * u;
        }
        for (index_t g = 0; g < Hq / Hkv; ++g) {
          const index_t head = h * (Hq / Hkv) + g;
          for (index_t c = 0; c < Dv; ++c) {
            double want = 0, size = 0;
            for (index_t d = 0; d < Dk; ++d) {
              const double part = factor * static_cast<double>(x.query(b, t, head * Dk + d)) * S[d][c];
              want += part, size += std::abs(part) + 0.3;
            }
            EXPECT_NEAR(static_cast<double>(output(b, t, head * Dv + c)), want, 2e-6 * size)
                << "rule " << static_cast<int>(r) << " t " << t;
          }
        }
      }
      for (index_t d = 0; d < Dk; ++d)
        for (index_t c = 0; c < Dv; ++c)
          EXPECT_NEAR(static_cast<double>(present(b, h, d, c)), S[d][c], 2e-6 * (std::abs(S[d][c]) + 2));
    }
  }
}

TEST(onnx_linear_attention, rules) {
  const operands x;
  for (const double scale : {0.0, 0.7}) {
    for (const bool past : {false, true}) {
      expect_operator(x, rule::linear, false, false, scale, past);
      for (const bool per_key : {false, true}) {
        expect_operator(x, rule::gated, per_key, false, scale, past);
        for (const bool one_beta : {false, true}) expect_operator(x, rule::gated_delta, per_key, one_beta, scale, past);
      }
      for (const bool one_beta : {false, true}) expect_operator(x, rule::delta, false, one_beta, scale, past);
    }
  }
}

// Decoding: T = 1 and a state in place, 16-bit tensors.
TEST(onnx_linear_attention, steps_in_place) {
  const auto query = reference::normal<mix::float16>({1, 12, 2 * 8}, 1),
             key = reference::normal<mix::float16>({1, 12, 8}, 2),
             value = reference::normal<mix::float16>({1, 12, 4}, 3),
             decay = reference::uniform<mix::float16>({1, 12, 1}, 4, -1, 0);
  mix::tensor<mix::float16, 3> whole({1, 12, 8}), steps = whole;
  mix::tensor<float, 4> state({1, 1, 8, 4});
  const auto run = [&](index_t first, index_t count, mix::tensor<mix::float16, 3>& output, bool in_place) {
    mix::onnx_linear_attention_inputs<mix::float16> in{.query = query.slice(1, first, count),
                                                       .key = key.slice(1, first, count),
                                                       .value = value.slice(1, first, count),
                                                       .decay = decay.slice(1, first, count)};
    mix::onnx_linear_attention_options<> options{.q_num_heads = 2, .kv_num_heads = 1, .update_rule = rule::gated};
    if (in_place) in.past_state = state, options.present_state = state;
    mix::onnx_linear_attention(in, output.slice(1, first, count), options);
  };
  run(0, 12, whole, false);
  for (index_t t = 0; t < 12; ++t) run(t, 1, steps, true);
  for (index_t i = 0; i < whole.size(); ++i)
    EXPECT_NEAR(static_cast<double>(static_cast<float>(steps.data()[i])),
                static_cast<double>(static_cast<float>(whole.data()[i])), 4e-3);
}

TEST(onnx_linear_attention, errors) {
  const operands x;
  mix::tensor<float, 3> output({B, T, Hq * Dv}, cases::untouched<float>());
  const auto fails = [&](const mix::onnx_linear_attention_inputs<float>& in,
                         mix::onnx_linear_attention_options<> options, const std::string& message) {
    try {
      mix::onnx_linear_attention(in, output.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  const mix::onnx_linear_attention_options<> linear{
      .q_num_heads = Hq, .kv_num_heads = Hkv, .update_rule = rule::linear};
  auto gated = linear, wrong = linear;
  gated.update_rule = rule::gated;
  wrong.q_num_heads = 5;
  const mix::onnx_linear_attention_inputs<float> plain{.query = x.query, .key = x.key, .value = x.value};
  auto with_decay = plain, with_other = plain;
  with_decay.decay = x.head_decay;
  with_other.decay = x.one_beta;
  fails(plain, gated, "decay is missing: update_rule needs it");
  fails(with_decay, linear, "decay is given: update_rule has no use for it");
  fails(plain, wrong, "query has 24 channels for 5 heads");
  fails(with_other, gated, "decay has 1 channels for 2 heads");
  fails(plain, {}, "query has 24 channels for 0 heads");
  auto delta = linear, gated_delta = linear;
  delta.update_rule = rule::delta;
  gated_delta.update_rule = rule::gated_delta;
  auto with_beta = plain, with_both = plain, with_past = plain;
  with_beta.beta = x.head_beta;
  with_both.decay = x.head_decay;
  with_both.beta = x.one_beta;
  fails(with_beta, linear, "beta is given: update_rule has no use for it");
  fails(plain, delta, "beta is missing: update_rule needs it");
  fails(with_both, delta, "decay is given: update_rule has no use for it");
  fails(with_beta, gated_delta, "decay is missing: update_rule needs it");
  fails(with_decay, gated_delta, "beta is missing: update_rule needs it");
  const mix::tensor<float, 3> three_channels({B, T, Hkv * 3}), three_betas({B, T, 3});
  with_both.decay = three_channels;
  fails(with_both, gated_delta, "log_decay has 3 channels");
  with_beta.beta = three_betas;
  fails(with_beta, delta, "beta has 3 heads");
  const mix::tensor<float, 4> other_past({B, Hkv, Dv, Dk});
  with_past.past_state = other_past;
  fails(with_past, linear, "initial_state is (2, 2, 5, 6), expected");
  for (float e : output) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
