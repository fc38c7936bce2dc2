// SPDX-License-Identifier: Apache-2.0
/// @file Elementwise recurrences under the identities of all recurrent mixers: heads are calls of their own.
#pragma once

#include <mixers/linear/state_identities.hpp>

#include <array>
#include <complex>

namespace cases {

/// h = keep h + write of one channel and token in double, and what may be wrong with both, in units of u times themselves.
struct recurrence_step {
  std::complex<double> keep, write;
  double keep_error = 8, write_error = 12;
  double lost = 0;  ///< what underflow may take from what is written
};

/// One head's operands as the mixers take them.
template <std::size_t Inputs, std::size_t States>
struct recurrence_call {
  std::array<mix::tensor_view<const float, 3>, Inputs> in;  // (B, T, C)
  std::array<mix::tensor_view<float, 3>, States> out;       // (B, T, C)
  std::array<mix::tensor_view<float, 2>, States> state;     // (n, C), in and out
  mix::order order;
  any_executor on;
};

/// Derived has `call(recurrence_call, sequences)` and `step(const double* x, channel)`; `scale` is the typical size of a number.
template <class Derived, std::size_t Inputs, std::size_t States>
struct recurrence_mixer {
  static constexpr bool splits_anywhere = true;
  double scale = 2;

  static mix::extents<4> shape_of(const linear_shape& s) { return {s.batch, s.heads, s.tokens, s.value_width}; }
  static std::vector<mix::extents<4>> inputs(const linear_shape& s) { return {Inputs, shape_of(s)}; }
  void fill(std::vector<mix::tensor<float, 4>>& in, random_numbers& random) const {
    for (auto& x : in) fill_random(x.view(), random, scale);
  }
  static state_parts initial(const linear_shape& s, index_t n, random_numbers& random) {
    state_parts state(States, mix::tensor<double, 4>({n, s.heads, s.value_width, 1}));
    for (auto& part : state)
      for (double& e : part) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  template <class E>
  static mix::tensor_view<E, 3> head_of(const mix::tensor_view<E, 4>& x, index_t h) {
    return {x.empty() ? nullptr : x.data() + h * x.stride(1),
            {x.extent(0), x.extent(2), x.extent(3)},
            {x.stride(0), x.stride(2), x.stride(3)}};
  }
  void operator()(const state_call& c) const {
    for (index_t h = 0; h < c.out.extent(1); ++h) {
      recurrence_call<Inputs, States> one{{}, {}, {}, c.order, c.on};
      mix::tensor<float, 3> other(mix::extents<3>{c.out.extent(0), c.out.extent(2), c.out.extent(3)});
      std::vector<mix::tensor<float, 2>> state;
      for (std::size_t i = 0; i < Inputs; ++i) one.in[i] = head_of(c.in[i], h);
      for (std::size_t s = 0; s < States; ++s) {
        one.out[s] = s == 0 ? head_of(c.out, h) : other.view();
        auto& part = state.emplace_back(mix::extents<2>{(*c.state)[s].extent(0), (*c.state)[s].extent(2)});
        for (index_t n = 0; n < part.extent(0); ++n)
          for (index_t d = 0; d < part.extent(1); ++d) part(n, d) = static_cast<float>((*c.state)[s](n, h, d, 0));
      }
      for (std::size_t s = 0; s < States; ++s) one.state[s] = state[s];
      c.with_sequences([&](auto sequences) { static_cast<const Derived&>(*this).call(one, sequences); });
      for (std::size_t s = 0; s < States; ++s)
        for (index_t n = 0; n < state[s].extent(0); ++n)
          for (index_t d = 0; d < state[s].extent(1); ++d)
            (*c.state)[s](n, h, d, 0) = static_cast<double>(state[s](n, d));
    }
  }
  static void rescale(state_parts&, const state_parts&) {}
  state_answer oracle(const linear_shape& s, const std::vector<mix::tensor<float, 4>>& in, const state_parts& initial,
                      bool reversed) const {
    state_answer a{{}, {}, initial, initial};
    a.out.assign(static_cast<std::size_t>(mix::tensor_view<const float, 4>(nullptr, shape_of(s)).size()), 0);
    a.gate = a.out;
    for (index_t b = 0; b < s.batch; ++b)
      for (index_t h = 0; h < s.heads; ++h)
        for (index_t c = 0; c < s.value_width; ++c) {
          std::complex<double> state(initial[0](b, h, c, 0), States > 1 ? initial[States - 1](b, h, c, 0) : 0);
          double size = std::abs(state), error = 0;  // error in units of u
          for (index_t i = 0; i < s.tokens; ++i) {
            const index_t t = reversed ? s.tokens - 1 - i : i;
            double x[Inputs];
            for (std::size_t n = 0; n < Inputs; ++n) x[n] = static_cast<double>(in[n](b, h, t, c));
            const recurrence_step step = static_cast<const Derived&>(*this).step(x, c);
            state = step.keep * state + step.write;
            error = std::abs(step.keep) * (error + step.keep_error * size) + step.write_error * std::abs(step.write) +
                    (step.lost + 0x1p-125 * size) * 0x1p24;  // a gate below the normal numbers is zero
            size = std::abs(step.keep) * size + std::abs(step.write);
            const auto e = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * s.value_width + c);
            a.out[e] = state.real();
            a.gate[e] = 0x1p-24 * error + 1e-37;
          }
          for (std::size_t part = 0; part < States; ++part) {
            a.state[part](b, h, c, 0) = part == 0 ? state.real() : state.imag();
            a.state_gate[part](b, h, c, 0) = 0x1p-24 * error + 1e-37;
          }
        }
    return a;
  }
};

inline double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

/// Sizes, identities, and gates of any size; the largest error is printed.
template <class Mixer>
void expect_recurrence(const Mixer& typical) {
  gate_record worst;
  expect_state_sizes(typical, &worst);
  expect_state_identities(typical);
  std::uint64_t seed = 77;
  for (const double scale : {0.0, 0.01, 10.0, 60.0, 1e4}) {
    Mixer mixer = typical;
    mixer.scale = scale;
    for (index_t tokens : {1, 40, 500}) expect_state_oracle(mixer, {1, 1, 1, 1, tokens, 8, 37}, ++seed, &worst);
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

/// The call is refused, with these words in the message.
template <class Call>
void expect_message(const Call& call, const std::string& message) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
  }
}

}  // namespace cases
