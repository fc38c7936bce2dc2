// SPDX-License-Identifier: Apache-2.0
// HGRN, real and complex, against its recurrence, for gates of any size, and the identities that it promises.
//
// Budget: 16 u of what is written and 12 u of what is kept, either 3 |gate| u more, at every token. Identities: memcmp.
#include "gated_recurrence_cases.hpp"

#include <tokenmix/mixers/state_space/hgrn.hpp>

namespace {

using cases::index_t;

float bound_of(index_t c) { return c % 5 == 0 ? 0.0f : c % 5 == 4 ? 1.0f : 0.33f * static_cast<float>(c % 5); }
float angle_of(index_t c) { return 0.37f * static_cast<float>(c) - 2.0f; }
mix::tensor<float, 1> line(index_t C, float (*of)(index_t)) {
  mix::tensor<float, 1> x({C});
  for (index_t c = 0; c < C; ++c) x(c) = of(c);
  return x;
}
double silu(double x) { return x * cases::sigmoid(x); }

struct hgrn_mixer : cases::recurrence_mixer<hgrn_mixer, 2, 1> {
  template <class Sequences>
  void call(cases::recurrence_call<2, 1>& c, Sequences sequences) const {
    const auto bound = line(c.out[0].extent(2), bound_of);
    mix::hgrn(
        mix::hgrn_inputs<float>{
            .forget_gate = c.in[0], .candidate = c.in[1], .lower_bound = bound, .initial_state = c.state[0]},
        c.out[0],
        mix::hgrn_options<mix::silu, Sequences>{.order = c.order, .sequences = sequences, .final_state = c.state[0]},
        c.on);
  }
  cases::recurrence_step step(const double* x, index_t c) const {
    const double bound = static_cast<double>(bound_of(c));
    return {bound + (1 - bound) * cases::sigmoid(x[0]), (1 - bound) * cases::sigmoid(-x[0]) * silu(x[1]),
            12 + 3 * std::abs(x[0]), 16 + 3 * std::abs(x[0]), 0x1p-125 * (1 + std::abs(x[1]))};
  }
};

struct complex_hgrn_mixer : cases::recurrence_mixer<complex_hgrn_mixer, 3, 2> {
  template <class Sequences>
  void call(cases::recurrence_call<3, 2>& c, Sequences sequences) const {
    const auto bound = line(c.out[0].extent(2), bound_of), angle = line(c.out[0].extent(2), angle_of);
    mix::complex_hgrn(mix::complex_hgrn_inputs<float>{.forget_gate = c.in[0],
                                                      .real = c.in[1],
                                                      .imaginary = c.in[2],
                                                      .angle = angle,
                                                      .lower_bound = bound,
                                                      .initial_state = {c.state[0], c.state[1]}},
                      c.out[0], c.out[1],
                      mix::complex_hgrn_options<mix::silu, Sequences>{
                          .order = c.order, .sequences = sequences, .final_state = {c.state[0], c.state[1]}},
                      c.on);
  }
  cases::recurrence_step step(const double* x, index_t c) const {
    const double bound = static_cast<double>(bound_of(c)), angle = static_cast<double>(angle_of(c));
    return {std::polar(bound + (1 - bound) * cases::sigmoid(x[0]), angle),
            (1 - bound) * cases::sigmoid(-x[0]) * std::complex<double>(silu(x[1]), silu(x[2])), 12 + 3 * std::abs(x[0]),
            16 + 3 * std::abs(x[0]), 0x1p-125 * (1 + std::abs(x[1]) + std::abs(x[2]))};
  }
};

TEST(hgrn, oracle_and_identities) { cases::expect_recurrence(hgrn_mixer{}); }
TEST(complex_hgrn, oracle_and_identities) { cases::expect_recurrence(complex_hgrn_mixer{}); }

// Without an angle the two parts are two real units, the imaginary output included.
TEST(complex_hgrn, without_an_angle) {
  const auto f = reference::normal<float>({2, 30, 21}, 1), re = reference::normal<float>({2, 30, 21}, 2),
             im = reference::normal<float>({2, 30, 21}, 3);
  const mix::tensor<float, 1> angle({21}, 0.0f);
  mix::tensor<float, 3> real(f.shape()), imaginary(f.shape()), want(f.shape());
  mix::complex_hgrn(mix::complex_hgrn_inputs<float>{.forget_gate = f, .real = re, .imaginary = im, .angle = angle},
                    real.view(), imaginary.view());
  mix::hgrn(mix::hgrn_inputs<float>{.forget_gate = f, .candidate = re}, want.view());
  cases::expect_same_bits<float, 3>(real, want, "real");
  mix::hgrn(mix::hgrn_inputs<float>{.forget_gate = f, .candidate = im}, want.view());
  cases::expect_same_bits<float, 3>(imaginary, want, "imaginary");
}

// A gate that is closed for good does not read the state, NaN included; a bound of 1 keeps everything.
TEST(hgrn, reset_and_keep) {
  const mix::tensor<float, 3> gate({1, 1, 20}, -std::numeric_limits<float>::infinity()), x({1, 1, 20}, 3.0f);
  const mix::tensor<float, 2> lost({1, 20}, std::nanf("")), kept({1, 20}, 7.0f);
  const mix::tensor<float, 1> all({20}, 1.0f), angle({20}, 0.3f);
  mix::tensor<float, 3> out({1, 1, 20}), other = out;
  const mix::hgrn_options<mix::as_given> options;
  mix::hgrn(mix::hgrn_inputs<float>{.forget_gate = gate, .candidate = x, .initial_state = lost}, out.view(), options);
  for (float e : out) EXPECT_EQ(e, 3.0f);
  mix::hgrn(mix::hgrn_inputs<float>{.forget_gate = gate, .candidate = x, .lower_bound = all, .initial_state = kept},
            out.view(), options);
  for (float e : out) EXPECT_EQ(e, 7.0f);
  mix::complex_hgrn(
      mix::complex_hgrn_inputs<float>{
          .forget_gate = gate, .real = x, .imaginary = x, .angle = angle, .initial_state = {lost, lost}},
      out.view(), other.view(), mix::complex_hgrn_options<mix::as_given>{});
  for (index_t i = 0; i < 20; ++i) EXPECT_TRUE(out.data()[i] == 3.0f && other.data()[i] == 3.0f);
}

TEST(hgrn, errors) {
  const mix::tensor<float, 3> x({1, 5, 8});
  mix::tensor<float, 3> out({1, 5, 8}, cases::untouched<float>());
  const mix::tensor<float, 1> beyond({8}, 1.5f), narrow({7});
  mix::tensor<float, 2> state({1, 8});
  const auto fails = [&](const mix::hgrn_inputs<float>& in, const std::string& m) {
    cases::expect_message([&] { mix::hgrn(in, out.view()); }, m);
  };
  fails({.forget_gate = x, .candidate = x, .lower_bound = beyond}, "lower_bound[0] is 1.5: expected 0 to 1");
  fails({.forget_gate = x, .candidate = x, .lower_bound = narrow}, "lower_bound has 7 channels, expected 8");
  const auto complex_fails = [&](const mix::complex_hgrn_inputs<float>& in, const mix::tensor_view<float, 3>& second,
                                 const std::string& m) {
    cases::expect_message([&] { mix::complex_hgrn(in, out.view(), second); }, m);
  };
  mix::tensor<float, 3> other({1, 5, 8});
  const mix::tensor<float, 1> angle({8});
  complex_fails({.forget_gate = x, .real = x, .imaginary = x}, other, "angle has 0 channels, expected 8");
  complex_fails({.forget_gate = x, .real = x, .imaginary = x, .angle = angle}, out, "out_imaginary overlaps out_real");
  complex_fails({.forget_gate = x, .real = x, .imaginary = x, .angle = angle, .initial_state = {.real = state}}, other,
                "a state is given whole");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
