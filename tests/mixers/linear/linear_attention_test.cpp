// SPDX-License-Identifier: Apache-2.0
// Linear attention against the recurrence, with every normaliser, and the identities that it promises.
//
// Budget: 8 u A + 2 u A1 (see linear_cases.hpp); quotients have that of their parts. Identities: none, memcmp.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

template <class Feature, class Normalizer>
struct linear_mixer {
  static constexpr bool solves = false, sums = Normalizer::takes_sum, decays_values = false;
  Feature map{};
  Normalizer normalizer{};
  static index_t decay_channels(const cases::linear_shape&) { return 0; }
  static index_t beta_channels(const cases::linear_shape&) { return 0; }
  static double scale(const cases::linear_shape&) { return 0.5; }
  template <class Real>
  static Real feature(Real x) {
    if constexpr (std::is_same_v<Feature, mix::elu_plus_one>) return x > 0 ? x + 1 : std::exp(x);
    if constexpr (std::is_same_v<Feature, mix::relu_squared>) return x > 0 ? x * x : 0;
    if constexpr (std::is_same_v<Feature, mix::exponential>) return std::exp(x);
    return x;
  }
  double divisor(double sum, index_t seen) const {
    if constexpr (std::is_same_v<Normalizer, mix::sum_plus>) return sum + normalizer.epsilon;
    if constexpr (std::is_same_v<Normalizer, mix::clamped>) return std::max(sum, normalizer.epsilon);
    if constexpr (std::is_same_v<Normalizer, mix::mean_plus>) return sum + static_cast<double>(seen) * normalizer.epsilon;
    return 1;
  }

  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    using T = mix::accumulator_t<E>;
    auto on = c.on;
    c.with_sequences([&](auto sequences) {
      mix::linear_inputs<E, E> inputs{.q = c.q, .k = c.k, .v = c.v, .initial_state = c.initial_state};
      mix::linear_options<Feature, Normalizer, decltype(sequences), T> options{.feature = map,
                                                                               .normalizer = normalizer,
                                                                               .scale = 0.5,
                                                                               .order = c.order,
                                                                               .sequences = sequences,
                                                                               .final_state = c.final_state};
      if constexpr (sums) inputs.initial_sum = c.initial_sum, options.final_sum = c.final_sum;
      mix::linear_attention(inputs, c.out, options, on);
    });
  }
};

const linear_mixer<mix::as_given, mix::unnormalized> plain;
const linear_mixer<mix::elu_plus_one, mix::clamped> katharopoulos{{}, {1e-6}};

TEST(linear_attention, sizes) {
  cases::gate_record worst;
  cases::expect_sizes<float>(plain, &worst);
  RecordProperty("worst", std::to_string(worst.worst) + " " + worst.where);
}
TEST(linear_attention, identities) { cases::expect_identities<float>(plain); }
TEST(linear_attention, normalized_sizes) { cases::expect_sizes<float>(katharopoulos); }
TEST(linear_attention, normalized_identities) { cases::expect_identities<float>(katharopoulos); }

}  // namespace
