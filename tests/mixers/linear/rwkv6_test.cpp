// SPDX-License-Identifier: Apache-2.0
// RWKV-6 against the recurrence: the state is read before the token, the bonus weighs the token; decays from 0 to -infinity.
//
// Budget: 8 u A + 2 u A1 for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

struct rwkv6_mixer {
  static constexpr bool solves = false, sums = false, decays_values = false;
  static constexpr index_t outlives_reset = 1;
  static index_t decay_channels(const cases::linear_shape& s) { return s.width; }
  static index_t beta_channels(const cases::linear_shape&) { return 0; }
  static double bonus(index_t d) { return 0.4 + 0.3 * std::sin(static_cast<double>(3 * d + 1)); }
  static double scale(const cases::linear_shape&) { return 0.5; }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }

  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    mix::tensor<T, 2> bonus_of_heads({c.k.extent(1), c.k.extent(3)});
    for (index_t h = 0; h < c.k.extent(1); ++h)
      for (index_t d = 0; d < c.k.extent(3); ++d) bonus_of_heads(h, d) = static_cast<T>(bonus(d));
    c.with_sequences([&](auto sequences) {
      mix::rwkv6(mix::rwkv6_inputs<E, E, T>{.r = c.q,
                                            .k = c.k,
                                            .v = c.v,
                                            .log_decay = c.log_decay,
                                            .bonus = bonus_of_heads,
                                            .initial_state = c.initial_state},
                 c.out,
                 mix::rwkv_options<mix::given_log_decay, decltype(sequences), T>{
                     .scale = 0.5, .order = c.order, .sequences = sequences, .final_state = c.final_state},
                 on);
    });
  }
};

const rwkv6_mixer mixer;

TEST(rwkv6, sizes_and_decays) {
  cases::gate_record worst;
  cases::expect_sizes<float>(mixer, &worst);
  cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(rwkv6, identities) { cases::expect_identities<float>(mixer); }

// Heads that differ: by hand, and with the deduced types of a plain call.
TEST(rwkv6, bonus_per_head) {
  const auto r = reference::normal<float>({1, 2, 3, 2}, 1), k = reference::normal<float>({1, 2, 3, 2}, 2),
             v = reference::normal<float>({1, 2, 3, 1}, 3), w = reference::uniform<float>({1, 2, 3, 2}, 4, -1, 0);
  const auto u = reference::normal<float>({2, 2}, 5);
  mix::tensor<float, 4> out({1, 2, 3, 1});
  mix::rwkv6(mix::rwkv6_inputs{.r = r.view(), .k = k.view(), .v = v.view(), .log_decay = w.view(), .bonus = u.view()},
             out.view());
  for (index_t h = 0; h < 2; ++h) {
    double S[2] = {0, 0};
    for (index_t t = 0; t < 3; ++t) {
      double want = 0;
      for (index_t d = 0; d < 2; ++d) {
        const double kv = static_cast<double>(k(0, h, t, d)) * static_cast<double>(v(0, h, t, 0));
        want += static_cast<double>(r(0, h, t, d)) * (S[d] + static_cast<double>(u(h, d)) * kv);
        S[d] = std::exp(static_cast<double>(w(0, h, t, d))) * S[d] + kv;
      }
      EXPECT_NEAR(static_cast<double>(out(0, h, t, 0)), want, 2e-6);
    }
  }
}

}  // namespace
