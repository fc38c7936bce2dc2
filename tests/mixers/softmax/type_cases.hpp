// SPDX-License-Identifier: Apache-2.0
/// @file The sweep that the tests of element types share.
#pragma once

#include <mixers/softmax/softmax_cases.hpp>

namespace cases {

using mix::bfloat16;
using mix::float16;

template <class O>
constexpr double rms_gate() {
  if constexpr (std::is_same_v<O, bfloat16>) return 2e-3;
  if constexpr (std::is_same_v<O, float16>) return 2.5e-4;
  return std::is_same_v<O, double> ? 4e-15 : 2e-6;
}

template <class Q, class E, class O>
void check_types(const shape& size, std::uint64_t seed, double amplitude, gate_record& record) {
  operands<Q, E, O> x(size, seed, amplitude);
  const std::string label = size.text() + " seed " + std::to_string(seed);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
  const auto expected = reference::softmax_attention(problem_of(x));
  expect_within_gate<Q, E, O>(x.out, x, expected, label, 1, &record);
  expect_lse_within_gate(x, expected, label);
  if (amplitude <= 1 && x.out.size() >= 512) {
    EXPECT_LE(relative_rms(x.out, expected), rms_gate<O>()) << label;
  }
}

template <class Q, class E, class O>
void sweep_types() {
  gate_record record;
  std::uint64_t seed = 1;
  const std::vector<index_t> borders =
      reduced_sweep ? std::vector<index_t>{1, 17, 257} : std::vector<index_t>{1, 2, 7, 8, 9, 16, 33, 64, 97, 257, 600};
  for (index_t t : {1, 2, 9, 50})
    for (index_t s : borders) check_types<Q, E, O>({1, 4, 2, t, s, 64, 24}, ++seed, 1, record);
  for (index_t d : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 80, 128, 192, 512})
    for (index_t t : {1, 19}) {
      check_types<Q, E, O>({2, 3, 1, t, 41, d, 9}, ++seed, 1, record);
      check_types<Q, E, O>({1, 3, 3, t, 41, 12, d}, ++seed, 1, record);
    }
  for (double amplitude : {0.01, 4.0, 16.0}) check_types<Q, E, O>({1, 2, 1, 20, 90, 64, 16}, ++seed, amplitude, record);
  std::printf("worst error: %.3f of its gate, at %s\n", record.worst, record.where.c_str());
}

}  // namespace cases
