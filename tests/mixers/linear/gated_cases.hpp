// SPDX-License-Identifier: Apache-2.0
/// @file Gated linear attention as a mixer under test.
#pragma once

#include <mixers/linear/identities.hpp>

namespace cases {

enum class gated_by { head, key_channel, value_channel };

template <gated_by Of>
struct gated_mixer {
  static constexpr bool solves = false, sums = false, decays_values = Of == gated_by::value_channel;
  static index_t decay_channels(const linear_shape& s) {
    return Of == gated_by::head ? 1 : Of == gated_by::key_channel ? s.width : s.value_width;
  }
  static index_t beta_channels(const linear_shape&) { return 0; }
  static double scale(const linear_shape& s) {
    return 1 / std::sqrt(static_cast<double>(std::max<index_t>(s.width, 1)));
  }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }

  template <class E>
  void operator()(const linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    c.with_sequences([&](auto sequences) {
      if constexpr (Of == gated_by::head) {
        mix::gated_linear_attention(
            mix::gated_linear_inputs<E, E, T, 3>{.q = c.q,
                                                 .k = c.k,
                                                 .v = c.v,
                                                 .log_decay = without_channels(c.log_decay),
                                                 .initial_state = c.initial_state},
            c.out, mix::gated_linear_options{.order = c.order, .sequences = sequences, .final_state = c.final_state},
            on);
      } else {
        using channels = std::conditional_t<decays_values, mix::value_channels, mix::key_channels>;
        mix::gated_linear_attention(
            mix::gated_linear_inputs<E, E, T, 4>{
                .q = c.q, .k = c.k, .v = c.v, .log_decay = c.log_decay, .initial_state = c.initial_state},
            c.out,
            mix::gated_linear_options{
                .channels = channels{}, .order = c.order, .sequences = sequences, .final_state = c.final_state},
            on);
      }
    });
  }
};

/// Sizes, and decays from 0 to -infinity.
void expect_gated(const auto& mixer) {
  gate_record worst;
  expect_sizes<float>(mixer, &worst);
  expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

}  // namespace cases
