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

// Every query sees all keys: the state of all tokens is read.
TEST(linear_attention, bidirectional) {
  const auto check = [](const auto& mixer) {
    for (index_t tokens : {1, 2, 15, 16, 17, 33, 70}) {
      cases::linear_operands<float> x(mixer, {2, 2, 2, 2, tokens, 20, 24}, static_cast<std::uint64_t>(tokens));
      auto c = x.call();
      c.order = mix::order::bidirectional;
      mixer(c);
      cases::expect_within_gate<float>(mixer, x, cases::expected_of<float>(mixer, x, mix::order::bidirectional),
                                       x.size.text());
    }
    cases::expect_packed_is_a_loop<float>(mixer, {1, 2, 2, 2, 40, 20, 24}, 3, {0, 0, 1, 18, 40},
                                          mix::order::bidirectional);
  };
  check(plain);
  check(katharopoulos);
  check(linear_mixer<mix::elu_plus_one, mix::mean_plus>{{}, {1e-2}});
}

// Queries of another sequence than the keys.
TEST(linear_attention, bidirectional_with_other_keys) {
  const auto q = reference::normal<float>({1, 2, 5, 12}, 1), k = reference::normal<float>({1, 2, 40, 12}, 2),
             v = reference::normal<float>({1, 2, 40, 7}, 3);
  mix::tensor<float, 4> out({1, 2, 5, 7}), none({1, 2, 5, 7}, 1.0f);
  const mix::linear_options options{
      .feature = mix::elu_plus_one{}, .normalizer = mix::clamped{}, .order = mix::order::bidirectional};
  mix::linear_attention(q, k, v, out, options);
  const auto phi = [](double x) { return x > 0 ? x + 1 : std::exp(x); };
  for (index_t h = 0; h < 2; ++h) {
    for (index_t t = 0; t < 5; ++t) {
      for (index_t c = 0; c < 7; ++c) {
        double sum = 0, weights = 0;
        for (index_t s = 0; s < 40; ++s) {
          double w = 0;
          for (index_t d = 0; d < 12; ++d)
            w += phi(static_cast<double>(q(0, h, t, d))) * phi(static_cast<double>(k(0, h, s, d)));
          sum += w * static_cast<double>(v(0, h, s, c));
          weights += w;
        }
        EXPECT_NEAR(static_cast<double>(out(0, h, t, c)), sum / weights, 2e-6);
      }
    }
  }
  mix::linear_attention(q, k.slice(2, 0, 0), v.slice(2, 0, 0), none, options);
  for (float x : none) EXPECT_EQ(x, 0.0f);  // no key, no weight: 0 / epsilon
}

TEST(linear_attention, normalizers) {
  cases::expect_oracle<float>(linear_mixer<mix::exponential, mix::sum_plus>{{}, {1e-3}}, {1, 2, 2, 2, 40, 12, 9}, 1);
  cases::expect_oracle<float>(linear_mixer<mix::elu_plus_one, mix::mean_plus>{{}, {1e-2}}, {1, 2, 2, 2, 40, 12, 9}, 2);
  cases::expect_split<float>(linear_mixer<mix::relu_squared, mix::sum_plus>{{}, {1e-1}}, {1, 2, 2, 2, 40, 12, 9}, 3);
  // Weights that sum to nothing: clamped gives zeros, a NaN in a query stays where it is.
  mix::tensor<float, 4> q({1, 1, 3, 4}, -1.0f), k = q, v({1, 1, 3, 4}, 5.0f), out({1, 1, 3, 4}, 1.0f);
  q(0, 0, 1, 2) = std::nanf("");
  mix::linear_attention(q, k, v, out, mix::linear_options{.feature = mix::relu{}, .normalizer = mix::clamped{1e-6}});
  for (index_t t = 0; t < 3; ++t) {
    for (index_t c = 0; c < 4; ++c) EXPECT_TRUE(t == 1 ? std::isnan(out(0, 0, t, c)) : out(0, 0, t, c) == 0.0f);
  }
}

// mean_plus counts on where the initial state says so.
TEST(linear_attention, mean_goes_on) {
  const auto q = reference::normal<float>({1, 1, 48, 8}, 1), k = reference::normal<float>({1, 1, 48, 8}, 2),
             v = reference::normal<float>({1, 1, 48, 8}, 3);
  mix::tensor<float, 4> whole({1, 1, 48, 8}), parts = whole, state({1, 1, 8, 8});
  mix::tensor<float, 3> sum({1, 1, 8});
  mix::linear_attention(q, k, v, whole,
                        mix::linear_options{.feature = mix::elu_plus_one{}, .normalizer = mix::mean_plus{0.1}});
  for (index_t first : {0, 32}) {
    const index_t count = first == 0 ? 32 : 16;
    mix::linear_attention(mix::linear_inputs{.q = q.slice(2, first, count),
                                             .k = k.slice(2, first, count),
                                             .v = v.slice(2, first, count),
                                             .initial_state = state,
                                             .initial_sum = sum},
                          parts.slice(2, first, count),
                          mix::linear_options{.feature = mix::elu_plus_one{},
                                              .normalizer = mix::mean_plus{0.1, first},
                                              .final_state = state.view(),
                                              .final_sum = sum.view()});
  }
  cases::expect_same_bits<float, 4>(parts, whole, "mean in two parts");
}

}  // namespace
