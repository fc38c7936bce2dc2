// SPDX-License-Identifier: Apache-2.0
/// @file The mixers with a transition of low rank, in the form that the identities take.
#pragma once

#include <mixers/linear/identities.hpp>

namespace cases {

template <bool Decays>
struct generalized_mixer {
  static constexpr bool solves = true, sums = false, decays_values = false, low_rank = true;
  static constexpr index_t outlives_reset = -1;
  static index_t decay_channels(const linear_shape& s) { return Decays ? s.width : 0; }
  static index_t beta_channels(const linear_shape&) { return 0; }
  static double scale(const linear_shape&) { return 0.25; }
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
      mix::generalized_delta_inputs<E, E> inputs{
          .q = c.q, .k = c.k, .v = c.v, .a = c.a, .b = c.b, .initial_state = c.initial_state};
      if (Decays) inputs.log_decay = c.log_decay;
      mix::generalized_delta_rule(
          inputs, c.out,
          mix::generalized_delta_options<mix::given_log_decay, decltype(sequences), T>{
              .scale = 0.25, .order = c.order, .sequences = sequences, .final_state = c.final_state},
          on);
    });
  }
};

/// As the kernels name them: a reads, b is written.
struct rwkv7_mixer : generalized_mixer<true> {
  template <class E>
  void operator()(const linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    c.with_sequences([&](auto sequences) {
      mix::rwkv7(mix::rwkv7_inputs<E, E, T>{.r = c.q,
                                            .k = c.k,
                                            .v = c.v,
                                            .a = c.b,
                                            .b = c.a,
                                            .log_decay = c.log_decay,
                                            .initial_state = c.initial_state},
                 c.out,
                 mix::rwkv_options<mix::given_log_decay, decltype(sequences), T>{
                     .scale = 0.25, .order = c.order, .sequences = sequences, .final_state = c.final_state},
                 on);
    });
  }
};

}  // namespace cases
