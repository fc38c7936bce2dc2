// SPDX-License-Identifier: Apache-2.0
// Forgetting attention against its formula, with gates from 0 to -infinity, and the identities that it promises.
//
// Budget: the float gate of softmax attention, with the sums of gates in S. Identities: none, memcmp.
#include <tokenmix/mixers/softmax/forgetting_attention.hpp>
#include <tokenmix/primitives/mask/window.hpp>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Gates of the kinds that break differences of prefix sums: constant, mixed, rare resets.
mix::tensor<float, 3> gates_of(const cases::shape& size, index_t heads, int kind, std::uint64_t seed) {
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -5, -20, -88, -200, -1e4, -infinity};
  mix::tensor<float, 3> gates({size.batch, heads, size.keys});
  cases::random_numbers random(seed);
  for (float& g : gates) {
    if (kind < 10) {
      g = static_cast<float>(decays[static_cast<std::size_t>(kind)]);
    } else if (kind == 10) {
      g = static_cast<float>(random.one_of(decays));
    } else if (kind == 11) {
      g = static_cast<float>(random.chance(0.05) ? random.one_of(decays) : -0.02 * random.unit());
    } else {
      g = static_cast<float>(-std::exp(random.uniform(-12, 4)));
    }
  }
  return gates;
}
constexpr int kinds = 13;

double decay_between(const mix::tensor<float, 3>& gates, index_t batch, index_t head, index_t key, index_t query) {
  double sum = 0;
  for (index_t r = key + 1; r <= query; ++r) sum += static_cast<double>(gates(batch, head, r));
  return sum;
}

float log_sigmoid(float x) { return mix::simd::softplus(mix::simd::batch<float>(-x)).get(0) * -1.0f; }

template <class X, class Mask = mix::all_keys>
void attend(X& x, const mix::tensor<float, 3>& gates, const Mask& mask = {}) {
  mix::forgetting_attention(mix::forgetting_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = gates}, x.out.view(),
                            mix::forgetting_options{.mask = mask, .lse = x.lse.view()});
}

TEST(forgetting_attention, formula) {
  std::vector<cases::shape> shapes{{2, 4, 2, 1, 300, 16, 8},  {1, 4, 1, 3, 65, 16, 8},  {2, 4, 4, 40, 40, 16, 8},
                                   {1, 4, 2, 97, 200, 16, 8}, {1, 2, 2, 70, 33, 16, 8}, {1, 2, 2, 8, 333, 33, 9}};
  if (cases::reduced_sweep) shapes = {{2, 4, 2, 1, 70, 16, 8}, {1, 2, 2, 33, 70, 16, 8}};
  for (const cases::shape& size : shapes) {
    for (int kind = 0; kind < kinds; ++kind) {
      const index_t gate_heads = kind % 2 == 0 ? size.heads : 1;
      const auto gates = gates_of(size, gate_heads, kind, 5);
      cases::operands<> x(size, 11 + static_cast<std::uint64_t>(kind));
      attend(x, gates);
      auto problem = cases::problem_of(x);
      problem.mask = [&](const mix::index& w) {
        return w.key <= w.query &&
               decay_between(gates, w.batch, w.head * gate_heads / size.heads, w.key, w.query) > -infinity;
      };
      problem.score = [&](double s, const mix::index& w) {
        return s + decay_between(gates, w.batch, w.head * gate_heads / size.heads, w.key, w.query);
      };
      const auto expected = reference::softmax_attention(problem);
      const std::string label = "gates " + std::to_string(kind) + " " + size.text();
      cases::expect_within_gate<float, float, float>(x.out, x, expected, label);
      cases::expect_lse_within_gate(x, expected, label);
    }
  }
}

// Prefix sums of -20 a token reach -6e6 here, where a float is right to 0.5; sums of 1e-6 must not drown in them.
TEST(forgetting_attention, long_sequences) {
  const cases::shape size{1, 1, 1, 2, cases::reduced_sweep ? 5000 : 300000, 8, 4};
  mix::tensor<float, 3> gates({1, 1, size.keys});
  for (index_t s = 0; s < size.keys; ++s) gates(0, 0, s) = s + 3000 < size.keys ? -20.0f : -1e-4f;
  cases::operands<> x(size, 3);
  attend(x, gates);
  auto problem = cases::problem_of(x);
  std::vector<double> sums(static_cast<std::size_t>(size.keys + 1));  // from the key to the last token
  for (index_t s = size.keys; s-- > 0;)
    sums[static_cast<std::size_t>(s)] = sums[static_cast<std::size_t>(s + 1)] + static_cast<double>(gates(0, 0, s));
  problem.mask = [](const mix::index& w) { return w.key <= w.query; };
  problem.score = [&](double s, const mix::index& w) {
    return s + sums[static_cast<std::size_t>(w.key + 1)] -
           (w.query + 1 < size.keys ? static_cast<double>(gates(0, 0, w.query + 1)) : 0.0);
  };
  cases::expect_within_gate<float, float, float>(x.out, x, reference::softmax_attention(problem), "long");
}

TEST(forgetting_attention, gates_of_zero_are_causal_attention) {
  for (const cases::shape& size : {cases::shape{2, 4, 2, 70, 300, 16, 8}, cases::shape{1, 4, 2, 1, 300, 16, 8}}) {
    cases::operands<> x(size, 1), y = x;
    attend(x, mix::tensor<float, 3>({size.batch, 2, size.keys}));
    mix::softmax_attention(y.q, y.k, y.v, y.out, mix::softmax_options{.mask = mix::causal{}, .lse = y.lse.view()});
    cases::expect_same_bits<float, 4>(x.out, y.out, size.text());
    cases::expect_same_bits<float, 3>(x.lse, y.lse, size.text());
  }
}

// What stands before a reset is not seen, whatever it holds.
TEST(forgetting_attention, resets_forget) {
  for (const index_t queries : {1, 5, 150}) {
    for (const index_t reset : {1, 20, 63, 64, 65, 100, 149}) {
      const cases::shape size{1, 2, 2, queries, 150, 16, 8};
      cases::operands<> x(size, 1);
      auto gates = gates_of(size, 2, 12, 2);
      for (index_t h = 0; h < 2; ++h) gates(0, h, reset) = static_cast<float>(-infinity);
      cases::operands<> y = x;
      for (index_t h = 0; h < 2; ++h) {
        for (index_t s = 0; s < reset; ++s) {
          gates(0, h, s) = std::nanf("");
          for (index_t d = 0; d < 16; ++d) y.k(0, h, s, d) = d % 2 == 0 ? std::nanf("") : static_cast<float>(infinity);
          for (index_t d = 0; d < 8; ++d) y.v(0, h, s, d) = std::nanf("");
        }
      }
      auto plain = gates;
      for (float& g : plain) g = std::isnan(g) ? 0.0f : g;
      attend(x, plain);
      attend(y, gates);
      const index_t first = std::max<index_t>(0, reset - (150 - queries));
      cases::expect_same_bits<float, 4>(y.out.slice(2, first, queries - first), x.out.slice(2, first, queries - first),
                                        "reset at " + std::to_string(reset));
      for (float e : x.out) ASSERT_TRUE(std::isfinite(e));
    }
  }
}

// A prefill cut anywhere, and token by token as with a cache, on any executor.
TEST(forgetting_attention, split_is_whole) {
  const cases::shape size{1, 4, 2, 300, 300, 16, 8};
  cases::operands<> whole(size, 4);
  const auto gates = gates_of(size, 4, 11, 6);
  attend(whole, gates);
  const auto part = [&](index_t first, index_t count) {
    mix::tensor<float, 4> out({1, 4, count, 8});
    mix::forgetting_attention(mix::forgetting_inputs{.q = whole.q.slice(2, first, count),
                                                     .k = whole.k.slice(2, 0, first + count),
                                                     .v = whole.v.slice(2, 0, first + count),
                                                     .log_decay = gates.slice(2, 0, first + count)},
                              out.view(), mix::forgetting_options{}, cases::delayed_threads(3));
    cases::expect_same_bits<float, 4>(out, whole.out.slice(2, first, count), "from " + std::to_string(first));
  };
  for (index_t t = 0; t < size.queries; t += t < 70 ? 3 : 13) part(t, 1);
  for (const auto& [first, count] : std::vector<std::pair<index_t, index_t>>{
           {0, 5}, {0, 64}, {5, 120}, {64, 64}, {63, 66}, {128, 172}, {250, 50}, {290, 7}})
    part(first, count);
}

TEST(forgetting_attention, packed_is_a_loop) {
  const std::vector<std::int32_t> offsets{0, 0, 1, 70, 70, 198};
  cases::operands<> x({1, 4, 2, 200, 200, 16, 8}, 4), y = x;
  const auto gates = gates_of(x.size, 2, 11, 6);
  mix::forgetting_attention(mix::forgetting_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = gates}, x.out.view(),
                            mix::forgetting_options{.sequences = mix::packed<std::int32_t>{.offsets = offsets}});
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    const index_t first = offsets[i], n = offsets[i + 1] - first;
    mix::forgetting_attention(mix::forgetting_inputs{.q = y.q.slice(2, first, n),
                                                     .k = y.k.slice(2, first, n),
                                                     .v = y.v.slice(2, first, n),
                                                     .log_decay = gates.slice(2, first, n)},
                              y.out.slice(2, first, n));
  }
  cases::expect_same_bits<float, 4>(x.out, y.out, "packed");
}

// Lengths as a cache has them: what lies behind is not read.
TEST(forgetting_attention, lengths_of_a_cache) {
  cases::operands<> x({2, 2, 2, 1, 150, 16, 8}, 4), y = x;
  auto gates = gates_of(x.size, 2, 12, 6);
  const std::vector<index_t> lengths{70, 130};
  for (index_t b = 0; b < 2; ++b) {
    const index_t n = lengths[static_cast<std::size_t>(b)];
    mix::forgetting_attention(mix::forgetting_inputs{.q = y.q.slice(0, b, 1),
                                                     .k = y.k.slice(0, b, 1).slice(2, 0, n),
                                                     .v = y.v.slice(0, b, 1).slice(2, 0, n),
                                                     .log_decay = gates.slice(0, b, 1).slice(2, 0, n)},
                              y.out.slice(0, b, 1));
    for (index_t h = 0; h < 2; ++h) {
      for (index_t s = n; s < 150; ++s) {
        gates(b, h, s) = x.k(b, h, s, 0) = x.v(b, h, s, 0) = std::nanf("");
      }
    }
  }
  mix::forgetting_attention(mix::forgetting_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = gates}, x.out.view(),
                            mix::forgetting_options{.sequences = mix::lengths{.keys = lengths}});
  cases::expect_same_bits<float, 4>(x.out, y.out, "lengths");
}

TEST(forgetting_attention, masks_gates_types_and_strides) {
  const cases::shape size{1, 4, 2, 90, 90, 16, 8};
  cases::operands<> x(size, 4), y = x;
  auto raw = gates_of(size, 4, 12, 6);
  // The gate's formula, and gates with other strides: (B, S, H) in memory.
  mix::tensor<float, 3> by_token({1, 90, 4}), made = raw;
  for (index_t h = 0; h < 4; ++h) {
    for (index_t s = 0; s < 90; ++s) {
      by_token(0, s, h) = raw(0, h, s) = raw(0, h, s) + 3;
      made(0, h, s) = log_sigmoid(raw(0, h, s));
    }
  }
  mix::forgetting_attention(
      mix::forgetting_inputs{
          .q = x.q, .k = x.k, .v = x.v, .log_decay = mix::tensor_view<const float, 3>(by_token).permuted({0, 2, 1})},
      x.out.view(), mix::forgetting_options{.mask = mix::window{.left = 20}, .gate = mix::log_sigmoid_gate{}});
  attend(y, made, mix::window{.left = 20});
  cases::expect_same_bits<float, 4>(x.out, y.out, "log sigmoid");
  // double
  cases::operands<double> wide(size, 4);
  mix::tensor<double, 3> wide_gates({1, 4, 90});
  for (index_t i = 0; i < made.size(); ++i) wide_gates.data()[i] = static_cast<double>(made.data()[i]);
  mix::forgetting_attention(mix::forgetting_inputs{.q = wide.q, .k = wide.k, .v = wide.v, .log_decay = wide_gates},
                            wide.out.view(), mix::forgetting_options{.lse = wide.lse.view()});
  auto problem = cases::problem_of(wide);
  problem.mask = [](const mix::index& w) { return w.key <= w.query; };
  problem.score = [&](auto s, const mix::index& w) {
    auto sum = s;
    for (index_t r = w.key + 1; r <= w.query; ++r) sum += static_cast<decltype(s)>(wide_gates(0, w.head, r));
    return sum;
  };
  cases::expect_within_gate<double, double, double>(wide.out, wide, reference::softmax_attention(problem), "double");
}

TEST(forgetting_attention, errors) {
  cases::operands<> x({2, 4, 2, 5, 20, 16, 8}, 4);
  const auto fails = [&](const mix::tensor<float, 3>& gates, const std::string& message) {
    try {
      attend(x, gates);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const mix::shape_error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails(mix::tensor<float, 3>({2, 4, 19}), "log_decay has 19 keys, k has 20");
  fails(mix::tensor<float, 3>({1, 4, 20}), "log_decay has 1 batch elements, q has 2");
  fails(mix::tensor<float, 3>({2, 3, 20}),
        "log_decay has 3 heads, q has 4: the number of query heads must be a multiple");
  for (float e : x.out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
  for (const cases::shape& size : {cases::shape{0, 4, 2, 5, 5, 8, 8}, cases::shape{1, 0, 0, 5, 5, 8, 8},
                                   cases::shape{1, 4, 2, 0, 5, 8, 8}, cases::shape{1, 4, 2, 5, 0, 8, 8}}) {
    cases::operands<> empty(size, 4);
    attend(empty, mix::tensor<float, 3>({size.batch, size.heads, size.keys}));
    for (float e : empty.out) EXPECT_EQ(e, 0.0f);
  }
}

}  // namespace
