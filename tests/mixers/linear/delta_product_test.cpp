// SPDX-License-Identifier: Apache-2.0
// The delta product, without gate and with one, against the recurrence of its steps; one step is the delta rule.
//
// Budget: delta_factor u |q| M sqrt(D / beta) for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

template <index_t Steps, bool Gated>
struct product_mixer {
  static constexpr bool solves = true, sums = false, decays_values = false;
  static constexpr index_t steps = Steps;
  static index_t decay_channels(const cases::linear_shape&) { return Gated ? 1 : 0; }
  static index_t beta_channels(const cases::linear_shape&) { return Steps; }
  static double scale(const cases::linear_shape&) { return 0.25; }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }

  // (B, H, T, n D) as (B, H, T, n, D).
  template <class E>
  static mix::tensor_view<const E, 5> with_steps(const mix::tensor_view<const E, 4>& x) {
    const index_t width = x.extent(3) / Steps;
    return {x.data(),
            {x.extent(0), x.extent(1), x.extent(2), Steps, width},
            {x.stride(0), x.stride(1), x.stride(2), width, 1}};
  }

  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    c.with_sequences([&](auto sequences) {
      mix::delta_product_inputs<E, E, T> inputs{
          .q = c.q, .k = with_steps(c.k), .v = with_steps(c.v), .beta = c.beta, .initial_state = c.initial_state};
      if (Gated) inputs.log_decay = cases::without_channels(c.log_decay);
      mix::delta_product(inputs, c.out,
                         mix::delta_product_options<mix::as_given, mix::given_log_decay, decltype(sequences), T>{
                             .scale = 0.25, .order = c.order, .sequences = sequences, .final_state = c.final_state},
                         on);
    });
  }
};

void sweep(const auto& mixer) {
  cases::gate_record worst;
  cases::expect_sizes<float>(mixer, &worst);
  if (mixer.decay_channels({}) > 0) cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(delta_product, two_steps) { sweep(product_mixer<2, false>{}); }
TEST(delta_product, three_steps_gated) { sweep(product_mixer<3, true>{}); }
TEST(delta_product, identities) { cases::expect_identities<float>(product_mixer<2, false>{}); }
TEST(delta_product, identities_gated) { cases::expect_identities<float>(product_mixer<3, true>{}); }
TEST(delta_product, many_steps) {
  for (index_t tokens : {1, 2, 3, 16, 17, 40}) {
    cases::expect_oracle<float>(product_mixer<1, true>{}, {1, 2, 1, 1, tokens, 20, 37}, 1);
    cases::expect_oracle<float>(product_mixer<5, true>{}, {1, 1, 1, 2, tokens, 40, 37}, 2);
    cases::expect_oracle<float>(product_mixer<19, true>{}, {1, 2, 2, 2, tokens, 12, 17}, 3);
  }
}

// Steps may lie anywhere: here they are the outermost axis in memory.
TEST(delta_product, any_stride_of_steps) {
  const index_t n = 3, T = 21, D = 12, Dv = 9;
  const auto q = reference::normal<float>({1, 2, T, D}, 1);
  const auto k = reference::normal<float>({n, 1, 2, T, D}, 2, 0.0, 0.2),
             v = reference::normal<float>({n, 1, 2, T, Dv}, 3);
  const auto beta = reference::uniform<float>({n, 1, 2, T}, 4, 0.2, 1);
  mix::tensor<float, 5> k1({1, 2, T, n, D}), v1({1, 2, T, n, Dv});
  mix::tensor<float, 4> beta1({1, 2, T, n}), out({1, 2, T, Dv}), out1 = out;
  for (index_t i = 0; i < n; ++i)
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = 0; t < T; ++t) {
        beta1(0, h, t, i) = beta(i, 0, h, t);
        for (index_t d = 0; d < D; ++d) k1(0, h, t, i, d) = k(i, 0, h, t, d);
        for (index_t c = 0; c < Dv; ++c) v1(0, h, t, i, c) = v(i, 0, h, t, c);
      }
  mix::delta_product(mix::delta_product_inputs{.q = q.view(), .k = k1.view(), .v = v1.view(), .beta = beta1.view()},
                     out1.view());
  mix::delta_product(mix::delta_product_inputs{.q = q.view(),
                                               .k = k.view().permuted({1, 2, 3, 0, 4}),
                                               .v = v.view().permuted({1, 2, 3, 0, 4}),
                                               .beta = beta.view().permuted({1, 2, 3, 0})},
                     out.view());
  cases::expect_same_bits<float, 4>(out, out1, "steps outermost");
}

// One step without gate is the delta rule: what that gives is within the gate of this one's oracle. Bits differ: the delta rule
// goes token by token, products of steps go in chunks.
TEST(delta_product, one_step_is_the_delta_rule) {
  const product_mixer<1, false> mixer;
  for (index_t tokens : {1, 2, 16, 17, 50}) {
    cases::linear_operands<float> y(mixer, {1, 2, 2, 2, tokens, 40, 24}, 1);
    mix::delta_rule(mix::delta_inputs{.q = y.call().q,
                                      .k = y.call().k,
                                      .v = y.call().v,
                                      .beta = cases::without_channels(y.call().beta),
                                      .initial_state = y.call().initial_state},
                    y.out.view(), {.scale = 0.25, .final_state = y.final_state});
    cases::expect_within_gate<float>(mixer, y, cases::expected_of<float>(mixer, y), "one step");
  }
}

}  // namespace
