// SPDX-License-Identifier: Apache-2.0
/// @file A causal convolution with everything that it takes, as one value.
#pragma once

#include <reference/cases.hpp>
#include <reference/convolution_oracle.hpp>

#include <tokenmix/mixers/state_space/causal_conv1d.hpp>

#include <optional>

namespace cases {

struct conv_shape {
  index_t batch = 1, tokens = 1, channels = 1, taps = 4, dilation = 1;
  index_t span() const { return (taps - 1) * dilation; }
  std::string text() const {
    return "B" + std::to_string(batch) + " T" + std::to_string(tokens) + " C" + std::to_string(channels) + " k" +
           std::to_string(taps) + " d" + std::to_string(dilation);
  }
};

/// Operands with time on axis 1; `axis` 2 keeps them in memory the other way.
template <class E, class Activation = mix::as_given>
struct conv_operands {
  using T = mix::accumulator_t<E>;
  conv_shape shape;
  index_t axis;
  mix::tensor<E, 3> x, out;  // (B, T, C) or (B, C, T)
  mix::tensor<T, 2> weight;  // (C, k)
  mix::tensor<T, 1> bias;    // (C)
  mix::tensor<T, 3> initial, final_state;
  bool has_bias = true, has_state = true;
  mix::causal_conv1d_options<Activation, mix::whole_sequences, T> options{};

  explicit conv_operands(const conv_shape& s, std::uint64_t seed = 1, index_t time_axis = 1, index_t states = -1)
      : shape(s),
        axis(time_axis),
        x(ordered(s.batch, s.tokens, s.channels)),
        out(x.shape(), untouched<E>()),
        weight({s.channels, s.taps}),
        bias({s.channels}),
        initial(ordered(states < 0 ? s.batch : states, s.span(), s.channels)),
        final_state(initial.shape(), untouched<T>()) {
    random_numbers random(seed);
    for (index_t b = 0; b < s.batch; ++b)
      for (index_t t = 0; t < s.tokens; ++t)
        for (index_t c = 0; c < s.channels; ++c) at(x.view(), b, t, c) = element_of<E>(random.gaussian());
    fill_random(weight.view(), random);
    fill_random(bias.view(), random);
    for (index_t b = 0; b < initial.extent(0); ++b)
      for (index_t t = 0; t < s.span(); ++t)
        for (index_t c = 0; c < s.channels; ++c)
          at(initial.view(), b, t, c) = static_cast<T>(element_of<E>(random.gaussian()));
    options.dilation = s.dilation;
    options.axis = axis;
  }

  mix::extents<3> ordered(index_t n, index_t t, index_t c) const {
    return axis == 1 ? mix::extents<3>{n, t, c} : mix::extents<3>{n, c, t};
  }
  template <class X>
  X& at(const mix::tensor_view<X, 3>& view, index_t b, index_t t, index_t c) const {
    return axis == 1 ? view(b, t, c) : view(b, c, t);
  }
  mix::causal_conv1d_inputs<E, T, T> inputs() const {
    mix::causal_conv1d_inputs<E, T, T> in{.x = x, .weight = weight};
    if (has_bias) in.bias = bias;
    if (has_state) in.initial_state = initial;
    return in;
  }
  template <class Executor = mix::calling_thread>
  void run(Executor&& on = {}) {
    auto chosen = options;
    if (has_state) chosen.final_state = final_state;
    mix::causal_conv1d(inputs(), out.view(), chosen, on);
  }
  /// Time axis 1 whatever the memory.
  template <class X>
  static mix::tensor<X, 3> by_rows(const mix::tensor<X, 3>& view, index_t axis) {
    return axis == 1 ? view : reference_copy(view.permuted({0, 2, 1}));
  }
  template <class X>
  static mix::tensor<X, 3> reference_copy(const mix::tensor_view<const X, 3>& view) {
    mix::tensor<X, 3> copy(view.shape());
    for (index_t a = 0; a < view.extent(0); ++a)
      for (index_t b = 0; b < view.extent(1); ++b)
        for (index_t c = 0; c < view.extent(2); ++c) copy(a, b, c) = view(a, b, c);
    return copy;
  }
  mix::tensor<E, 3> result() const { return by_rows(out, axis); }
  mix::tensor<T, 3> state() const { return by_rows(final_state, axis); }

  /// Budget: a chain of k fma and the bias, (k + 1) u (|bias| + sum |w x|); u of the type computed in, and half a step of E's.
  void expect_oracle(const std::string& label, gate_record* record = nullptr) const {
    const bool reversed = options.order == mix::order::reverse;
    const bool centered = options.window == mix::convolution_window::centered;
    const double u = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24, store = sizeof(E) == 2 ? 0x1p-8 : 0;
    index_t failures = 0;
    const auto number = [](auto v) { return static_cast<double>(static_cast<T>(v)); };
    for (index_t b = 0; b < shape.batch; ++b) {
      for (index_t c = 0; c < shape.channels; ++c) {
        std::vector<double> line, w, past;
        for (index_t t = 0; t < shape.tokens; ++t)
          line.push_back(number(at(x.view(), b, reversed ? shape.tokens - 1 - t : t, c)));
        for (index_t j = 0; j < shape.taps; ++j) w.push_back(number(weight(c, j)));
        for (index_t t = 0; t < shape.span() && has_state; ++t) past.push_back(number(at(initial.view(), b, t, c)));
        const auto want = reference::short_convolution(line, w, has_bias ? number(bias(c)) : 0.0, shape.dilation,
                                                       centered ? shape.span() / 2 : shape.span(), past);
        for (index_t t = 0; t < shape.tokens; ++t) {
          const auto& e = want[static_cast<std::size_t>(t)];
          const double got = number(at(out.view(), b, reversed ? shape.tokens - 1 - t : t, c));
          const double gate = static_cast<double>(shape.taps + 1) * u * e.magnitude + store * std::abs(e.value);
          const double error = std::abs(got - e.value);
          if (record != nullptr && gate > 0) record->see(error / gate, label);
          if (!(error <= gate) && ++failures < 4)
            ADD_FAILURE() << label << " b" << b << " t" << t << " c" << c << ": " << got << ", expected " << e.value;
        }
        if (!has_state) continue;
        const auto last = reference::last_inputs(line, past, shape.span());
        for (index_t t = 0; t < shape.span(); ++t)
          if (!(number(at(final_state.view(), b, t, c)) == last[static_cast<std::size_t>(t)]) && ++failures < 4)
            ADD_FAILURE() << label << ": state " << t << " of channel " << c;
      }
    }
    EXPECT_EQ(failures, 0) << label;
  }
};

template <class E, class A>
void expect_same_conv(const conv_operands<E, A>& got, const conv_operands<E, A>& want, const std::string& label) {
  expect_same_bits<E, 3>(got.result(), want.result(), label);
  if (want.has_state) expect_same_bits<mix::accumulator_t<E>, 3>(got.state(), want.state(), label + ": state");
}

}  // namespace cases
