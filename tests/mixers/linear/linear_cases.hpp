// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of the linear family share: random operands, one form for all mixers' calls, the gate.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <tokenmix/linear.hpp>

#include <reference/cases.hpp>
#include <reference/linear_oracle.hpp>

namespace cases {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

/// Any executor behind one type, so that every mixer is compiled once.
class any_executor {
 public:
  any_executor() : any_executor(mix::calling_thread{}) {}
  template <class Executor>
    requires(!std::is_same_v<std::remove_cvref_t<Executor>, any_executor>)
  explicit any_executor(Executor on)
      : concurrency_(static_cast<index_t>(on.concurrency())),
        for_each_([on](index_t n, const std::function<void(index_t, index_t)>& f) mutable { on.for_each(n, f); }) {}
  index_t concurrency() const { return concurrency_; }
  template <class Task>
  void for_each(index_t n, Task&& task) {
    for_each_(n, [&](index_t i, index_t worker) { task(i, worker); });
  }

 private:
  index_t concurrency_;
  std::function<void(index_t, const std::function<void(index_t, index_t)>&)> for_each_;
};

struct linear_shape {
  index_t batch = 1, heads = 1, key_heads = 1, value_heads = 1, tokens = 1, width = 8, value_width = 8;

  index_t out_heads() const { return std::max(heads, value_heads); }
  std::string text() const {
    return "B" + std::to_string(batch) + " H" + std::to_string(heads) + " Hk" + std::to_string(key_heads) + " Hv" +
           std::to_string(value_heads) + " T" + std::to_string(tokens) + " D" + std::to_string(width) + " Dv" +
           std::to_string(value_width);
  }
};

/// One call of any mixer. What a mixer does not have is left aside.
template <class E>
struct linear_call {
  using T = mix::accumulator_t<E>;
  mix::tensor_view<const E, 4> q, k, v;
  mix::tensor_view<const E, 4> a, b;       // (B, Hk, T, D) or (B, Hk, T, 0)
  mix::tensor_view<const T, 4> log_decay;  // (B, Hg, T, channels)
  mix::tensor_view<const T, 4> beta;       // (B, Hb, T, channels)
  mix::tensor_view<E, 4> out;
  mix::tensor_view<const T, 4> initial_state{};
  mix::tensor_view<T, 4> final_state{};
  mix::tensor_view<const T, 3> initial_sum{};
  mix::tensor_view<T, 3> final_sum{};
  mix::order order = mix::order::forward;
  std::span<const std::int32_t> offsets{};  // packed, or whole if empty
  any_executor on{};

  /// The same for tokens [first, first + count) alone.
  linear_call part(index_t first, index_t count) const {
    linear_call c = *this;
    for (auto* x : {&c.q, &c.k, &c.v, &c.a, &c.b}) *x = x->slice(2, first, count);
    for (auto* x : {&c.log_decay, &c.beta}) *x = x->slice(2, first, count);
    c.out = out.slice(2, first, count);
    return c;
  }
  /// f(sequences).
  template <class F>
  void with_sequences(F&& f) const {
    if (offsets.data() == nullptr) {
      f(mix::whole_sequences{});
    } else {
      f(mix::packed<std::int32_t>{.offsets = offsets});
    }
  }
};

/// A view with one channel as one without that axis.
template <class E>
mix::tensor_view<const E, 3> without_channels(const mix::tensor_view<const E, 4>& x) {
  return {x.data(), {x.extent(0), x.extent(1), x.extent(2)}, {x.stride(0), x.stride(1), x.stride(2)}};
}

// A mixer under test is a struct with
//   static constexpr bool solves, sums;      a delta rule; a normaliser
//   index_t decay_channels(shape), beta_channels(shape)     0: it has none; 1, D or Dv
// and may have
//   static constexpr index_t steps            writes of one token: k has steps D channels, v steps Dv, beta steps numbers
//   static constexpr bool low_rank            it takes a and b
//   static constexpr index_t outlives_reset   tokens that still read what a log decay of -infinity forgets; -1: all may
//   T write_of(T beta)                        how much is written, where that is not beta
//   double bonus(d)                           weight of a token for itself, which reads the state before it
// and has
//   double scale(shape), feature(x); std::function<Real(Real, index_t)> divisor
//   void operator()(const linear_call<E>&)

template <class Mixer>
constexpr index_t steps_of = [] {
  if constexpr (requires { Mixer::steps; }) return Mixer::steps;
  return index_t{1};
}();
template <class Mixer>
constexpr bool is_low_rank = requires { Mixer::low_rank; };
template <class Mixer>
constexpr bool has_bonus = requires(const Mixer& m) { m.bonus(index_t{}); };
template <class Mixer>
constexpr index_t outlives_reset = [] {
  if constexpr (requires { Mixer::outlives_reset; }) return Mixer::outlives_reset;
  return index_t{0};
}();

/// Random operands of a call of a mixer, and room for what it writes.
template <class E>
struct linear_operands {
  using T = mix::accumulator_t<E>;
  linear_shape size;
  mix::tensor<E, 4> q, k, v, a, b, out;
  mix::tensor<T, 4> log_decay, beta, initial_state, final_state;
  mix::tensor<T, 3> initial_sum, final_sum;

  template <class Mixer>
  linear_operands(const Mixer& mixer, const linear_shape& s, std::uint64_t seed, double typical_log_decay = -0.3)
      : size(s),
        q({s.batch, s.heads, s.tokens, s.width}),
        k({s.batch, s.key_heads, s.tokens, s.width * steps_of<Mixer>}),
        v({s.batch, s.value_heads, s.tokens, s.value_width * steps_of<Mixer>}),
        a({s.batch, s.key_heads, s.tokens, is_low_rank<Mixer> ? s.width : 0}),
        b(a.shape()),
        out({s.batch, s.out_heads(), s.tokens, s.value_width}, untouched<E>()),
        log_decay({s.batch, s.value_heads, s.tokens, mixer.decay_channels(s)}),
        beta({s.batch, s.value_heads, s.tokens, mixer.beta_channels(s)}),
        initial_state({s.batch, s.value_heads, s.width, s.value_width}),
        final_state({s.batch, s.value_heads, s.width, s.value_width}, untouched<T>()),
        initial_sum({s.batch, s.key_heads, s.width}),
        final_sum({s.batch, s.key_heads, s.width}, untouched<T>()) {
    random_numbers random(seed);
    fill_random(q.view(), random);
    fill_random(k.view(), random,
                Mixer::solves ? 1 / std::sqrt(static_cast<double>(std::max<index_t>(s.width, 1))) : 1);
    fill_random(v.view(), random);
    fill_random(initial_state.view(), random);
    for (T& x : log_decay) x = static_cast<T>(2 * typical_log_decay * random.unit());
    for (T& x : beta) x = static_cast<T>(random.uniform(0.3, 1));
    for (T& x : initial_sum) x = static_cast<T>(random.uniform(0.1, 3));
    if (Mixer::solves) normalize_keys();
    if (is_low_rank<Mixer>) draw_transition(random);
  }

  /// a b' that take something away: b of norm 1, a its opposite in part, and something else; |a| < 1.
  void draw_transition(random_numbers& random) {
    fill_random(b.view(), random);
    for (index_t row = 0; row * size.width < b.size() && size.width > 0; ++row) {
      E* x = b.data() + row * size.width;
      double square = 0;
      for (index_t d = 0; d < size.width; ++d) square += std::pow(reference::exact<double>(x[d]), 2);
      const double rate = random.uniform(0.3, 0.9);
      for (index_t d = 0; d < size.width; ++d) {
        x[d] = element_of<E>(reference::exact<double>(x[d]) * 0.999 / std::sqrt(square));
        const double other = 0.05 * random.gaussian() / std::sqrt(static_cast<double>(size.width));
        a.data()[row * size.width + d] = element_of<E>(other - rate * reference::exact<double>(x[d]));
      }
    }
  }

  /// Keys of norm at most 1.
  void normalize_keys() {
    for (index_t row = 0; row * size.width < k.size() && size.width > 0; ++row) {
      double square = 0;
      for (index_t d = 0; d < size.width; ++d)
        square += std::pow(reference::exact<double>(k.data()[row * size.width + d]), 2);
      const double factor = 0.999 / std::sqrt(square);
      for (index_t d = 0; d < size.width; ++d) {
        E& x = k.data()[row * size.width + d];
        x = element_of<E>(reference::exact<double>(x) * factor);
      }
    }
  }

  linear_call<E> call() {
    return {.q = q,
            .k = k,
            .v = v,
            .a = a,
            .b = b,
            .log_decay = log_decay,
            .beta = beta,
            .out = out,
            .initial_state = initial_state,
            .final_state = final_state,
            .initial_sum = initial_sum,
            .final_sum = final_sum};
  }
  void forget_results() {
    for (E& x : out) x = untouched<E>();
    for (T& x : final_state) x = untouched<T>();
    for (T& x : final_sum) x = untouched<T>();
  }
};

/// The oracle's answer to a call.
template <class E, class Mixer>
auto expected_of(const Mixer& mixer, const linear_operands<E>& x, mix::order order = mix::order::forward,
                 bool from_initial = true) {
  using T = mix::accumulator_t<E>;
  using real = reference::oracle_real<T>;
  const linear_shape& s = x.size;
  reference::linear_problem<real> p;
  p.sequences = s.batch;
  p.heads = s.heads;
  p.key_heads = s.key_heads;
  p.value_heads = s.value_heads;
  p.tokens = s.tokens;
  p.width = s.width;
  p.value_width = s.value_width;
  p.q = reference::exact_values<real, E, 4>(x.q);
  p.k = reference::exact_values<real, E, 4>(x.k);
  p.v = reference::exact_values<real, E, 4>(x.v);
  p.a = reference::exact_values<real, E, 4>(x.a);
  p.b = reference::exact_values<real, E, 4>(x.b);
  p.steps = steps_of<Mixer>;
  if constexpr (has_bonus<Mixer>)
    p.bonus = [&mixer](index_t, index_t d) { return static_cast<real>(static_cast<T>(mixer.bonus(d))); };
  const real scale = static_cast<real>(static_cast<T>(mixer.scale(s)));
  for (real& e : p.q) e = static_cast<real>(mixer.feature(e)) * scale;
  for (real& e : p.k) e = static_cast<real>(mixer.feature(e));
  if (from_initial) {
    p.initial = reference::exact_values<real, T, 4>(x.initial_state);
    if (Mixer::sums) p.initial_sum = reference::exact_values<real, T, 3>(x.initial_sum);
  }
  p.reversed = order == mix::order::reverse;
  p.bidirectional = order == mix::order::bidirectional;
  if (const index_t channels = mixer.decay_channels(s); channels > 0) {
    const bool of_values = mixer.decays_values;
    p.log_decay = [&x, channels, of_values](index_t n, index_t h, index_t t, index_t d, index_t c) {
      return static_cast<real>(x.log_decay(n, h, t, channels == 1 ? 0 : of_values ? c : d));
    };
  }
  if (const index_t channels = mixer.beta_channels(s); channels > 0) {
    p.beta = [&x, channels](index_t n, index_t h, index_t t, index_t step, index_t c) {
      return static_cast<real>(x.beta(n, h, t, steps_of<Mixer> > 1 ? step : channels == 1 ? 0 : c));
    };
  }
  if constexpr (requires { mixer.write_of(T(1)); }) {
    p.write_beta = [&x, &mixer, channels = mixer.beta_channels(s)](index_t n, index_t h, index_t t, index_t,
                                                                   index_t c) {
      return static_cast<real>(mixer.write_of(x.beta(n, h, t, channels == 1 ? 0 : c)));
    };
  }
  if (Mixer::sums)
    p.divisor = [&mixer](real sum, index_t seen) {
      return static_cast<real>(mixer.divisor(static_cast<double>(sum), seen));
    };
  return reference::linear_recurrence(p);
}

/// The constant of the delta rules' gate, calibrated once (see identities.hpp).
inline constexpr double delta_factor = 4;

/// Compares outputs and states with the oracle.
///
/// The gate is 8 u A + 2 u A1: A for the products and sums of a token's path, A1 (every part times the tokens that it was
/// carried through) for one rounded decay or sum per token. Delta rules: delta_factor u |q| M sqrt(D / beta), M the largest norm of
/// the state's column, since what one token writes wrong the next ones correct: errors add up over about 1 / beta tokens.
/// Rules of low rank: twice that. What a token adds and what it takes away enter a sum apart, where a delta rule subtracts them
/// first; measured: 0.67 of delta_factor with fma, 1.12 without (D = 1).
/// Half a unit of a 16-bit output's last place is added.
template <class E, class Answer, class Mixer>
void expect_within_gate(const Mixer&, const linear_operands<E>& x, const Answer& expected, const std::string& label,
                        double slack = 1, gate_record* record = nullptr, bool states = true) {
  using T = mix::accumulator_t<E>;
  using real = reference::oracle_real<T>;
  const double u = reference::unit_roundoff<T>();
  double least_beta = 1;
  for (index_t i = 0; i < x.beta.size(); ++i)
    least_beta = std::min(least_beta, std::max(0.05, static_cast<double>(x.beta.data()[i])));
  if (is_low_rank<Mixer>) least_beta = 0.3;  // see draw_transition
  const double delta =
      delta_factor * (is_low_rank<Mixer> ? 2 : 1) * std::sqrt(static_cast<double>(x.size.width) / least_beta);
  index_t failures = 0;
  const auto check = [&](auto got, real want, double gate, index_t place, const char* what) {
    const double error = std::abs(static_cast<double>(reference::exact<real>(got) - want));
    if (record != nullptr && gate > 0) record->see(error / gate, label);
    if (!(error <= gate) && ++failures <= 3) {
      ADD_FAILURE() << label << ": " << what << '[' << place << "] is " << reference::exact<double>(got)
                    << ", expected " << static_cast<double>(want) << ", error " << error << ", gate " << gate;
    }
  };
  for (index_t e = 0; e < x.out.size(); ++e) {
    const auto i = static_cast<std::size_t>(e);
    const real want = expected.out[i];
    double gate = u * (8 * static_cast<double>(expected.magnitude[i]) + 2 * static_cast<double>(expected.distance[i]));
    if (Mixer::solves) {
      gate = u * delta * static_cast<double>(expected.query_norm[i / static_cast<std::size_t>(x.size.value_width)]) *
             static_cast<double>(expected.column_norm[i]);
    }
    gate = gate * slack + (std::is_same_v<E, T> ? 0.5 : 0.51) *
                              reference::element_ulp<E>(std::is_same_v<E, T> ? 0 : static_cast<double>(want));
    check(x.out.data()[e], want, gate, e, "out");
  }
  for (index_t e = 0; e < x.final_state.size() && states; ++e) {
    const auto i = static_cast<std::size_t>(e);
    double gate = u * (8 * static_cast<double>(expected.state_magnitude[i]) +
                       2 * static_cast<double>(expected.state_distance[i]));
    if (Mixer::solves) gate = u * delta * static_cast<double>(expected.state_norm[i]);
    check(x.final_state.data()[e], expected.state[i], gate * slack + 0.5 * reference::element_ulp<T>(0), e,
          "final_state");
  }
  EXPECT_EQ(failures, 0) << label;
}

}  // namespace cases
