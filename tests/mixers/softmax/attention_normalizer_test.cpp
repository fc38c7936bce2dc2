// SPDX-License-Identifier: Apache-2.0
// Other normalisers on the same tiles: off by one, sigmoid, relu squared, Laplace, none; under masks and with edited weights.
//
// Budget: (2 + D / 64) u (A + sum of |d weight / d score| mass |v|) for weights of one score each, with 4 in place of
// 2 + D / 64 below D = 64; not less than 8 u A. erf is good to a few u of 1, not of its own size, so laplace has 2 u sum |v|
// more. Rows that see nothing are zeros.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

std::vector<cases::shape> shapes() {
  if (cases::reduced_sweep) return {{1, 4, 2, 1, 40, 16, 8}, {1, 4, 2, 33, 20, 16, 8}};
  return {{2, 4, 2, 1, 300, 16, 8},
          {1, 4, 4, 3, 65, 64, 16},
          {2, 4, 2, 40, 40, 16, 8},
          {1, 4, 1, 97, 600, 80, 24},
          {2, 4, 2, 70, 33, 16, 9}};
}

template <class Normalizer>
void check(const Normalizer& normalizer, reference::weighting weights, double parameter, double deviation, double floor,
           const std::string& name) {
  for (const cases::shape& size : shapes()) {
    for (double amplitude : {0.3, 3.0}) {
      cases::operands<> x(size, 5, amplitude);
      mix::softmax_attention(x.q, x.k, x.v, x.out,
                             mix::softmax_options{.mask = mix::causal{}, .normalizer = normalizer});
      auto problem = problem_of(x);
      problem.mask = [](const mix::index& w) { return w.key <= w.query; };
      problem.weights = weights;
      problem.parameter = parameter;
      problem.deviation = deviation;
      auto expected = reference::softmax_attention(problem);
      if (floor > 0) {  // near zero the error of a weight is one of 1: `floor` of every visible value
        problem.edit = [](double, const mix::index&) { return 1.0; };
        const auto ones = reference::softmax_attention(problem);
        for (std::size_t i = 0; i < ones.magnitude.size(); ++i) expected.magnitude[i] += floor * ones.magnitude[i];
      }
      const std::string label = name + " " + size.text() + " amplitude " + std::to_string(amplitude);
      cases::gate_record record;
      expect_within_gate<float, float, float>(x.out, x, expected, label, 1, &record, true);
      for (index_t t = 0; t + size.keys < size.queries; ++t)
        for (index_t i = 0; i < size.value_width; ++i) EXPECT_TRUE(cases::same_bits(x.out(0, 0, t, i), 0.0f)) << label;
    }
  }
}

/// Prefill, its end alone (keys in the lanes, split over threads), and neighbours give the same bits here too.
template <class Normalizer>
void check_bits(const Normalizer& normalizer, const std::string& name) {
  const cases::operands<> x({1, 4, 2, 60, 900, 16, 8}, 6);
  const auto attend = [&](index_t first, auto&& on) {
    mix::tensor<float, 4> out({1, 4, 60 - first, 8});
    mix::softmax_attention(x.q.slice(2, first, 60 - first), x.k, x.v, out,
                           mix::softmax_options{.mask = mix::causal{}, .normalizer = normalizer}, on);
    return out;
  };
  const auto whole = attend(0, mix::calling_thread{});
  for (index_t first : {7, 57, 59}) {
    cases::expect_same_bits<float, 4>(attend(first, mix::calling_thread{}), whole.slice(2, first, 60 - first), name);
    cases::expect_same_bits<float, 4>(attend(first, cases::delayed_threads{4}), whole.slice(2, first, 60 - first),
                                      name + " on threads");
  }
}

TEST(attention_normalizer, softmax_off_by_one) {
  for (const cases::shape& size : shapes()) {
    cases::operands<> x(size, 5, 2);
    mix::softmax_attention(
        x.q, x.k, x.v, x.out,
        mix::softmax_options{.mask = mix::causal{}, .normalizer = mix::softmax_off_by_one{}, .lse = x.lse.view()});
    auto problem = problem_of(x);
    problem.mask = [](const mix::index& w) { return w.key <= w.query; };
    problem.weights = reference::weighting::softmax_off_by_one;
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "off by one " + size.text());
    expect_lse_within_gate(x, expected, "off by one " + size.text());
  }
  check_bits(mix::softmax_off_by_one{}, "off by one");
}

TEST(attention_normalizer, sigmoid) {
  check(mix::sigmoid_weights{.bias = -3.5}, reference::weighting::sigmoid, -3.5, 1, 0, "sigmoid");
  check_bits(mix::sigmoid_weights{.bias = -3.5}, "sigmoid");
}

TEST(attention_normalizer, relu_squared) {
  check(mix::relu_squared_weights{.factor = 0.25}, reference::weighting::relu_squared, 0.25, 1, 0, "relu squared");
  check_bits(mix::relu_squared_weights{.factor = 0.25}, "relu squared");
}

TEST(attention_normalizer, laplace) {
  check(mix::laplace_weights{}, reference::weighting::laplace, std::sqrt(0.5), std::sqrt(0.25 / std::acos(-1.0)), 0.25,
        "laplace");
}

TEST(attention_normalizer, none) {
  check(mix::score_weights{}, reference::weighting::score, 0, 1, 0, "scores as they are");
}

}  // namespace
