// SPDX-License-Identifier: Apache-2.0
// Weights edited between the softmax and the values, by plain and generic functors, against the oracle.
//
// Budget: the float gate times 2: the weight is normalised before it is edited, one division and one product more.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

std::vector<cases::shape> shapes() {
  if (cases::reduced_sweep) return {{1, 4, 2, 1, 40, 16, 8}, {1, 4, 2, 33, 20, 16, 8}};
  return {{2, 4, 2, 1, 300, 16, 8},
          {1, 4, 4, 3, 65, 16, 8},
          {2, 4, 2, 40, 40, 64, 8},
          {1, 4, 1, 97, 600, 16, 24},
          {2, 4, 2, 70, 33, 16, 9}};
}

template <class Edit>
void check(const Edit& edit, const std::function<double(double, const mix::index&)>& formula, const std::string& name) {
  for (const cases::shape& size : shapes()) {
    cases::operands<> x(size, 7);
    auto problem = problem_of(x);
    problem.mask = [](const mix::index& w) { return w.key <= w.query; };
    problem.edit = formula;
    mix::softmax_attention(x.q, x.k, x.v, x.out,
                           mix::softmax_options{.mask = mix::causal{}, .edit = edit, .lse = x.lse.view()});
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, name + " " + size.text(), 2);
    expect_lse_within_gate(x, expected, name + " " + size.text());
  }
}

// Dropout by coordinates: what training does, and what a wrong index would betray.
TEST(attention_edit, plain_functor_of_the_index) {
  const auto kept = [](const mix::index& w) { return (w.query * 31 + w.key * 17 + w.head * 7 + w.batch * 3) % 10 < 7; };
  check([=](float p, const mix::index& w) { return kept(w) ? p / 0.7f : 0.0f; },
        [=](double p, const mix::index& w) { return kept(w) ? p / 0.7 : 0.0; }, "dropout");
}

TEST(attention_edit, generic_functor) {
  check([](const auto& p, const auto&) { return p * p; }, [](double p, const mix::index&) { return p * p; }, "squares");
}

// An edit may give weight to visible keys only: what it returns for masked ones is not asked for, whatever they hold.
TEST(attention_edit, constant_weights_count_the_visible_keys) {
  cases::operands<> x({1, 2, 1, 40, 70, 8, 1}, 8);
  for (index_t s = 0; s < 70; ++s) x.v(0, 0, s, 0) = s < 69 ? 1.0f : std::numeric_limits<float>::quiet_NaN();
  mix::softmax_attention(
      x.q, x.k, x.v, x.out,
      mix::softmax_options{.mask = mix::causal{}, .edit = [](float, const mix::index&) { return 1.0f; }});
  for (index_t t = 0; t < 39; ++t) EXPECT_EQ(x.out(0, 1, t, 0), static_cast<float>(t + 31));
  EXPECT_TRUE(std::isnan(x.out(0, 1, 39, 0)));
}

// Sinks and off-by-one take their share before the edit; edits work on any normaliser.
TEST(attention_edit, with_sinks_and_other_normalisers) {
  const cases::shape size{1, 2, 1, 30, 90, 16, 8};
  const auto halved = [](float p, const mix::index& w) { return w.key % 2 == 0 ? p : p / 2; };
  const auto formula = [](double p, const mix::index& w) { return w.key % 2 == 0 ? p : p / 2; };
  cases::operands<> x(size, 9);
  mix::tensor<float, 1> sinks({2});
  sinks(0) = 2, sinks(1) = -1;
  mix::softmax_attention(mix::softmax_inputs{.q = x.q, .k = x.k, .v = x.v, .sinks = sinks}, x.out,
                         mix::softmax_options{.edit = halved});
  auto problem = problem_of(x);
  problem.edit = formula;
  problem.sinks = {2, -1};
  expect_within_gate<float, float, float>(x.out, x, reference::softmax_attention(problem), "sinks", 2);

  mix::softmax_attention(x.q, x.k, x.v, x.out,
                         mix::softmax_options{.normalizer = mix::sigmoid_weights{.bias = -1}, .edit = halved});
  problem.sinks.clear();
  problem.weights = reference::weighting::sigmoid;
  problem.parameter = -1;
  expect_within_gate<float, float, float>(x.out, x, reference::softmax_attention(problem), "sigmoid", 2, nullptr, true);
}

// Two passes keep the promise of one answer.
TEST(attention_edit, bits_of_any_split_and_threads) {
  const cases::operands<> x({1, 4, 2, 60, 700, 16, 8}, 10);
  const auto attend = [&](index_t first, auto&& on) {
    mix::tensor<float, 4> out({1, 4, 60 - first, 8});
    mix::softmax_attention(
        x.q.slice(2, first, 60 - first), x.k, x.v, out,
        mix::softmax_options{.mask = mix::causal{}, .edit = [](const auto& p, const auto&) { return p * p; }}, on);
    return out;
  };
  const auto whole = attend(0, mix::calling_thread{});
  for (index_t first : {0, 7, 57, 59})
    cases::expect_same_bits<float, 4>(attend(first, cases::delayed_threads{4}), whole.slice(2, first, 60 - first),
                                      "edit");
}

}  // namespace
