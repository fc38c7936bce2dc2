// SPDX-License-Identifier: Apache-2.0
/// @file Random operands of a selective scan, their oracle's answer, and calls that cut them up in every way.
#pragma once

#include <reference/cases.hpp>
#include <reference/selective_scan_oracle.hpp>
#include <reference/strided.hpp>

#include <tokenmix/mixers/state_space/selective_scan.hpp>

#include <cmath>
#include <complex>
#include <vector>

namespace cases {

struct selective_shape {
  index_t batch, tokens, channels, groups, states;
};

template <class E, class P>
struct selective_operands {
  using T = mix::accumulator_t<E>;
  using R = mix::detail::selective_row_element<E, P>;
  selective_shape shape;
  mix::tensor<E, 3> x, delta, gate, out;
  mix::tensor<P, 2> A, constant_B, constant_C;
  mix::tensor<R, 4> B, C;
  mix::tensor<T, 1> skip, bias;
  mix::tensor<P, 3> initial, final;
  bool full = true;       // bias, softplus, skip and gate
  bool constant = false;  // B and C

  selective_operands(const selective_shape& s, std::uint64_t seed, double rates = 1, bool all = true)
      : shape(s),
        x({s.batch, s.tokens, s.channels}),
        delta(x.shape()),
        gate(x.shape()),
        out(x.shape(), untouched<E>()),
        A({s.channels, s.states}),
        constant_B(A.shape()),
        constant_C(A.shape()),
        B({s.batch, s.tokens, s.groups, s.states}),
        C(B.shape()),
        skip({s.channels}),
        bias({s.channels}),
        initial({s.batch, s.channels, s.states}),
        final(initial.shape()),
        full(all) {
    random_numbers random(seed);
    const auto fill = [&](auto& to, double amplitude) {
      for (auto& e : to) e = draw<std::remove_reference_t<decltype(e)>>(random, amplitude);
    };
    fill(x, 1), fill(delta, 1), fill(gate, 2), fill(constant_B, 1), fill(constant_C, 1), fill(B, 1), fill(C, 1);
    fill(skip, 1), fill(bias, 1), fill(initial, 1);
    if (!full)
      for (E& e : delta) e = element_of<E>(std::abs(static_cast<double>(static_cast<T>(e))) * 0.1);
    for (P& e : A) {
      const double rate = -rates * std::exp(2 * random.gaussian());
      if constexpr (mix::detail::is_complex<P>)
        e = P(static_cast<T>(rate), static_cast<T>(3 * random.gaussian()));
      else
        e = static_cast<T>(rate);
    }
  }

  template <class Element>
  static Element draw(random_numbers& random, double amplitude) {
    if constexpr (mix::detail::is_complex<Element>) {
      const double re = amplitude * random.gaussian();
      return Element(static_cast<T>(re), static_cast<T>(amplitude * random.gaussian()));
    } else {
      return element_of<Element>(amplitude * random.gaussian());
    }
  }

  mix::selective_scan_inputs<E, P> inputs() const {
    mix::selective_scan_inputs<E, P> in{.x = x, .delta = delta, .A = A, .initial_state = initial};
    if (constant)
      in.constant_B = constant_B, in.constant_C = constant_C;
    else
      in.B = B, in.C = C;
    if (full) in.skip = skip, in.delta_bias = bias, in.gate = gate;
    return in;
  }
  mix::delta_form delta_form() const { return full ? mix::delta_form::softplus : mix::delta_form::given; }

  mix::tensor<E, 3> result(mix::order order = mix::order::forward) {
    mix::selective_scan(inputs(), out.view(),
                        mix::selective_scan_options<mix::whole_sequences, P>{
                            .delta_form = delta_form(), .order = order, .final_state = final.view()});
    return out;
  }

  reference::selective_scan_answer oracle(index_t b, bool reversed) const {
    const auto number = [](const auto& e) {
      if constexpr (mix::detail::is_complex<std::remove_cvref_t<decltype(e)>>)
        return std::complex<double>(static_cast<double>(e.real()), static_cast<double>(e.imag()));
      else
        return static_cast<double>(static_cast<T>(e));
    };
    reference::selective_scan_problem p;
    p.tokens = shape.tokens, p.channels = shape.channels, p.groups = shape.groups, p.states = shape.states;
    const auto rows = [&](const auto& from, auto& to, index_t width) {
      for (index_t t = 0; t < shape.tokens; ++t) {
        const auto* row = from.row(b, reversed ? shape.tokens - 1 - t : t);
        for (index_t i = 0; i < width; ++i) to.push_back(number(row[i]));
      }
    };
    const auto all = [&](const auto& from, auto& to) {
      for (const auto& e : from) to.push_back(number(e));
    };
    rows(x, p.x, shape.channels), rows(delta, p.delta, shape.channels), all(A, p.A);
    p.constant_B = p.constant_C = constant;
    if (constant) {
      all(constant_B, p.B), all(constant_C, p.C);
    } else {
      rows(B, p.B, shape.groups * shape.states), rows(C, p.C, shape.groups * shape.states);
    }
    if (full) rows(gate, p.gate, shape.channels), all(skip, p.skip), all(bias, p.bias);
    p.softplus = full, p.complex = mix::detail::is_complex<P>;
    for (index_t i = 0; i < shape.channels * shape.states; ++i)
      p.initial.push_back(number(initial.data()[b * shape.channels * shape.states + i]));
    return reference::selective_scan(p);
  }

  /// Budget: 8 u A + 2 u A1 (twice that for complex numbers), and half a unit of what is stored.
  void expect_oracle(mix::order order = mix::order::forward, gate_record* record = nullptr) {
    result(order);
    const bool reversed = order == mix::order::reverse;
    const double u = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24,
                 stored = sizeof(E) == 2 ? (std::is_same_v<E, mix::bfloat16> ? 0x1p-8 : 0x1p-11) : 0;
    // A decay is off by up to 2.8 u (see exp2_nonpositive) and multiplies a state with one rounding, at every step.
    const double of_sums = mix::detail::is_complex<P> ? 16 : 8, of_decays = of_sums / 2;
    for (index_t b = 0; b < shape.batch; ++b) {
      const auto want = oracle(b, reversed);
      for (index_t i = 0; i < shape.tokens * shape.channels; ++i) {
        const index_t t = i / shape.channels, at = reversed ? shape.tokens - 1 - t : t;
        const auto n = static_cast<std::size_t>(i);
        const double got = static_cast<double>(static_cast<T>(out(b, at, i % shape.channels)));
        const double budget =
            u * (of_sums * want.magnitude[n] + of_decays * want.distance[n]) + stored * std::abs(want.out[n]) + 1e-35;
        const double error = std::abs(got - want.out[n]);
        if (record != nullptr) record->see(error / budget, "out");
        ASSERT_LE(error, budget) << "out " << b << ' ' << at << ' ' << i % shape.channels << " of " << shape.tokens
                                 << 'x' << shape.channels << 'x' << shape.states << ": " << got << ", not "
                                 << want.out[n];
      }
      for (index_t i = 0; i < shape.channels * shape.states; ++i) {
        const auto n = static_cast<std::size_t>(i);
        const P e = final.data()[b * shape.channels * shape.states + i];
        std::complex<double> got;
        if constexpr (mix::detail::is_complex<P>) {
          got = std::complex<double>(e);
        } else {
          got = static_cast<double>(e);
        }
        const double error = std::abs(got - want.state[n]);
        const double budget = u * (of_sums * want.state_magnitude[n] + of_decays * want.state_distance[n]) + 1e-35;
        if (record != nullptr) record->see(error / budget, "state");
        ASSERT_LE(error, budget) << "state " << i;
      }
    }
  }
};

}  // namespace cases
