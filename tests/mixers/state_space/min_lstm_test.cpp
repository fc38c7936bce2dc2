// SPDX-License-Identifier: Apache-2.0
// minLSTM against its recurrence, for gates of any size, and the identities that it promises.
//
// Budget: 16 u of what is written and 12 u of what is kept, either 3 (|f| + |i|) u more, at every token. Identities: memcmp.
#include "gated_recurrence_cases.hpp"

#include <tokenmix/mixers/state_space/min_lstm.hpp>

namespace {

using cases::index_t;

struct min_lstm_mixer : cases::recurrence_mixer<min_lstm_mixer, 3, 1> {
  mix::min_lstm_gates gates = mix::min_lstm_gates::normalized;

  template <class Sequences>
  void call(cases::recurrence_call<3, 1>& c, Sequences sequences) const {
    mix::min_lstm(
        mix::min_lstm_inputs<float>{
            .forget_gate = c.in[0], .input_gate = c.in[1], .candidate = c.in[2], .initial_state = c.state[0]},
        c.out[0],
        mix::min_lstm_options<mix::as_given, Sequences>{
            .gates = gates, .order = c.order, .sequences = sequences, .final_state = c.state[0]},
        c.on);
  }
  cases::recurrence_step step(const double* x, index_t) const {
    const double lost = 0x1p-125 * (1 + std::abs(x[2])), size = 3 * (std::abs(x[0]) + std::abs(x[1]));
    if (gates == mix::min_lstm_gates::separate)
      return {cases::sigmoid(x[0]), cases::sigmoid(x[1]) * x[2], 12 + size, 16 + size, lost};
    // f / (f + i) = sigmoid(log f - log i), log f = -softplus(-x).
    const auto softplus = [](double z) { return z > 30 ? z : std::log1p(std::exp(z)); };
    const double difference = softplus(-x[1]) - softplus(-x[0]);
    return {cases::sigmoid(difference), cases::sigmoid(-difference) * x[2], 12 + size, 16 + size, lost};
  }
};

TEST(min_lstm, oracle_and_identities) { cases::expect_recurrence(min_lstm_mixer{}); }

TEST(min_lstm, separate_gates) {
  min_lstm_mixer mixer;
  mixer.gates = mix::min_lstm_gates::separate;
  std::uint64_t seed = 0;
  for (const double scale : {0.5, 2.0, 60.0})
    for (index_t tokens : {1, 30, 200}) {
      mixer.scale = scale;
      cases::expect_state_oracle(mixer, {2, 2, 2, 2, tokens, 8, 21}, ++seed);
    }
}

// Infinite gates have the ratio that they tend to; two that are closed alike share; NaN in a state that is not kept stays there.
TEST(min_lstm, gates_of_infinity) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const float forget[] = {-inf, inf, -inf, inf, -200, 0}, input[] = {0, -inf, -inf, inf, -200, -inf};
  const float want[] = {6, 2, 4, 4, 4, 2};
  for (int n = 0; n < 6; ++n) {
    const mix::tensor<float, 3> f({1, 1, 5}, forget[n]), i({1, 1, 5}, input[n]), x({1, 1, 5}, 6.0f);
    mix::tensor<float, 3> out({1, 1, 5});
    const mix::tensor<float, 2> state({1, 5}, n == 0 ? nan : 2.0f);
    mix::min_lstm(
        mix::min_lstm_inputs<float>{.forget_gate = f, .input_gate = i, .candidate = x, .initial_state = state},
        out.view());
    for (float e : out) EXPECT_NEAR(static_cast<double>(e), static_cast<double>(want[n]), 1e-6) << n;
  }
}

TEST(min_lstm, positive_candidates_and_types) {
  const auto f = reference::normal<float>({1, 20, 19}, 1), i = reference::normal<float>({1, 20, 19}, 2),
             x = reference::normal<float>({1, 20, 19}, 3);
  mix::tensor<float, 3> out({1, 20, 19});
  mix::min_lstm(mix::min_lstm_inputs<float>{.forget_gate = f, .input_gate = i, .candidate = x}, out.view(),
                mix::min_lstm_options<mix::positive_candidate>{});
  for (index_t c = 0; c < 19; ++c) {
    double h = 0;
    for (index_t t = 0; t < 20; ++t) {
      const double v[3] = {
          static_cast<double>(f(0, t, c)), static_cast<double>(i(0, t, c)),
          x(0, t, c) >= 0 ? static_cast<double>(x(0, t, c)) + 0.5 : cases::sigmoid(static_cast<double>(x(0, t, c)))};
      const auto step = min_lstm_mixer{}.step(v, c);
      h = step.keep.real() * h + step.write.real();
      EXPECT_NEAR(static_cast<double>(out(0, t, c)), h, 2e-6 * h);
    }
  }
  // 16-bit inputs are the floats that they are.
  const auto narrow = reference::normal<mix::bfloat16>({1, 20, 19}, 4);
  mix::tensor<float, 3> wide({1, 20, 19}), of_narrow = wide, of_wide = wide;
  for (index_t n = 0; n < wide.size(); ++n) wide.data()[n] = static_cast<float>(narrow.data()[n]);
  mix::min_lstm(mix::min_lstm_inputs<mix::bfloat16>{.forget_gate = narrow, .input_gate = narrow, .candidate = narrow},
                of_narrow.view());
  mix::min_lstm(mix::min_lstm_inputs<float>{.forget_gate = wide, .input_gate = wide, .candidate = wide},
                of_wide.view());
  cases::expect_same_bits<float, 3>(of_narrow, of_wide, "bfloat16");
}

TEST(min_lstm, errors) {
  const mix::tensor<float, 3> x({1, 5, 8}), narrow({1, 5, 7});
  mix::tensor<float, 3> out({1, 5, 8}, cases::untouched<float>());
  cases::expect_message(
      [&] {
        mix::min_lstm(mix::min_lstm_inputs<float>{.forget_gate = x, .input_gate = narrow, .candidate = x}, out.view());
      },
      "input_gate is (1, 5, 7), forget_gate is (1, 5, 8)");
  cases::expect_message(
      [&] {
        mix::min_lstm(mix::min_lstm_inputs<float>{.forget_gate = x, .input_gate = x, .candidate = out.slice(1, 0, 5)},
                      out.slice(2, 0, 7));
      },
      "out is (1, 5, 7), forget_gate is (1, 5, 8)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
