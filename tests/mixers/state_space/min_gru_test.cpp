// SPDX-License-Identifier: Apache-2.0
// minGRU against its recurrence, for gates of any size, and the identities that it promises.
//
// Budget: (12 + 3 |gate|) u of what is written and (8 + 3 |gate|) u of what is kept, at every token. Identities: memcmp.
#include "gated_recurrence_cases.hpp"

#include <tokenmix/mixers/state_space/min_gru.hpp>

namespace {

using cases::index_t;

template <class Candidate>
struct min_gru_mixer : cases::recurrence_mixer<min_gru_mixer<Candidate>, 2, 1> {
  template <class Sequences>
  void call(cases::recurrence_call<2, 1>& c, Sequences sequences) const {
    mix::min_gru(
        mix::min_gru_inputs<float>{.gate = c.in[0], .candidate = c.in[1], .initial_state = c.state[0]}, c.out[0],
        mix::min_gru_options<Candidate, Sequences>{.order = c.order, .sequences = sequences, .final_state = c.state[0]},
        c.on);
  }
  static cases::recurrence_step step(const double* x, index_t) {
    constexpr bool positive = std::is_same_v<Candidate, mix::positive_candidate>;
    const double g = !positive ? x[1] : x[1] >= 0 ? x[1] + 0.5 : cases::sigmoid(x[1]);
    const double of_candidate = positive && x[1] < 0 ? 3 * std::abs(x[1]) : 0;
    return {cases::sigmoid(-x[0]), cases::sigmoid(x[0]) * g, 8 + 3 * std::abs(x[0]),
            12 + 3 * std::abs(x[0]) + of_candidate, 0x1p-125 * (1 + std::abs(g))};
  }
};

TEST(min_gru, oracle_and_identities) { cases::expect_recurrence(min_gru_mixer<mix::as_given>{}); }

TEST(min_gru, positive_candidates) {
  std::uint64_t seed = 0;
  for (const double scale : {0.5, 2.0, 60.0})
    for (index_t tokens : {1, 30, 200}) {
      min_gru_mixer<mix::positive_candidate> mixer;
      mixer.scale = scale;
      cases::expect_state_oracle(mixer, {2, 2, 2, 2, tokens, 8, 21}, ++seed);
    }
}

// A gate that is open for good keeps nothing and does not read the state, NaN included.
TEST(min_gru, reset) {
  const mix::tensor<float, 3> candidate({1, 2, 20}, 3.0f), gate({1, 2, 20}, std::numeric_limits<float>::infinity());
  const mix::tensor<float, 2> state({1, 20}, std::nanf(""));
  mix::tensor<float, 3> out({1, 2, 20});
  mix::min_gru(mix::min_gru_inputs<float>{.gate = gate, .candidate = candidate, .initial_state = state}, out.view());
  for (float e : out) EXPECT_EQ(e, 3.0f);
}

TEST(min_gru, double_and_in_place) {
  auto gate = reference::normal<double>({1, 30, 11}, 1), candidate = reference::normal<double>({1, 30, 11}, 2);
  mix::tensor<double, 3> out({1, 30, 11});
  const mix::min_gru_inputs<double> in{.gate = gate, .candidate = candidate};
  const mix::min_gru_options<mix::as_given, mix::whole_sequences, double> options;
  mix::min_gru(in, out.view(), options);
  for (index_t c = 0; c < 11; ++c) {
    double h = 0;
    for (index_t t = 0; t < 30; ++t) {
      h = cases::sigmoid(-gate(0, t, c)) * h + cases::sigmoid(gate(0, t, c)) * candidate(0, t, c);
      EXPECT_NEAR(out(0, t, c), h, 1e-14);
    }
  }
  mix::min_gru(in, gate.view(), options);
  cases::expect_same_bits<double, 3>(gate, out, "over the gate");
}

TEST(min_gru, errors) {
  const mix::tensor<float, 3> x({1, 5, 8}), narrow({1, 5, 7});
  mix::tensor<float, 3> out({1, 5, 8}, cases::untouched<float>());
  mix::tensor<float, 2> state({1, 7});
  const auto fails = [&](const mix::min_gru_inputs<float>& in, const mix::min_gru_options<>& o, const std::string& m) {
    cases::expect_message([&] { mix::min_gru(in, out.view(), o); }, m);
  };
  fails({.gate = x, .candidate = narrow}, {}, "candidate is (1, 5, 7), gate is (1, 5, 8)");
  fails({.gate = x, .candidate = x}, {.final_state = state.view()}, "final_state is (1, 7), expected");
  fails({.gate = x, .candidate = x}, {.final_state = {out.data(), {1, 8}}}, "final_state overlaps out");
  fails({.gate = x, .candidate = {x.data(), {1, 5, 4}, {40, 8, 2}}}, {}, "candidate has stride 2 along its last axis");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
