// SPDX-License-Identifier: Apache-2.0
// Feature maps, gate formulas and decays of retention inside the kernel give the bits of the same made before it, or its numbers.
//
// Budget: where the same functions are called in the same order, none; against the formulas in double, 4 u of each row.
#include <mixers/linear/linear_cases.hpp>

namespace {

using cases::index_t;

constexpr index_t H = 2, T = 37, D = 20, Dv = 12;

struct tokens {
  mix::tensor<float, 4> q = reference::normal<float>({1, H, T, D}, 1), k = reference::normal<float>({1, H, T, D}, 2),
                        v = reference::normal<float>({1, H, T, Dv}, 3);
};

template <class Feature>
mix::tensor<float, 4> attend(const mix::tensor<float, 4>& q, const mix::tensor<float, 4>& k,
                             const mix::tensor<float, 4>& v, const Feature& feature) {
  mix::tensor<float, 4> out({1, H, T, Dv});
  mix::linear_attention(q, k, v, out, mix::linear_options{.feature = feature});
  return out;
}

template <class F>
mix::tensor<float, 4> mapped(mix::tensor<float, 4> x, const F& f) {
  for (float& e : x) e = f(e);
  return x;
}

TEST(linear_features, elementwise_maps) {
  const tokens x;
  const auto given = [&](const auto& f) { return attend(mapped(x.q, f), mapped(x.k, f), x.v, mix::as_given{}); };
  const auto relu = [](float e) { return e > 0 ? e : 0.0f; };
  cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, mix::relu{}), given(relu), "relu");
  cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, mix::relu_squared{}),
                                    given([&](float e) { return relu(e) * relu(e); }), "relu squared");
  // A callable of numbers, and one of registers.
  cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, [](float e) { return e * e; }),
                                    given([](float e) { return e * e; }), "lambda of numbers");
  cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, [](const auto& e) { return e * e; }),
                                    given([](float e) { return e * e; }), "generic lambda");
  const mix::feature_pair<mix::relu, mix::as_given> pair;
  cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, pair), attend(mapped(x.q, relu), x.k, x.v, mix::as_given{}),
                                    "pair");
}

/// All products of two channels: D^2 features.
struct products {
  static index_t width(index_t channels) { return channels * channels; }
  template <class Number>
  void apply(const Number* from, Number* to, index_t channels) const {
    for (index_t i = 0; i < channels; ++i)
      for (index_t j = 0; j < channels; ++j) to[i * channels + j] = from[i] * from[j];
  }
};

TEST(linear_features, maps_of_rows) {
  const tokens x;
  mix::tensor<float, 4> q({1, H, T, D * D}), k = q, out({1, H, T, Dv}), state({1, H, D * D, Dv});
  for (index_t row = 0; row < H * T; ++row) {
    products().apply(x.q.data() + row * D, q.data() + row * D * D, D);
    products().apply(x.k.data() + row * D, k.data() + row * D * D, D);
  }
  mix::linear_attention(x.q, x.k, x.v, out,
                        mix::linear_options{.feature = products{}, .final_state = state.view()});
  cases::expect_same_bits<float, 4>(out, attend(q, k, x.v, mix::as_given{}), "products");
  const auto softmax = attend(x.q, x.k, x.v, mix::softmax_of_channels{});
  mix::tensor<float, 4> unit = x.q, other = x.k;
  for (auto* rows : {&unit, &other}) {
    for (index_t row = 0; row < H * T; ++row) {
      double sum = 0;
      for (index_t d = 0; d < D; ++d) sum += std::exp(static_cast<double>(rows->data()[row * D + d]));
      for (index_t d = 0; d < D; ++d)
        rows->data()[row * D + d] = static_cast<float>(std::exp(static_cast<double>(rows->data()[row * D + d])) / sum);
    }
  }
  const auto expected = attend(unit, other, x.v, mix::as_given{});
  for (index_t i = 0; i < out.size(); ++i) EXPECT_NEAR(softmax.data()[i], expected.data()[i], 2e-6f);
}

TEST(linear_features, l2_norm_of_queries_and_keys) {
  tokens x;
  const auto unit = [](mix::tensor<float, 4> rows) {
    for (index_t row = 0; row < H * T; ++row) {
      double square = 1e-6;
      for (index_t d = 0; d < D; ++d) square += std::pow(static_cast<double>(rows.data()[row * D + d]), 2);
      for (index_t d = 0; d < D; ++d) rows.data()[row * D + d] /= static_cast<float>(std::sqrt(square));
    }
    return rows;
  };
  const auto q = unit(x.q), k = unit(x.k);
  mix::tensor<float, 3> beta({1, H, T}, 0.7f);
  mix::tensor<float, 4> out({1, H, T, Dv}), expected = out;
  mix::delta_rule(mix::delta_inputs{.q = x.q, .k = x.k, .v = x.v, .beta = beta}, out,
                  mix::delta_options{.feature = mix::l2_normalized{}});
  mix::delta_rule(mix::delta_inputs{.q = q, .k = k, .v = x.v, .beta = beta}, expected);
  for (index_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.data()[i], expected.data()[i], 4e-6f);
}

double softplus(double x) { return std::log1p(std::exp(x)); }

// The formulas, against log decays that were made before the call, per head and per channel.
TEST(linear_features, gate_formulas) {
  const tokens x;
  const auto raw = reference::normal<float>({1, H, T, D}, 4);
  mix::tensor<float, 1> rate({H});
  mix::tensor<float, 2> bias({H, D}), bias_of_head({H, 1});
  rate(0) = -0.5f, rate(1) = 0.3f;
  for (index_t h = 0; h < H; ++h)
    for (index_t d = 0; d < D; ++d) bias(h, d) = 0.1f * static_cast<float>(d) - static_cast<float>(h);
  bias_of_head(0, 0) = 0.25f, bias_of_head(1, 0) = -2.0f;
  mix::tensor<float, 4> made = raw, made_sigmoid = raw;
  mix::tensor<float, 3> raw_head({1, H, T}), made_head = raw_head;
  for (index_t h = 0; h < H; ++h) {
    for (index_t t = 0; t < T; ++t) {
      for (index_t d = 0; d < D; ++d) {
        const double g = static_cast<double>(raw(0, h, t, d));
        made(0, h, t, d) =
            static_cast<float>(-std::exp(static_cast<double>(rate(h))) * softplus(g + static_cast<double>(bias(h, d))));
        made_sigmoid(0, h, t, d) = static_cast<float>(-softplus(-g) / 16);
      }
      raw_head(0, h, t) = raw(0, h, t, 0);
      made_head(0, h, t) = static_cast<float>(-std::exp(static_cast<double>(rate(h))) *
                                              softplus(static_cast<double>(raw_head(0, h, t)) +
                                                       static_cast<double>(bias_of_head(h, 0))));
    }
  }
  const auto run = [&](const auto& log_decay, const auto& gate, mix::tensor_view<const float, 1> rates,
                       mix::tensor_view<const float, 2> biases) {
    mix::tensor<float, 4> out({1, H, T, Dv});
    mix::gated_linear_attention(
        mix::gated_linear_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = log_decay, .rate = rates, .bias = biases},
        out, mix::gated_linear_options{.gate = gate});
    return out;
  };
  const auto expect_near = [](const mix::tensor<float, 4>& a, const mix::tensor<float, 4>& b, const char* what) {
    for (index_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a.data()[i], b.data()[i], 1e-5f) << what << i;
  };
  const mix::given_log_decay given;
  expect_near(run(raw, mix::softplus_gate{}, rate, bias), run(made, given, {}, {}), "softplus ");
  expect_near(run(raw, mix::log_sigmoid_gate{16}, {}, {}), run(made_sigmoid, given, {}, {}), "log sigmoid ");
  expect_near(run(raw_head, mix::softplus_gate{}, rate, bias_of_head), run(made_head, given, {}, {}), "of a head ");
}

// RetNet's and Lightning's decays; the powers of a strong one underflow and never overflow.
TEST(linear_features, retention_is_a_fixed_gate) {
  const tokens x;
  for (double log_decay : {mix::retention_log_decay(0), mix::lightning_log_decay(1, 2), -1.0, -90.0, -1e4, 0.0}) {
    mix::tensor<double, 1> fixed({H}, log_decay);
    fixed(1) = log_decay / 2;
    mix::tensor<double, 3> gate({1, H, T});
    for (index_t t = 0; t < T; ++t) gate(0, 0, t) = fixed(0), gate(0, 1, t) = fixed(1);
    mix::tensor<float, 4> out({1, H, T, Dv}), expected = out, state({1, H, D, Dv}), state2 = state;
    mix::retention(mix::retention_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = fixed}, out,
                   mix::retention_options{.scale = 1.0, .final_state = state.view()});
    mix::gated_linear_attention(mix::gated_linear_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = gate}, expected,
                                mix::gated_linear_options{.scale = 1.0, .final_state = state2.view()});
    cases::expect_same_bits<float, 4>(out, expected, "retention");
    cases::expect_same_bits<float, 4>(state, state2, "retention: state");
    for (float e : out) ASSERT_TRUE(std::isfinite(e));
  }
  EXPECT_NEAR(std::exp(mix::retention_log_decay(3)), 1 - 1.0 / 256, 1e-15);
}

}  // namespace
