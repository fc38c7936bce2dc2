// SPDX-License-Identifier: Apache-2.0
// Delta rules that erase with one number and write with another, against the recurrence; one number for both is the plain rule.
//
// Budget: delta_factor u |q| M sqrt(D / beta) (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

template <bool Gated>
struct write_gate_mixer {
  static constexpr bool solves = true, sums = false, decays_values = false;
  static index_t decay_channels(const cases::linear_shape&) { return Gated ? 1 : 0; }
  static index_t beta_channels(const cases::linear_shape& s) { return Gated ? 1 : s.value_width; }
  template <class T>
  static T write_of(T beta) {
    return T(1.5) - beta;
  }
  static double scale(const cases::linear_shape&) { return 0.25; }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }

  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    mix::tensor<T, 4> write(c.beta.shape());
    for (index_t b = 0; b < write.extent(0); ++b)
      for (index_t h = 0; h < write.extent(1); ++h)
        for (index_t t = 0; t < write.extent(2); ++t)
          for (index_t i = 0; i < write.extent(3); ++i) write(b, h, t, i) = write_of(c.beta(b, h, t, i));
    c.with_sequences([&](auto sequences) {
      if constexpr (Gated) {
        mix::gated_delta_rule(
            mix::gated_delta_inputs<E, E, T, 3, T, 3>{.q = c.q,
                                                      .k = c.k,
                                                      .v = c.v,
                                                      .log_decay = cases::without_channels(c.log_decay),
                                                      .beta = cases::without_channels(c.beta),
                                                      .initial_state = c.initial_state,
                                                      .write = cases::without_channels<T>(write)},
            c.out,
            mix::gated_delta_options{
                .scale = 0.25, .order = c.order, .sequences = sequences, .final_state = c.final_state},
            on);
      } else {
        mix::delta_rule(
            mix::delta_inputs<E, E, T, 4>{
                .q = c.q, .k = c.k, .v = c.v, .beta = c.beta, .initial_state = c.initial_state, .write = write.view()},
            c.out,
            mix::delta_options{.scale = 0.25, .order = c.order, .sequences = sequences, .final_state = c.final_state},
            on);
      }
    });
  }
};

template <class Mixer>
void check(const Mixer& mixer) {
  for (index_t tokens : {1, 2, 16, 17, 50, 300}) cases::expect_oracle<float>(mixer, {1, 2, 2, 2, tokens, 20, 37}, 1);
  cases::expect_split<float>(mixer, {1, 2, 2, 2, 70, 20, 37}, 2);
  cases::expect_reverse_is_flipped<float>(mixer, {1, 2, 2, 2, 50, 20, 24}, 2);
  cases::expect_any_strides<float>(mixer, {2, 2, 2, 2, 20, 20, 24}, 3);
}

TEST(delta_write_gate, per_channel) { check(write_gate_mixer<false>{}); }
TEST(delta_write_gate, per_head_with_a_gate) { check(write_gate_mixer<true>{}); }

TEST(delta_write_gate, equal_to_beta_is_the_plain_rule) {
  const write_gate_mixer<false> mixer;
  cases::linear_operands<float> x(mixer, {1, 2, 2, 2, 40, 20, 37}, 1), y = x;
  const auto call = x.call();
  mix::delta_rule(mix::delta_inputs{.q = call.q, .k = call.k, .v = call.v, .beta = call.beta}, x.out.view());
  mix::delta_rule(mix::delta_inputs{.q = call.q, .k = call.k, .v = call.v, .beta = call.beta, .write = call.beta},
                  y.out.view());
  cases::expect_same_bits<float, 4>(x.out, y.out, "write = beta");
}

}  // namespace
