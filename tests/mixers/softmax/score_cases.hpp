// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of score modifiers in the kernel share.
#pragma once

#include <functional>

#include <tokenmix/primitives/score/composition.hpp>

#include <mixers/softmax/softmax_cases.hpp>

namespace cases {

using plain_score_function = std::function<double(double, const mix::index&)>;

/// Few and many queries (keys or queries in the lanes), several leaves, T <, =, > S.
inline std::vector<shape> score_shapes() {
  if (reduced_sweep) return {{2, 4, 2, 1, 40, 16, 8}, {1, 4, 2, 33, 70, 16, 8}};
  return {{2, 4, 2, 1, 300, 16, 8},  {1, 4, 1, 3, 65, 16, 8},  {2, 4, 4, 40, 40, 16, 8},
          {1, 4, 2, 97, 300, 16, 8}, {1, 4, 2, 70, 33, 16, 8}, {1, 4, 2, 8, 600, 33, 9}};
}

/// The kernel under a causal mask and `modifier` against the oracle under the formula written again; then a prefill against its
/// last three queries alone, which the kernel computes another way: the same bits.
///
/// The gate's S has what the modifier adds to a score beside scale |q k|: a bias of 100 is rounded to 100 u.
template <class Modifier>
void check_score(const shape& size, const Modifier& modifier, const plain_score_function& formula,
                 const std::string& name, double amplitude = 1) {
  operands<> x(size, 11, amplitude);
  const auto options = mix::softmax_options{.mask = mix::causal{}, .score = modifier, .lse = x.lse.view()};
  mix::softmax_attention(x.q, x.k, x.v, x.out, options);
  auto problem = problem_of(x);
  problem.mask = [](const mix::index& w) { return w.key <= w.query; };
  problem.score = formula;
  const auto expected = reference::softmax_attention(problem);
  const std::string label = name + " " + size.text();
  expect_within_gate<float, float, float>(x.out, x, expected, label);
  expect_lse_within_gate(x, expected, label);
}

/// The last queries of a prefill alone: fewer queries than lanes, so that keys are in the lanes. Not for modifiers whose tables
/// follow the query's row.
template <class Modifier>
void check_score_split(const shape& size, const Modifier& modifier, const std::string& name) {
  operands<> x(size, 12);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mix::causal{}, .score = modifier});
  for (index_t first : {size.queries - 1, size.queries - 3, size.queries / 2}) {
    if (first < 0) continue;
    mix::tensor<float, 4> part({size.batch, size.heads, size.queries - first, size.value_width});
    mix::softmax_attention(x.q.slice(2, first, size.queries - first), x.k, x.v, part,
                           mix::softmax_options{.mask = mix::causal{}, .score = modifier});
    expect_same_bits<float, 4>(part, x.out.slice(2, first, size.queries - first),
                               name + " " + size.text() + " from query " + std::to_string(first));
  }
}

}  // namespace cases
