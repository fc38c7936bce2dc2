// SPDX-License-Identifier: Apache-2.0
// The delta rules, without gate, with a gate per head and per key channel, against the recurrence; keys that are nearly alike.
//
// Budget: delta_factor u |q| M sqrt(D / beta) for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

enum class gate_of { nothing, head, key_channel };

template <gate_of Of, bool BetaPerChannel = false>
struct delta_mixer {
  static constexpr bool solves = true, sums = false, decays_values = false;
  static index_t decay_channels(const cases::linear_shape& s) {
    return Of == gate_of::nothing ? 0 : Of == gate_of::head ? 1 : s.width;
  }
  static index_t beta_channels(const cases::linear_shape& s) { return BetaPerChannel ? s.value_width : 1; }
  static double scale(const cases::linear_shape& s) {
    return 1 / std::sqrt(static_cast<double>(std::max<index_t>(s.width, 1)));
  }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }

  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    auto on = c.on;
    const auto beta = [&] {
      if constexpr (BetaPerChannel) {
        return c.beta;
      } else {
        return cases::without_channels(c.beta);
      }
    }();
    c.with_sequences([&](auto sequences) {
      if constexpr (Of == gate_of::nothing) {
        mix::delta_rule(
            mix::delta_inputs{.q = c.q, .k = c.k, .v = c.v, .beta = beta, .initial_state = c.initial_state}, c.out,
            mix::delta_options{.order = c.order, .sequences = sequences, .final_state = c.final_state}, on);
      } else {
        const mix::gated_delta_options options{.order = c.order, .sequences = sequences, .final_state = c.final_state};
        if constexpr (Of == gate_of::head) {
          mix::gated_delta_rule(mix::gated_delta_inputs{.q = c.q,
                                                        .k = c.k,
                                                        .v = c.v,
                                                        .log_decay = cases::without_channels(c.log_decay),
                                                        .beta = beta,
                                                        .initial_state = c.initial_state},
                                c.out, options, on);
        } else {
          mix::kimi_delta_attention(mix::gated_delta_inputs{.q = c.q,
                                                            .k = c.k,
                                                            .v = c.v,
                                                            .log_decay = c.log_decay,
                                                            .beta = beta,
                                                            .initial_state = c.initial_state},
                                    c.out, options, on);
        }
      }
    });
  }
};

const delta_mixer<gate_of::nothing> without_gate;
const delta_mixer<gate_of::head> of_heads;
const delta_mixer<gate_of::key_channel> of_keys;

void sweep(const auto& mixer) {
  cases::gate_record worst;
  cases::expect_sizes<float>(mixer, &worst);
  if (mixer.decay_channels({}) > 0) cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  // Keys of cosine 0.7 and beta 1: an explicit inverse or a Neumann series of the triangle loses all digits here.
  for (index_t tokens : {15, 16, 17, 64, 300}) {
    for (index_t width : {16, 64, 128}) {
      cases::linear_operands<float> x(mixer, {1, 1, 1, 1, tokens, width, 33}, static_cast<std::uint64_t>(tokens), -0.01);
      cases::random_numbers random(5);
      std::vector<double> common(static_cast<std::size_t>(width));
      for (double& c : common) c = random.gaussian() / std::sqrt(static_cast<double>(width));
      for (index_t t = 0; t < tokens; ++t) {
        x.beta(0, 0, t, 0) = 1;
        for (index_t d = 0; d < width; ++d) {
          x.k(0, 0, t, d) = static_cast<float>(std::sqrt(0.7) * common[static_cast<std::size_t>(d)] +
                                               std::sqrt(0.3 / static_cast<double>(width)) * random.gaussian());
        }
      }
      x.normalize_keys();
      mixer(x.call());
      cases::expect_within_gate<float>(mixer, x, cases::expected_of<float>(mixer, x),
                                       x.size.text() + " keys alike", 1, &worst);
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(delta_rule, sizes_and_keys_alike) { sweep(without_gate); }
TEST(gated_delta_rule, gate_per_head) { sweep(of_heads); }
TEST(kimi_delta_attention, gate_per_key_channel) { sweep(of_keys); }
TEST(delta_rule, identities) { cases::expect_identities<float>(without_gate); }
TEST(gated_delta_rule, identities) { cases::expect_identities<float>(of_heads); }
TEST(kimi_delta_attention, identities) { cases::expect_identities<float>(of_keys); }
TEST(delta_rule, beta_per_channel) {
  const delta_mixer<gate_of::nothing, true> mixer;
  for (index_t tokens : {1, 2, 16, 17, 50}) cases::expect_oracle<float>(mixer, {1, 2, 2, 2, tokens, 20, 37}, 1);
  cases::expect_split<float>(mixer, {1, 2, 2, 2, 70, 20, 37}, 2);
  cases::expect_within_bounds<float>(mixer, {1, 2, 2, 2, 18, 20, 37}, 3);
}

}  // namespace
