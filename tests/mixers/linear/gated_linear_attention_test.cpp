// SPDX-License-Identifier: Apache-2.0
// Gated linear attention, gates per head, key channel and value channel, against the recurrence; decays from 0 to -infinity.
//
// Budget: 8 u A + 2 u A1 for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

enum class gate_of { head, key_channel, value_channel };

template <gate_of Of>
struct gated_mixer {
  static constexpr bool solves = false, sums = false, decays_values = Of == gate_of::value_channel;
  static index_t decay_channels(const cases::linear_shape& s) {
    return Of == gate_of::head ? 1 : Of == gate_of::key_channel ? s.width : s.value_width;
  }
  static index_t beta_channels(const cases::linear_shape&) { return 0; }
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
    c.with_sequences([&](auto sequences) {
      if constexpr (Of == gate_of::head) {
        mix::gated_linear_attention(mix::gated_linear_inputs{.q = c.q,
                                                             .k = c.k,
                                                             .v = c.v,
                                                             .log_decay = cases::without_channels(c.log_decay),
                                                             .initial_state = c.initial_state},
                                    c.out,
                                    mix::gated_linear_options{.order = c.order,
                                                              .sequences = sequences,
                                                              .final_state = c.final_state},
                                    on);
      } else {
        using channels = std::conditional_t<decays_values, mix::value_channels, mix::key_channels>;
        mix::gated_linear_attention(
            mix::gated_linear_inputs{
                .q = c.q, .k = c.k, .v = c.v, .log_decay = c.log_decay, .initial_state = c.initial_state},
            c.out,
            mix::gated_linear_options{
                .channels = channels{}, .order = c.order, .sequences = sequences, .final_state = c.final_state},
            on);
      }
    });
  }
};

const gated_mixer<gate_of::head> of_heads;
const gated_mixer<gate_of::key_channel> of_keys;
const gated_mixer<gate_of::value_channel> of_values;

void sweep(const auto& mixer) {
  cases::gate_record worst;
  cases::expect_sizes<float>(mixer, &worst);
  cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(gated_linear_attention, gate_per_head) { sweep(of_heads); }
TEST(gated_linear_attention, gate_per_key_channel) { sweep(of_keys); }
TEST(gated_linear_attention, gate_per_value_channel) { sweep(of_values); }
TEST(gated_linear_attention, identities_of_a_gate_per_head) { cases::expect_identities<float>(of_heads); }
TEST(gated_linear_attention, identities_of_a_gate_per_key_channel) { cases::expect_identities<float>(of_keys); }
TEST(gated_linear_attention, identities_of_a_gate_per_value_channel) { cases::expect_identities<float>(of_values); }

}  // namespace
