// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of softmax attention share: random cases, the oracle's problem of a case, the gates, an executor.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <tokenmix/softmax.hpp>

#include <reference/cases.hpp>
#include <reference/random.hpp>
#include <reference/softmax_oracle.hpp>

namespace mix = tokenmix;
namespace reference = tokenmix::reference;

namespace cases {

using mix::index_t;

/// Keys in a leaf of the tree of partial results: part of the promise that results do not depend on how work is split.
inline constexpr index_t leaf = 256;

using sequence_list = std::vector<reference::softmax_sequence>;

/// What packed offsets mean, for the oracle.
template <class I>
sequence_list packed_sequences_of(const std::vector<I>& offsets, const std::vector<I>& key_offsets) {
  sequence_list all;
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    all.push_back({static_cast<index_t>(i), 0, offsets[i], offsets[i + 1] - offsets[i], key_offsets[i],
                   key_offsets[i + 1] - key_offsets[i]});
  }
  return all;
}

/// What lengths mean, one of either for every batch element.
inline sequence_list padded_sequences_of(const std::vector<index_t>& queries, const std::vector<index_t>& keys) {
  sequence_list all;
  for (std::size_t b = 0; b < keys.size(); ++b) {
    const auto n = static_cast<index_t>(b);
    all.push_back({n, n, 0, queries[b], 0, keys[b]});
  }
  return all;
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

}  // namespace cases
