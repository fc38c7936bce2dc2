// SPDX-License-Identifier: Apache-2.0
/// @file Diagonal state-space models for the tests of identities: heads are models of their own, states real or complex.
#pragma once

#include <tokenmix/state_space.hpp>

#include <complex>

#include <mixers/linear/state_identities.hpp>
#include <reference/diagonal_ssm_oracle.hpp>

namespace cases {

/// Real and imaginary parts as the last axis of a state's doubles.
template <class P>
P number_of(const double* from) {
  if constexpr (std::is_same_v<P, float>) {
    return static_cast<float>(*from);
  } else {
    return {static_cast<float>(from[0]), static_cast<float>(from[1])};
  }
}
inline void put_number(float x, double* to) { *to = static_cast<double>(x); }
inline void put_number(std::complex<float> x, double* to) {
  to[0] = static_cast<double>(x.real());
  to[1] = static_cast<double>(x.imag());
}

/// Transitions of any size in the unit disk, real ones in [0, 1): some nearly 1, some nearly or exactly 0.
template <class P>
P transition_at(index_t i, bool resets) {
  const double x = static_cast<double>(i);
  if (resets && i % 7 == 3) return P(0);
  const double size = std::exp(-std::exp(4 * std::sin(1.7 * x) - 4)), angle = 3 * std::sin(0.9 * x + 0.2);
  if constexpr (std::is_same_v<P, float>) {
    return static_cast<float>(size);
  } else {
    return {static_cast<float>(size * std::cos(angle)), static_cast<float>(size * std::sin(angle))};
  }
}
template <class P>
P weight_at(index_t i, double phase) {
  const double x = static_cast<double>(i) + phase;
  if constexpr (std::is_same_v<P, float>) {
    return static_cast<float>(std::sin(2.3 * x));
  } else {
    return {static_cast<float>(std::sin(2.3 * x)), static_cast<float>(std::cos(1.1 * x))};
  }
}

/// x of head h as (B, T, D).
template <class E>
mix::tensor_view<E, 3> of_head(const mix::tensor_view<E, 4>& x, index_t h) {
  return {x.empty() ? nullptr : const_cast<std::remove_const_t<E>*>(x.row(0, h)),
          {x.extent(0), x.extent(2), x.extent(3)},
          {x.stride(0), x.stride(2), x.stride(3)}};
}

/// N = width, D = value_width. State: (n, H, D, N) numbers.
template <class P>
struct diagonal_mixer {
  static constexpr bool splits_anywhere = true;
  static constexpr index_t parts = std::is_same_v<P, float> ? 1 : 2;
  bool has_input = false;
  bool resets = false;
  mix::readout readout = mix::readout::conjugate_pairs;

  struct parameters {
    mix::tensor<P, 2> transition, input, output;
    mix::tensor<float, 1> skip;
  };
  parameters of(index_t head, index_t D, index_t N) const {
    parameters p{mix::tensor<P, 2>({D, N}), mix::tensor<P, 2>({D, N}), mix::tensor<P, 2>({D, N}),
                 mix::tensor<float, 1>({D})};
    for (index_t i = 0; i < D * N; ++i) {
      p.transition.data()[i] = transition_at<P>(i + 17 * head, resets);
      p.input.data()[i] = has_input ? weight_at<P>(i + head, 0.3) : P(1);
      p.output.data()[i] = weight_at<P>(i + head, 0.7);
    }
    for (index_t d = 0; d < D; ++d) p.skip(d) = static_cast<float>(std::cos(static_cast<double>(d)));
    return p;
  }
  static std::vector<mix::extents<4>> inputs(const linear_shape& s) {
    return {{s.batch, s.heads, s.tokens, s.value_width}};
  }
  static void fill(std::vector<mix::tensor<float, 4>>& in, random_numbers& random) {
    fill_random(in[0].view(), random);
  }
  static state_parts initial(const linear_shape& s, index_t n, random_numbers& random) {
    state_parts state(1, mix::tensor<double, 4>({n, s.heads, s.value_width, s.width * parts}));
    for (double& e : state[0]) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  void operator()(const state_call& c) const {
    auto on = c.on;
    auto& all = (*c.state)[0];
    const index_t n = all.extent(0), D = all.extent(2), N = all.extent(3) / parts;
    for (index_t h = 0; h < all.extent(1); ++h) {
      const parameters p = of(h, D, N);
      mix::tensor<P, 3> state({n, D, N});
      const auto place = [&](index_t i) { return all.row(i / (D * N), h) + i % (D * N) * parts; };
      for (index_t i = 0; i < state.size(); ++i) state.data()[i] = number_of<P>(place(i));
      mix::diagonal_ssm_inputs<float, P> in{.x = of_head(c.in[0], h),
                                            .transition = p.transition,
                                            .output = p.output,
                                            .skip = p.skip,
                                            .initial_state = state};
      if (has_input) in.input = p.input;
      c.with_sequences([&](auto sequences) {
        mix::diagonal_ssm(
            in, of_head(c.out, h),
            mix::diagonal_ssm_options<P, decltype(sequences)>{
                .readout = readout, .order = c.order, .sequences = sequences, .final_state = state.view()},
            on);
      });
      for (index_t i = 0; i < state.size(); ++i) put_number(state.data()[i], place(i));
    }
  }
  static void rescale(state_parts&, const state_parts&) {}
  state_answer oracle(const linear_shape& s, const std::vector<mix::tensor<float, 4>>& in, const state_parts& initial,
                      bool reversed) const {
    const double u = 0x1p-24;
    state_answer a{{}, {}, initial, {initial[0]}};
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        const parameters p = of(h, s.value_width, s.width);
        std::vector<double> out(static_cast<std::size_t>(s.tokens * s.value_width)), gates = out;
        for (index_t c = 0; c < s.value_width; ++c) {
          reference::diagonal_channel channel;
          channel.factor = readout == mix::readout::real ? 1 : 2;
          channel.skip = static_cast<double>(p.skip(c));
          for (index_t n = 0; n < s.width; ++n) {
            channel.transition.emplace_back(p.transition(c, n));
            channel.input.emplace_back(p.input(c, n));
            channel.output.emplace_back(p.output(c, n));
            const double* const from = initial[0].row(b, h, c, n * parts);
            channel.state.emplace_back(from[0], parts == 2 ? from[1] : 0.0);
          }
          channel.start();
          for (index_t i = 0; i < s.tokens; ++i) {
            const index_t t = reversed ? s.tokens - 1 - i : i;
            const auto e = static_cast<std::size_t>(t * s.value_width + c);
            const auto y = channel.step(static_cast<double>(in[0](b, h, t, c)));
            out[e] = y.value;
            gates[e] = u * (8 * y.terms + 4 * y.far_terms);
          }
          for (index_t n = 0; n < s.width; ++n) {
            const auto k = static_cast<std::size_t>(n);
            for (index_t part = 0; part < parts; ++part) {
              a.state[0](b, h, c, n * parts + part) = part == 0 ? channel.state[k].real() : channel.state[k].imag();
              a.state_gate[0](b, h, c, n * parts + part) = u * (8 * channel.terms[k] + 4 * channel.far_terms[k]);
            }
          }
        }
        a.out.insert(a.out.end(), out.begin(), out.end());
        a.gate.insert(a.gate.end(), gates.begin(), gates.end());
      }
    }
    return a;
  }
};

/// Parameters and states with contiguous channels, or repeated for all channels; many sequences that share a task: the same bits.
template <class P>
void expect_diagonal_layouts(index_t T, index_t N, bool has_input) {
  const index_t B = 9;
  for (const index_t D : {1, 15, 16, 24, 37, 130}) {
    const auto p = diagonal_mixer<P>{has_input, N % 2 == 1}.of(0, D, N);
    const auto x = reference::normal<float>({B, T, D}, 1);
    mix::tensor<P, 3> state({B, D, N}), initial = state;
    random_numbers random(2);
    for (P& h : initial) {
      const double parts_of_h[2] = {random.gaussian(), random.gaussian()};
      h = number_of<P>(parts_of_h);
    }
    mix::tensor<float, 3> want(x.shape()), got(x.shape());
    mix::diagonal_ssm_inputs<float, P> in{
        .x = x, .transition = p.transition, .output = p.output, .skip = p.skip, .initial_state = initial};
    if (has_input) in.input = p.input;
    for (index_t b = 0; b < B; ++b) {
      auto one = in;
      one.x = x.slice(0, b, 1), one.initial_state = initial.slice(0, b, 1);
      mix::diagonal_ssm(one, want.slice(0, b, 1), mix::diagonal_ssm_options<P>{.final_state = state.slice(0, b, 1)});
    }
    // The first token of many is the step.
    const auto longer = reference::normal<float>({1, T + 1, D}, 4);
    mix::tensor<float, 3> first_tokens({1, T, D}), all_tokens(longer.shape());
    auto some = in;
    some.initial_state = initial.slice(0, 0, 1);
    some.x = longer.slice(1, 0, T);
    mix::diagonal_ssm(some, first_tokens.view());
    some.x = longer;
    mix::diagonal_ssm(some, all_tokens.view());
    expect_same_bits<float, 3>(first_tokens, all_tokens.slice(1, 0, T), "the first of many");
    mix::tensor<P, 3> after({B, D, N});
    mix::diagonal_ssm(in, got.view(), mix::diagonal_ssm_options<P>{.final_state = after.view()});
    expect_same_bits<float, 3>(got, want, "together");
    EXPECT_TRUE((reference::same_bits<P, 3>(after, state)));

    const auto transition = reference::packed_copy<P, 2>(p.transition.view().permuted({1, 0})),
               output = reference::packed_copy<P, 2>(p.output.view().permuted({1, 0})),
               input = reference::packed_copy<P, 2>(p.input.view().permuted({1, 0}));
    const auto first = reference::packed_copy<P, 3>(initial.view().permuted({0, 2, 1}));
    for (const auto side : {reference::flush::end, reference::flush::start}) {
      const reference::guarded_buffer<P> a(transition.data(), transition.size(), side),
          c(output.data(), output.size(), side), b(input.data(), input.size(), side),
          h(first.data(), first.size(), side);
      reference::guarded_buffer<P> last(first.size(), side);
      auto turned = in;
      turned.transition = mix::tensor_view<const P, 2>(a.data(), {N, D}).permuted({1, 0});
      if (has_input) turned.input = mix::tensor_view<const P, 2>(b.data(), {N, D}).permuted({1, 0});
      turned.output = mix::tensor_view<const P, 2>(c.data(), {N, D}).permuted({1, 0});
      turned.initial_state = mix::tensor_view<const P, 3>(h.data(), {B, N, D}).permuted({0, 2, 1});
      const auto end = mix::tensor_view<P, 3>(last.data(), {B, N, D}).permuted({0, 2, 1});
      mix::diagonal_ssm(turned, got.view(), mix::diagonal_ssm_options<P>{.final_state = end});
      expect_same_bits<float, 3>(got, want, "channels contiguous");
      EXPECT_TRUE((reference::same_bits<P, 3>(end, state)));
    }

    // One row of parameters for all channels.
    mix::tensor<P, 2> rows({D, N});
    for (index_t d = 0; d < D; ++d)
      for (index_t n = 0; n < N; ++n) rows(d, n) = p.transition(0, n);
    in.transition = rows;
    mix::diagonal_ssm(in, want.view());
    in.transition = mix::tensor_view<const P, 2>(rows.data(), {D, N}, {0, 1});
    mix::diagonal_ssm(in, got.view());
    expect_same_bits<float, 3>(got, want, "repeated");
  }
}

template <class P>
void expect_diagonal_layouts() {
  for (const index_t T : {1, 3}) {
    for (const index_t N : {1, 5, 19}) {
      for (const bool has_input : {false, true}) expect_diagonal_layouts<P>(T, N, has_input);
    }
  }
}

}  // namespace cases
