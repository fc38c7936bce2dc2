// SPDX-License-Identifier: Apache-2.0
// Chunked attention against the oracle: neighbours, causality, weights of unnormalised mixers, packed sequences, a prompt in pieces.
//
// Budget: the float gate of softmax attention; for weights of one score each as in mixers/softmax/attention_normalizer_test.cpp.
#include <mixers/softmax/softmax_cases.hpp>
#include <tokenmix/window.hpp>

namespace {

using cases::index_t;

struct chunk_case {
  index_t size, before, after;
};

bool sees(const chunk_case& c, const mix::index& w) {
  return w.key / c.size >= w.query / c.size - c.before && w.key / c.size <= w.query / c.size + c.after;
}

TEST(chunked_attention, neighbours) {
  for (const chunk_case& c : {chunk_case{1, 0, 0}, {7, 1, 0}, {16, 0, 1}, {64, 1, 1}, {500, 0, 0}}) {
    for (index_t T : {1, 33, 200}) {
      cases::operands<> x({1, 4, 2, T, 200, 16, 8}, 3);
      mix::chunked_attention(
          x.q, x.k, x.v, x.out.view(),
          mix::chunked_options<>{.size = c.size, .before = c.before, .after = c.after, .lse = x.lse});
      auto problem = cases::problem_of(x);
      problem.mask = [&](const mix::index& w) { return sees(c, w); };
      const auto expected = reference::softmax_attention(problem);
      const std::string label = "size " + std::to_string(c.size) + " T " + std::to_string(T);
      cases::expect_within_gate<float, float, float>(x.out, x, expected, label);
      cases::expect_lse_within_gate(x, expected, label);
    }
  }
}

TEST(chunked_attention, causal_and_in_pieces) {
  const chunk_case c{32, 1, 0};
  cases::operands<> x({1, 2, 2, 150, 150, 16, 8}, 3);
  const mix::chunked_options<mix::causal> options{.size = c.size, .before = c.before, .mask = {}};
  mix::chunked_attention(x.q, x.k, x.v, x.out.view(), options);
  auto problem = cases::problem_of(x);
  problem.mask = [&](const mix::index& w) { return w.key <= w.query && sees(c, w); };
  cases::expect_within_gate<float, float, float>(x.out, x, reference::softmax_attention(problem), "causal");
  const mix::tensor<float, 4> whole = x.out;
  const auto pair_by_pair = [&](const mix::index& w) { return w.key <= w.query && sees(c, w); };
  x.forget_results();
  mix::softmax_attention(x.q, x.k, x.v, x.out.view(),
                         mix::softmax_options<decltype(pair_by_pair)>{.mask = pair_by_pair});
  cases::expect_same_bits<float, 4>(x.out, whole, "as dense attention with a mask");
  x.forget_results();
  for (index_t first = 0; first < 150; first += 25)
    mix::chunked_attention(x.q.view().slice(2, first, 25), x.k.view().slice(2, 0, first + 25),
                           x.v.view().slice(2, 0, first + 25), x.out.view().slice(2, first, 25), options);
  cases::expect_same_bits<float, 4>(x.out, whole, "in pieces");
}

template <class Normalizer>
void check_weights(const Normalizer& normalizer, reference::weighting weights, double parameter, double deviation,
                   double floor) {
  const chunk_case c{24, 0, 0};
  cases::operands<> x({1, 2, 1, 100, 100, 16, 8}, 4);
  mix::chunked_attention(x.q, x.k, x.v, x.out.view(),
                         mix::chunked_options<mix::all_keys, mix::plain_score, mix::whole_sequences, Normalizer>{
                             .size = c.size, .normalizer = normalizer});
  auto problem = cases::problem_of(x);
  problem.mask = [&](const mix::index& w) { return sees(c, w); };
  problem.weights = weights;
  problem.parameter = parameter;
  problem.deviation = deviation;
  auto expected = reference::softmax_attention(problem);
  problem.edit = [](double, const mix::index&) { return 1.0; };
  const auto ones = reference::softmax_attention(problem);
  for (std::size_t i = 0; i < ones.magnitude.size(); ++i) expected.magnitude[i] += floor * ones.magnitude[i];
  cases::gate_record record;
  cases::expect_within_gate<float, float, float>(x.out, x, expected, "weights", 1, &record, true);
}

TEST(chunked_attention, weights_of_mossformer_and_mega) {
  check_weights(mix::relu_squared_weights{.factor = 1.0 / 24}, reference::weighting::relu_squared, 1.0 / 24, 1, 0);
  const mix::laplace_weights laplace{};
  check_weights(laplace, reference::weighting::laplace, laplace.mean, laplace.deviation, 0.25);
}

TEST(chunked_attention, chunks_of_packed_sequences_begin_with_them) {
  const chunk_case c{16, 0, 0};
  const std::vector<std::int32_t> offsets{0, 21, 21, 70};
  cases::operands<> x({1, 2, 2, 70, 70, 16, 8}, 5), alone({1, 2, 2, 49, 49, 16, 8}, 5);
  using packed = mix::packed<std::int32_t>;
  mix::chunked_attention(
      x.q, x.k, x.v, x.out.view(),
      mix::chunked_options<mix::all_keys, mix::plain_score, packed>{.size = c.size, .sequences = packed{offsets}});
  mix::chunked_attention(x.q.view().slice(2, 21, 49), x.k.view().slice(2, 21, 49), x.v.view().slice(2, 21, 49),
                         alone.out.view(), mix::chunked_options<>{.size = c.size});
  cases::expect_same_bits<float, 4>(x.out.view().slice(2, 21, 49), alone.out, "packed");
}

TEST(chunked_attention, errors_name_the_argument) {
  cases::operands<> x({1, 1, 1, 4, 4, 8, 4}, 1);
  const auto with = [&](const mix::chunked_options<>& options) -> std::string {
    try {
      mix::chunked_attention(x.q, x.k, x.v, x.out.view(), options);
    } catch (const std::invalid_argument& e) {
      return e.what();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(with({}), "chunks.size is 0, expected 1 or more tokens");
  EXPECT_EQ(with({.size = 2, .before = -1}), "chunks.before is -1, expected 0 or more chunks");
}

}  // namespace
