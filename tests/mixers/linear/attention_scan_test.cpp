// SPDX-License-Identifier: Apache-2.0
// Attention as a scan against softmax over every prefix, and the identities that it promises.
//
// Budget: 8 u A and an error of scores of sqrt(D) u sum |q k|, relative in the weights; 2 u per token that a part was carried.
// Identities: none, memcmp.
#include <tokenmix/softmax.hpp>

#include <mixers/linear/state_identities.hpp>

namespace {

using cases::index_t;
using cases::infinity;

/// Inputs: k, v; the query is a function of head and channel. State: m, l, acc.
struct scan_mixer {
  static constexpr bool splits_anywhere = true;
  double amplitude = 1;

  mix::tensor<float, 2> query(index_t H, index_t D) const {
    mix::tensor<float, 2> q({H, D});
    for (index_t i = 0; i < q.size(); ++i)
      q.data()[i] = static_cast<float>(amplitude * std::sin(static_cast<double>(i) + 1));
    return q;
  }
  static std::vector<mix::extents<4>> inputs(const cases::linear_shape& s) {
    return {{s.batch, s.key_heads, s.tokens, s.width}, {s.batch, s.key_heads, s.tokens, s.value_width}};
  }
  static void fill(std::vector<mix::tensor<float, 4>>& in, cases::random_numbers& random) {
    for (auto& x : in) cases::fill_random(x.view(), random);
  }
  static cases::state_parts initial(const cases::linear_shape& s, index_t n, cases::random_numbers& random) {
    cases::state_parts state{mix::tensor<double, 4>({n, s.heads, 1, 1}), mix::tensor<double, 4>({n, s.heads, 1, 1}),
                             mix::tensor<double, 4>({n, s.heads, s.value_width, 1})};
    for (std::size_t p = 0; p < 3; ++p)
      for (double& e : state[p])
        e = static_cast<double>(static_cast<float>(p == 1 ? random.uniform(1, 3) : random.gaussian()));
    return state;
  }
  void operator()(const cases::state_call& c) const {
    auto on = c.on;
    auto m = cases::state_part<float, 2>((*c.state)[0]), l = cases::state_part<float, 2>((*c.state)[1]);
    auto acc = cases::state_part<float, 3>((*c.state)[2]);
    const auto q = query(c.out.extent(1), c.in[0].extent(3));
    c.with_sequences([&](auto sequences) {
      mix::attention_scan(
          mix::attention_scan_inputs<float, float>{.q = q, .k = c.in[0], .v = c.in[1], .initial_state = {m, l, acc}},
          c.out,
          mix::attention_scan_options<decltype(sequences)>{
              .order = c.order, .sequences = sequences, .final_state = {m.view(), l.view(), acc.view()}},
          on);
    });
    cases::put_state_part(m, (*c.state)[0]);
    cases::put_state_part(l, (*c.state)[1]);
    cases::put_state_part(acc, (*c.state)[2]);
  }
  static void rescale(cases::state_parts& got, const cases::state_parts& want) {
    for (index_t h = 0; h < got[0].size(); ++h) {
      const double factor = std::exp(got[0].data()[h] - want[0].data()[h]);
      got[1].data()[h] *= factor;
      const index_t each = got[2].size() / got[0].size();
      for (index_t i = h * each; i < (h + 1) * each; ++i) got[2].data()[i] *= factor;
    }
  }
  cases::state_answer oracle(const cases::linear_shape& s, const std::vector<mix::tensor<float, 4>>& in,
                             const cases::state_parts& initial, bool reversed) const {
    const double u = 0x1p-24, root = std::sqrt(std::max<double>(1, static_cast<double>(s.width)));
    cases::state_answer a{{}, {}, initial, initial};
    a.state_gate.clear();  // of another reference; outputs of later calls say the same
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * s.value_width), 0);
    a.gate = a.out;
    const auto q = query(s.heads, s.width);
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        const index_t kh = h * s.key_heads / s.heads;
        std::vector<double> score(static_cast<std::size_t>(s.tokens)), mass = score;
        for (index_t t = 0; t < s.tokens; ++t) {
          for (index_t d = 0; d < s.width; ++d) {
            const double x = static_cast<double>(q(h, d)) * static_cast<double>(in[0](b, kh, t, d)) / root;
            score[static_cast<std::size_t>(t)] += x;
            mass[static_cast<std::size_t>(t)] += std::abs(x);
          }
        }
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i;
          double top = initial[0](b, h, 0, 0);
          for (index_t j = 0; j <= i; ++j)
            top = std::max(top, score[static_cast<std::size_t>(reversed ? s.tokens - 1 - j : j)]);
          for (index_t c = 0; c < s.value_width; ++c) {
            const double old = std::exp(initial[0](b, h, 0, 0) - top);
            double sum = old * initial[1](b, h, 0, 0), out = old * initial[2](b, h, c, 0), weights = 0, errors = 0,
                   A = std::abs(out), E = A * 2 * static_cast<double>(i);
            weights = sum, errors = sum * 2 * static_cast<double>(i);
            for (index_t j = 0; j <= i; ++j) {
              const index_t r = reversed ? s.tokens - 1 - j : j;
              const double w = std::exp(score[static_cast<std::size_t>(r)] - top),
                           v = static_cast<double>(in[1](b, kh, r, c));
              const double each = root * mass[static_cast<std::size_t>(r)] + 2 * static_cast<double>(i - j);
              sum += w, out += w * v, A += w * std::abs(v), E += w * std::abs(v) * each;
              weights += w, errors += w * each;
            }
            const auto e = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * s.value_width + c);
            a.out[e] = out / sum;
            a.gate[e] = u * (8 * A + E + std::abs(a.out[e]) * (8 * weights + errors)) / sum;
          }
        }
      }
    }
    return a;
  }
};

TEST(attention_scan, sizes) { cases::expect_state_sizes(scan_mixer{}); }
TEST(attention_scan, identities) { cases::expect_state_identities(scan_mixer{}); }
TEST(attention_scan, scores_of_any_size) {
  cases::gate_record worst;
  for (double amplitude : {0.0, 10.0, 300.0})
    cases::expect_state_oracle(scan_mixer{amplitude}, {1, 2, 1, 1, 200, 16, 20}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// The last output is softmax attention of the query over all keys; from nothing; half precision.
TEST(attention_scan, last_output_is_softmax_attention) {
  const index_t T = 500;
  const auto k = reference::normal<mix::bfloat16>({1, 2, T, 16}, 1),
             v = reference::normal<mix::bfloat16>({1, 2, T, 20}, 2);
  const auto q = reference::normal<float>({4, 16}, 3);
  mix::tensor<float, 4> out({1, 4, T, 20}), last({1, 4, 1, 20});
  mix::attention_scan(mix::attention_scan_inputs<float, mix::bfloat16>{.q = q, .k = k, .v = v}, out.view());
  mix::softmax_attention(mix::tensor_view<const float, 4>(q.data(), {1, 4, 1, 16}), k.view(), v.view(), last.view());
  for (index_t h = 0; h < 4; ++h)
    for (index_t c = 0; c < 20; ++c) EXPECT_NEAR(out(0, h, T - 1, c), last(0, h, 0, c), 2e-6f);
}

TEST(attention_scan, errors) {
  const mix::tensor<float, 2> q({3, 8});
  const mix::tensor<float, 4> k({1, 2, 5, 8}), v({1, 2, 5, 6}), v4({1, 2, 4, 6});
  mix::tensor<float, 4> out({1, 3, 5, 6}, cases::untouched<float>());
  mix::tensor<float, 2> m({1, 3});
  const auto fails = [&](const mix::attention_scan_inputs<float, float>& in,
                         const mix::attention_scan_options<>& options, const std::string& message) {
    try {
      mix::attention_scan(in, out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.q = q, .k = k, .v = v}, {}, "k has 2 heads, q has 3: the number of query heads must be a multiple");
  fails({.q = q, .k = k.slice(1, 0, 1), .v = v4.slice(1, 0, 1)}, {}, "v is (1, 1, 4, 6), expected");
  fails({.q = q, .k = k.slice(1, 0, 1), .v = v.slice(1, 0, 1)}, {.final_state = {.m = m.view()}},
        "final_state.l is (0, 0), expected (sequences, H) = (1, 3)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
