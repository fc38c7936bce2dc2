// SPDX-License-Identifier: Apache-2.0
// Sink logits and extra keys against the oracle, and their bits under splits and threads.
//
// Budget: the float gate, in which a sink is one more key of exact score; lse likewise.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

std::vector<cases::shape> shapes() {
  if (cases::reduced_sweep) return {{2, 4, 2, 1, 40, 16, 8}, {2, 4, 2, 33, 20, 16, 8}};
  return {{2, 4, 2, 1, 300, 16, 8}, {2, 4, 4, 3, 0, 16, 8},     {2, 4, 2, 40, 40, 16, 8}, {2, 4, 1, 97, 257, 16, 8},
          {2, 4, 2, 70, 33, 16, 8}, {2, 6, 3, 7, 1000, 33, 17}, {2, 4, 2, 64, 0, 16, 8}};
}

TEST(attention_inputs, sinks) {
  cases::random_numbers random(1);
  for (const cases::shape& size : shapes()) {
    for (double amplitude : {1.0, 30.0}) {
      cases::operands<> x(size, 2);
      mix::tensor<float, 1> sinks({size.heads});
      cases::fill_random(sinks.view(), random, amplitude);
      sinks(1) = -std::numeric_limits<float>::infinity();  // a head without
      mix::softmax_attention(mix::softmax_inputs{.q = x.q, .k = x.k, .v = x.v, .sinks = sinks}, x.out,
                             mix::softmax_options{.mask = mix::causal{}, .lse = x.lse.view()});
      auto problem = problem_of(x);
      problem.mask = [](const mix::index& w) { return w.key <= w.query; };
      problem.sinks = reference::exact_values<double, float, 1>(sinks);
      const auto expected = reference::softmax_attention(problem);
      expect_within_gate<float, float, float>(x.out, x, expected, "sinks " + size.text());
      expect_lse_within_gate(x, expected, "sinks " + size.text());
      // A query that sees no key has its sink alone: zeros, and lse = the sink, bit for bit.
      for (index_t t = 0; t + size.keys < size.queries; ++t) {
        for (index_t h = 0; h < size.heads; ++h) {
          EXPECT_TRUE(cases::same_bits(x.lse(1, h, t), sinks(h)));
          for (index_t i = 0; i < size.value_width; ++i) EXPECT_TRUE(cases::same_bits(x.out(1, h, t, i), 0.0f));
        }
      }
    }
  }
}

/// Random extra keys for an operand set.
struct extra_keys {
  mix::tensor<float, 4> k, v;
  extra_keys(const cases::shape& size, index_t batch, index_t count, std::uint64_t seed)
      : k({batch, size.kv_heads, count, size.width}), v({batch, size.kv_heads, count, size.value_width}) {
    cases::random_numbers random(seed);
    cases::fill_random(k.view(), random);
    cases::fill_random(v.view(), random);
  }
};

TEST(attention_inputs, extra_keys_before_all_others) {
  for (const cases::shape& size : shapes()) {
    for (index_t batch : {1, 2}) {
      for (index_t count : {0, 1, 5, 63, 64, 65, 256, 300}) {
        cases::operands<> x(size, 3);
        const extra_keys extra(size, batch, count, 4);
        // Causal on the common axis: extra keys are positions 0 .. P - 1.
        mix::softmax_attention(
            mix::softmax_inputs{.q = x.q, .k = x.k, .v = x.v, .extra_k = extra.k, .extra_v = extra.v}, x.out,
            mix::softmax_options{.mask = mix::causal{}, .lse = x.lse.view()});
        auto problem = problem_of(x);
        problem.mask = [](const mix::index& w) { return w.key <= w.query; };
        problem.extra = count;
        problem.extra_batch = batch;
        problem.extra_k = reference::exact_values<double, float, 4>(extra.k);
        problem.extra_v = reference::exact_values<double, float, 4>(extra.v);
        const auto expected = reference::softmax_attention(problem);
        const std::string label = size.text() + " and " + std::to_string(count) + " extra keys";
        expect_within_gate<float, float, float>(x.out, x, expected, label);
        expect_lse_within_gate(x, expected, label);

        // The same keys in one tensor: the same bits.
        mix::tensor<float, 4> k({size.batch, size.kv_heads, count + size.keys, size.width}),
            v({size.batch, size.kv_heads, count + size.keys, size.value_width});
        for (index_t b = 0; b < size.batch; ++b)
          for (index_t h = 0; h < size.kv_heads; ++h)
            for (index_t s = 0; s < count + size.keys; ++s) {
              const index_t from = batch == 1 ? 0 : b;
              for (index_t i = 0; i < size.width; ++i)
                k(b, h, s, i) = s < count ? extra.k(from, h, s, i) : x.k(b, h, s - count, i);
              for (index_t i = 0; i < size.value_width; ++i)
                v(b, h, s, i) = s < count ? extra.v(from, h, s, i) : x.v(b, h, s - count, i);
            }
        mix::tensor<float, 4> joined(x.out.shape());
        mix::softmax_attention(x.q, k, v, joined, mix::softmax_options{.mask = mix::causal{}});
        cases::expect_same_bits<float, 4>(x.out, joined, label + " joined");
      }
    }
  }
}

TEST(attention_inputs, extra_keys_and_sinks_with_lengths) {
  const cases::shape size{3, 4, 2, 20, 90, 16, 8};
  for (index_t batch : {1, 3}) {
    cases::operands<> x(size, 5);
    const extra_keys extra(size, batch, 7, 6);
    const std::vector<index_t> keys{90, 0, 33}, queries{20, 3, 0};
    mix::tensor<float, 1> sinks({4});
    for (index_t h = 0; h < 4; ++h) sinks(h) = static_cast<float>(h) - 1.5f;
    auto problem = problem_of(x);
    problem.mask = [](const mix::index& w) { return w.key <= w.query; };
    problem.extra = 7;
    problem.extra_batch = batch;
    problem.extra_k = reference::exact_values<double, float, 4>(extra.k);
    problem.extra_v = reference::exact_values<double, float, 4>(extra.v);
    problem.sinks = reference::exact_values<double, float, 1>(sinks);
    for (index_t b = 0; b < 3; ++b) {
      const auto n = static_cast<std::size_t>(b);
      problem.sequences.push_back({b, b, 0, queries[n], 0, keys[n]});
    }
    mix::softmax_attention(
        mix::softmax_inputs{.q = x.q, .k = x.k, .v = x.v, .sinks = sinks, .extra_k = extra.k, .extra_v = extra.v},
        x.out,
        mix::softmax_options{
            .mask = mix::causal{}, .sequences = mix::lengths{.keys = keys, .queries = queries}, .lse = x.lse.view()});
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "all inputs");
    expect_lse_within_gate(x, expected, "all inputs");
  }
}

TEST(attention_inputs, few_queries_have_the_bits_of_many_on_any_threads) {
  const cases::shape size{2, 4, 2, 40, 700, 16, 8};
  const cases::operands<> x(size, 7);
  const extra_keys extra(size, 1, 70, 8);
  mix::tensor<float, 1> sinks({4});
  for (index_t h = 0; h < 4; ++h) sinks(h) = 1.0f - static_cast<float>(h);
  const auto attend = [&](index_t first, auto&& on) {
    mix::tensor<float, 4> out({2, 4, 40 - first, 8});
    mix::softmax_attention(mix::softmax_inputs<float, float>{.q = x.q.slice(2, first, 40 - first),
                                                             .k = x.k,
                                                             .v = x.v,
                                                             .sinks = sinks,
                                                             .extra_k = extra.k,
                                                             .extra_v = extra.v},
                           out, mix::softmax_options{.mask = mix::causal{}}, on);
    return out;
  };
  const auto whole = attend(0, mix::calling_thread{});
  for (index_t first : {1, 20, 35, 37, 39}) {
    cases::expect_same_bits<float, 4>(attend(first, mix::calling_thread{}), whole.slice(2, first, 40 - first),
                                      "from " + std::to_string(first));
    cases::expect_same_bits<float, 4>(attend(first, cases::delayed_threads{5}), whole.slice(2, first, 40 - first),
                                      "threads, from " + std::to_string(first));
  }
}

}  // namespace
