// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of softmax attention share: random cases, the oracle's problem of a case, the gates, an executor.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <tokenmix/softmax.hpp>

#include <reference/random.hpp>
#include <reference/softmax_oracle.hpp>

namespace mix = tokenmix;
namespace reference = tokenmix::reference;

namespace cases {

using mix::index_t;

#if defined(TOKENMIX_REDUCED_SWEEP)
inline constexpr bool reduced_sweep = true;
#else
inline constexpr bool reduced_sweep = false;
#endif

/// Keys in a leaf of the tree of partial results: part of the promise that results do not depend on how work is split.
inline constexpr index_t leaf = 256;

/// The shared source of random numbers, with what these tests draw.
class random_numbers : public reference::random_source {
 public:
  using random_source::random_source;

  double gaussian() { return normal(); }
  bool chance(double probability) { return unit() < probability; }
  template <class Values>
  auto one_of(const Values& values) {
    return *(std::begin(values) + integer(0, static_cast<index_t>(std::size(values)) - 1));
  }
};

template <class E>
E element_of(double value) {
  if constexpr (std::is_arithmetic_v<E>) {
    return static_cast<E>(value);
  } else {
    return E(static_cast<float>(value));
  }
}

/// Gaussian, so asymmetric in every finite sample: no two rows or channels are alike.
template <class E, std::size_t R>
void fill_random(const mix::tensor_view<E, R>& view, random_numbers& random, double amplitude = 1) {
  reference::for_each_element(view, [&](E& element) { element = element_of<E>(amplitude * random.gaussian()); });
}

/// A NaN that no computation makes, so that an element nobody wrote is recognised.
template <class E>
E untouched() {
  if constexpr (std::is_same_v<E, float>) {
    return std::bit_cast<float>(0x7fc5a5a5u);
  } else if constexpr (std::is_same_v<E, double>) {
    return std::bit_cast<double>(std::uint64_t{0x7ff8a5a5a5a5a5a5u});
  } else {
    return E::from_bits(0x7fe5);
  }
}

template <class E>
bool same_bits(const E& a, const E& b) {
  return std::memcmp(&a, &b, sizeof(E)) == 0;
}

struct shape {
  index_t batch = 1, heads = 1, kv_heads = 1, queries = 1, keys = 1, width = 8, value_width = 8;

  std::string text() const {
    return "B" + std::to_string(batch) + " H" + std::to_string(heads) + " Hk" + std::to_string(kv_heads) + " T" +
           std::to_string(queries) + " S" + std::to_string(keys) + " D" + std::to_string(width) + " Dv" +
           std::to_string(value_width);
  }
};

/// Random operands of one call, and room for what it writes.
template <class Q = float, class E = Q, class O = Q>
struct operands {
  using compute = mix::accumulator_t<Q>;

  shape size;
  mix::tensor<Q, 4> q;          // (B, H, T, D)
  mix::tensor<E, 4> k;          // (B, Hk, S, D)
  mix::tensor<E, 4> v;          // (B, Hk, S, Dv)
  mix::tensor<O, 4> out;        // (B, H, T, Dv)
  mix::tensor<compute, 3> lse;  // (B, H, T)

  operands(const shape& s, std::uint64_t seed, double amplitude = 1)
      : size(s),
        q({s.batch, s.heads, s.queries, s.width}),
        k({s.batch, s.kv_heads, s.keys, s.width}),
        v({s.batch, s.kv_heads, s.keys, s.value_width}),
        out({s.batch, s.heads, s.queries, s.value_width}, untouched<O>()),
        lse({s.batch, s.heads, s.queries}, untouched<compute>()) {
    random_numbers random(seed);
    fill_random(q.view(), random, amplitude);
    fill_random(k.view(), random);
    fill_random(v.view(), random);
  }

  void forget_results() {
    for (O& x : out) x = untouched<O>();
    for (compute& x : lse) x = untouched<compute>();
  }
};

/// The oracle's problem of a call with default options: all keys, scale 1 / sqrt(D) as the kernel's computing type has it.
template <class Q, class E, class O>
auto problem_of(const operands<Q, E, O>& x) {
  using compute = typename operands<Q, E, O>::compute;
  using real = reference::oracle_real<compute>;
  reference::softmax_problem<real> p;
  p.batch = x.size.batch;
  p.heads = x.size.heads;
  p.kv_heads = x.size.kv_heads;
  p.queries = x.size.queries;
  p.keys = x.size.keys;
  p.width = x.size.width;
  p.value_width = x.size.value_width;
  p.q = reference::exact_values<real, Q, 4>(x.q);
  p.k = reference::exact_values<real, E, 4>(x.k);
  p.v = reference::exact_values<real, E, 4>(x.v);
  p.scale = x.size.width == 0 ? real(1) : 1 / std::sqrt(static_cast<real>(x.size.width));
  return p;
}

/// How far a comparison went beyond 1 = the gate; the largest of a whole test is reported when it ends.
struct gate_record {
  double worst = 0;
  std::string where;

  void see(double ratio, const std::string& what) {
    if (ratio > worst) worst = ratio, where = what;
  }
};

inline constexpr double smallest_gate = 8;
inline double gate_factor(index_t width) { return width < 64 ? 4 : 2 + static_cast<double>(width) / 64; }

/// Compares an output with the oracle, element by element.
///
/// The gate is  (2 + D / 64) u A (1 + S):  A u for the weighted sum and the division, S u for the scores, whose relative error
/// enters the weights as an absolute one; D / 64 because a score is one chain of D additions. With u the unit round-off
/// of the computing type; half a unit of the output's type is added where that is narrower. A score's error reaches the output
/// twice: through its own value, A S being the sum of |d weight / d score| mass |v|, for which the oracle keeps
/// `sensitivity`, and (softmaxes only) through the sum that all weights are divided by, A S being A times the mean mass. The
/// larger one counts: where the heaviest key has the smallest value they differ.
/// It was calibrated at D >= 64 and scores of size 1 and more, where it is 15 u A at least. Outside that: in shorter chains
/// the roundings of scale, scale * q and the products do not average out, so the factor is 4 below D = 64; and it is not let
/// fall below 8 u A, since with S near 0 there remain 2 u from exp's last place, 2 u from dividing, and the random walk of
/// the sums' roundings.
/// `slack` widens the gate where a test says why.
template <class Q, class E, class O, class Real>
void expect_within_gate(const mix::tensor_view<const O, 4>& out, const operands<Q, E, O>& x,
                        const reference::softmax_answer<Real>& expected, const std::string& label, double slack = 1,
                        gate_record* record = nullptr, bool elementwise_weights = false) {
  using compute = typename operands<Q, E, O>::compute;
  const double u = reference::unit_roundoff<compute>();
  const double factor = gate_factor(x.size.width);
  index_t failures = 0;
  for (index_t b = 0; b < x.size.batch; ++b) {
    for (index_t h = 0; h < x.size.heads; ++h) {
      for (index_t t = 0; t < x.size.queries; ++t) {
        const index_t row = (b * x.size.heads + h) * x.size.queries + t;
        const auto r = static_cast<std::size_t>(row);
        for (index_t i = 0; i < x.size.value_width; ++i) {
          const auto e = static_cast<std::size_t>(row * x.size.value_width + i);
          const O got = out(b, h, t, i);
          if (!expected.written[r]) {
            if (!same_bits(got, untouched<O>()) && ++failures <= 3)
              ADD_FAILURE() << label << ": row (" << b << ", " << h << ", " << t
                            << ") belongs to no sequence but was written";
            continue;
          }
          const Real want = expected.out[e];
          ASSERT_TRUE(std::isfinite(want)) << label << ": the oracle itself is not finite";
          const double a = static_cast<double>(expected.magnitude[e]);
          double gate = factor * (a + static_cast<double>(expected.sensitivity[e]));
          if (!elementwise_weights)
            gate = std::max(gate, factor * a * (1 + static_cast<double>(expected.logit_mass[r])));
          gate = std::max(gate, smallest_gate * a) * u * slack;
          // One rounding into the output's type; for float and double it is part of the factor 2 unless the result is subnormal.
          gate += std::is_same_v<O, compute> ? 0.5 * reference::element_ulp<O>(0)
                                             : 0.51 * reference::element_ulp<O>(static_cast<double>(want));
          const Real error = std::abs(reference::exact<Real>(got) - want);
          if (record != nullptr && gate > 0) record->see(static_cast<double>(error) / gate, label);
          if (!(error <= static_cast<Real>(gate)) && ++failures <= 3) {
            ADD_FAILURE() << label << ": out(" << b << ", " << h << ", " << t << ", " << i << ") is "
                          << static_cast<double>(reference::exact<Real>(got)) << ", expected "
                          << static_cast<double>(want) << ", error " << static_cast<double>(error) << ", gate " << gate;
          }
        }
      }
    }
  }
  EXPECT_EQ(failures, 0) << label;
}

/// Log-sum-exp: 4 u max(1, |lse|) for exp, sum and log, max(2, sqrt D) u S for the scores (in a row with one sharp key the
/// lse is that score, whose D roundings add up like a random walk); -inf exactly where no key is seen.
template <class Q, class E, class O, class Real>
void expect_lse_within_gate(const operands<Q, E, O>& x, const reference::softmax_answer<Real>& expected,
                            const std::string& label, double slack = 1) {
  using compute = typename operands<Q, E, O>::compute;
  const double u = reference::unit_roundoff<compute>();
  index_t failures = 0;
  for (index_t row = 0; row < x.size.batch * x.size.heads * x.size.queries && failures < 3; ++row) {
    const auto r = static_cast<std::size_t>(row);
    const compute got = x.lse.data()[row];
    if (!expected.written[r]) {
      if (!same_bits(got, untouched<compute>())) {
        ++failures;
        ADD_FAILURE() << label << ": lse row " << row << " belongs to no sequence but was written";
      }
      continue;
    }
    const Real want = expected.lse[r];
    if (std::isinf(want)) {
      if (!(std::isinf(got) && got < 0)) {
        ++failures;
        ADD_FAILURE() << label << ": lse row " << row << " is " << got << ", expected -inf";
      }
      continue;
    }
    const double gate = (4 * u * std::max(1.0, std::abs(static_cast<double>(want))) +
                         std::max(2.0, std::sqrt(static_cast<double>(x.size.width))) * u *
                             static_cast<double>(expected.logit_mass[r])) *
                        slack;
    const double error = std::abs(static_cast<double>(static_cast<Real>(got) - want));
    if (!(error <= gate)) {
      ++failures;
      ADD_FAILURE() << label << ": lse row " << row << " is " << got << ", expected " << static_cast<double>(want)
                    << ", error " << error << ", gate " << gate;
    }
  }
}

/// Root mean square of the error over that of the result.
template <class O, class Real>
double relative_rms(const mix::tensor<O, 4>& out, const reference::softmax_answer<Real>& expected) {
  Real errors = 0, sizes = 0;
  for (index_t e = 0; e < out.size(); ++e) {
    const auto n = static_cast<std::size_t>(e);
    if (!expected.written[n / static_cast<std::size_t>(out.extent(3))]) continue;
    const Real error = reference::exact<Real>(out.data()[e]) - expected.out[n];
    errors += error * error;
    sizes += expected.out[n] * expected.out[n];
  }
  return sizes == 0 ? 0 : static_cast<double>(std::sqrt(errors / sizes));
}

/// memcmp of two tensors of one shape, with the first difference in the message.
template <class E, std::size_t R>
void expect_same_bits(const mix::tensor_view<const E, R>& got, const mix::tensor_view<const E, R>& expected,
                      const std::string& label) {
  ASSERT_EQ(got.shape(), expected.shape()) << label;
  mix::extents<R> at{};
  index_t differences = 0;
  for (index_t n = 0; n < got.size(); ++n) {
    index_t from_got = 0, from_expected = 0;
    for (std::size_t axis = 0; axis < R; ++axis) {
      from_got += at[axis] * got.stride(axis);
      from_expected += at[axis] * expected.stride(axis);
    }
    const E a = got.data()[from_got], b = expected.data()[from_expected];
    if (!same_bits(a, b) && ++differences == 1) {
      std::string where;
      for (index_t i : at) where += " " + std::to_string(i);
      ADD_FAILURE() << label << ": differs first at" << where << ": " << reference::exact<double>(a) << " and "
                    << reference::exact<double>(b);
    }
    for (std::size_t axis = R; axis-- > 0;) {
      if (++at[axis] < got.extent(axis)) break;
      at[axis] = 0;
    }
  }
  EXPECT_EQ(differences, 0) << label << ": elements with other bits, of " << got.size();
}

/// n threads that take tasks in the order they come, each after a random short delay: schedules that no machine repeats.
class delayed_threads {
 public:
  explicit delayed_threads(index_t n, std::uint64_t seed = 1) : n_(n), seed_(seed) {}

  index_t concurrency() const { return n_; }

  template <class Task>
  void for_each(index_t count, Task&& task) {
    std::atomic<index_t> next{0};
    const auto work = [&](index_t worker) {
      random_numbers random(seed_ * 1000 + static_cast<std::uint64_t>(worker));
      for (;;) {
        if (random.chance(0.25)) std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 40)));
        const index_t i = next.fetch_add(1);
        if (i >= count) return;
        task(i, worker);
      }
    };
    std::vector<std::thread> threads;
    for (index_t worker = 1; worker < n_; ++worker) threads.emplace_back(work, worker);
    work(0);
    for (std::thread& t : threads) t.join();
    ++seed_;
  }

 private:
  index_t n_;
  std::uint64_t seed_;
};

/// Runs tasks from the last to the first, with changing workers: order and worker must not matter.
class backwards {
 public:
  index_t concurrency() const { return 3; }
  template <class Task>
  void for_each(index_t count, Task&& task) {
    for (index_t i = count; i-- > 0;) task(i, (i * 2 + 1) % 3);
  }
};

}  // namespace cases
