// SPDX-License-Identifier: Apache-2.0
// mLSTM against its recurrence, for gates of any size, and the identities that it promises.
//
// Budget: 8 u A + 2 u A1 for the numerator and for the denominator (see linear_cases.hpp), 4 u for the quotient, and 2^-124: where
// exp(-m) overflows, outputs are smaller than any normal number and become 0. Identities: memcmp.
#include <mixers/linear/state_identities.hpp>

namespace {

using cases::index_t;
using cases::infinity;

/// Inputs: q, k, v, input gate, forget gate. State: S, z, m.
struct mlstm_mixer {
  static constexpr bool splits_anywhere = false;
  double decay = -0.3;           // typical log decay
  double gates = 2;              // typical size of input gates
  std::vector<double> decays{};  // or one of these

  static std::vector<mix::extents<4>> inputs(const cases::linear_shape& s) {
    return {{s.batch, s.heads, s.tokens, s.width},
            {s.batch, s.key_heads, s.tokens, s.width},
            {s.batch, s.key_heads, s.tokens, s.value_width},
            {s.batch, s.key_heads, s.tokens, 1},
            {s.batch, s.key_heads, s.tokens, 1}};
  }
  void fill(std::vector<mix::tensor<float, 4>>& in, cases::random_numbers& random) const {
    for (std::size_t i = 0; i < 4; ++i) cases::fill_random(in[i].view(), random, i == 3 ? gates : 1);
    for (float& g : in[4]) g = static_cast<float>(decays.empty() ? 2 * decay * random.unit() : random.one_of(decays));
  }
  static cases::state_parts initial(const cases::linear_shape& s, index_t n, cases::random_numbers& random) {
    cases::state_parts state{mix::tensor<double, 4>({n, s.key_heads, s.width, s.value_width}),
                             mix::tensor<double, 4>({n, s.key_heads, s.width, 1}),
                             mix::tensor<double, 4>({n, s.key_heads, 1, 1})};
    for (auto& part : state)
      for (double& e : part) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  void operator()(const cases::state_call& c) const {
    auto on = c.on;
    auto S = cases::state_part<float, 4>((*c.state)[0]);
    auto z = cases::state_part<float, 3>((*c.state)[1]);
    auto m = cases::state_part<float, 2>((*c.state)[2]);
    c.with_sequences([&](auto sequences) {
      mix::mlstm(mix::mlstm_inputs{.q = c.in[0],
                                   .k = c.in[1],
                                   .v = c.in[2],
                                   .input_gate = cases::without_channels(c.in[3]),
                                   .log_decay = cases::without_channels(c.in[4]),
                                   .initial_state = S,
                                   .initial_sum = z,
                                   .initial_max = m},
                 c.out,
                 mix::mlstm_options{.order = c.order,
                                    .sequences = sequences,
                                    .final_state = S.view(),
                                    .final_sum = z.view(),
                                    .final_max = m.view()},
                 on);
    });
    cases::put_state_part(S, (*c.state)[0]);
    cases::put_state_part(z, (*c.state)[1]);
    cases::put_state_part(m, (*c.state)[2]);
  }
  static void rescale(cases::state_parts& got, const cases::state_parts& want) {
    const index_t heads = got[2].size();
    for (index_t h = 0; h < heads; ++h) {
      const double m = want[2].data()[h], factor = std::exp(got[2].data()[h] - m);
      for (const std::size_t p : {0u, 1u}) {
        const index_t each = got[p].size() / heads;
        for (index_t i = h * each; i < (h + 1) * each; ++i) got[p].data()[i] *= m == -infinity ? 0 : factor;
      }
    }
  }
  cases::state_answer oracle(const cases::linear_shape& s, const std::vector<mix::tensor<float, 4>>& in,
                             const cases::state_parts& initial, bool reversed) const {
    const double u = 0x1p-24, scale = static_cast<double>(
                                  static_cast<float>(1 / std::sqrt(std::max<double>(1, static_cast<double>(s.width)))));
    cases::state_answer a{{}, {}, initial, {initial[0], initial[1]}};
    const index_t D = s.width, Dv = s.value_width;
    const auto outs = static_cast<std::size_t>(s.batch * s.heads * s.tokens * Dv);
    a.out.assign(outs, 0), a.gate.assign(outs, 0);
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        const index_t kh = h * s.key_heads / s.heads;
        // Column Dv of S is z; magnitudes and distances beside.
        std::vector<double> S(static_cast<std::size_t>(D * (Dv + 1))), M = S, M1 = S;
        const auto at = [&](index_t d, index_t c) { return static_cast<std::size_t>(d * (Dv + 1) + c); };
        for (index_t d = 0; d < D; ++d) {
          for (index_t c = 0; c <= Dv; ++c) {
            S[at(d, c)] = c < Dv ? initial[0](b, kh, d, c) : initial[1](b, kh, d, 0);
            M[at(d, c)] = std::abs(S[at(d, c)]);
          }
        }
        double m = initial[2](b, kh, 0, 0);
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i;
          const double log = static_cast<double>(in[4](b, kh, t, 0)), gate = static_cast<double>(in[3](b, kh, t, 0));
          const double before = log == -infinity ? -infinity : log + m;
          m = std::max(before, gate);
          const double keep = before == -infinity ? 0 : std::exp(before - m);
          const double write = gate == -infinity ? 0 : std::exp(gate - m);
          for (index_t d = 0; d < D; ++d) {
            for (index_t c = 0; c <= Dv; ++c) {
              const std::size_t e = at(d, c);
              const double value = c < Dv ? static_cast<double>(in[2](b, kh, t, c)) : 1;
              const double written = write * static_cast<double>(in[1](b, kh, t, d)) * value;
              M1[e] = keep == 0 ? 0 : (M1[e] + M[e]) * keep;
              S[e] = (keep == 0 ? 0 : S[e] * keep) + written;
              M[e] = (keep == 0 ? 0 : M[e] * keep) + std::abs(written);
            }
          }
          const auto read = [&](const std::vector<double>& x, index_t c, bool magnitude) {
            double sum = 0;
            for (index_t d = 0; d < D; ++d) {
              const double q = scale * static_cast<double>(in[0](b, h, t, d));
              sum += (magnitude ? std::abs(q) : q) * x[at(d, c)];
            }
            return sum;
          };
          const double size = std::abs(read(S, Dv, false)), least = std::exp(-m);
          const double divisor = std::max(size, least);
          const double divisor_error = 8 * read(M, Dv, true) + 2 * read(M1, Dv, true) + 4 * divisor;
          for (index_t c = 0; c < Dv; ++c) {
            const auto e = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * Dv + c);
            a.out[e] = divisor == infinity ? 0 : read(S, c, false) / divisor;
            a.gate[e] = divisor == infinity
                            ? 0
                            : u * (8 * read(M, c, true) + 2 * read(M1, c, true) + std::abs(a.out[e]) * divisor_error) /
                                      divisor +
                                  0x1p-124;
          }
        }
        for (index_t d = 0; d < D; ++d) {
          for (index_t c = 0; c <= Dv; ++c) {
            const std::size_t part = c < Dv ? 0 : 1;
            a.state[part](b, kh, d, c < Dv ? c : 0) = S[at(d, c)];
            a.state_gate[part](b, kh, d, c < Dv ? c : 0) = u * (8 * M[at(d, c)] + 2 * M1[at(d, c)]);
          }
        }
        a.state[2](b, kh, 0, 0) = m;
      }
    }
    return a;
  }
};

TEST(mlstm, sizes) { cases::expect_state_sizes(mlstm_mixer{}); }
TEST(mlstm, identities) { cases::expect_state_identities(mlstm_mixer{}); }

// Forget gates from 0 to -infinity, input gates of thousands, mixed within a chunk: at the gate of benign ones.
TEST(mlstm, gates_of_any_size) {
  cases::gate_record worst;
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -5, -20, -88, -200, -1e4, -infinity};
  std::uint64_t seed = 0;
  for (double gates : {0.0, 1.0, 30.0, 1000.0}) {
    for (index_t tokens : {1, 15, 16, 17, 33, 100}) {
      for (double decay : decays)
        cases::expect_state_oracle(mlstm_mixer{0, gates, {decay}}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
      cases::expect_state_oracle(mlstm_mixer{0, gates, decays}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
      cases::expect_state_oracle(mlstm_mixer{-0.01, gates}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// An input gate of -infinity writes nothing; a state that nothing has entered is not read, a forgotten one neither.
TEST(mlstm, nothing_written_nothing_read) {
  const mlstm_mixer mixer;
  const cases::linear_shape s{1, 1, 1, 1, 20, 8, 8};
  cases::state_operands<mlstm_mixer> x(mixer, s, 1);
  for (float& g : x.in[3]) g = static_cast<float>(-infinity);
  for (const std::size_t p : {0u, 1u})
    for (double& e : x.state[p]) e = std::nan("");
  x.state[2].data()[0] = -infinity;
  mixer(x.call());
  for (float e : x.out) EXPECT_EQ(e, 0.0f);
  EXPECT_EQ(x.state[2].data()[0], -infinity);
  for (double e : x.state[0]) EXPECT_EQ(e, 0.0);
  for (index_t reset : {0, 3, 16}) {
    cases::state_operands<mlstm_mixer> y(mixer, s, 1), z = y;
    y.in[4](0, 0, reset, 0) = z.in[4](0, 0, reset, 0) = static_cast<float>(-infinity);
    for (double& e : y.state[0]) e = std::nan("");
    mixer(y.call());
    mixer(z.call());
    cases::expect_same_bits<float, 4>(y.out.slice(2, reset, 20 - reset), z.out.slice(2, reset, 20 - reset), "reset");
    cases::expect_same_bits<double, 4>(y.state[0], z.state[0], "reset");
  }
}

// Without an initial state; the gate's formula; double.
TEST(mlstm, formulas_and_types) {
  const auto q = reference::normal<double>({1, 2, 40, 12}, 1), k = reference::normal<double>({1, 2, 40, 12}, 2),
             v = reference::normal<double>({1, 2, 40, 9}, 3);
  const auto i = reference::normal<double>({1, 2, 40}, 4), f = reference::normal<double>({1, 2, 40}, 5, 2);
  mix::tensor<double, 4> out({1, 2, 40, 9});
  mix::mlstm(mix::mlstm_inputs{.q = q, .k = k, .v = v, .input_gate = i, .log_decay = f}, out.view(),
             mix::mlstm_options<mix::log_sigmoid_gate, mix::whole_sequences, double>{.scale = 0.5, .epsilon = 1e-6});
  for (index_t h = 0; h < 2; ++h) {
    for (index_t t = 0; t < 40; ++t) {
      double n[9] = {}, z = 0, decay = 0;
      for (index_t s = t; s >= 0; --s) {
        double w = 0;
        for (index_t d = 0; d < 12; ++d) w += 0.5 * q(0, h, t, d) * k(0, h, s, d);
        w *= std::exp(decay + i(0, h, s));
        z += w;
        for (index_t c = 0; c < 9; ++c) n[c] += w * v(0, h, s, c);
        decay -= std::log1p(std::exp(-f(0, h, s)));
      }
      for (index_t c = 0; c < 9; ++c) {
        const double want = n[c] / std::max(std::abs(z), 1.0);
        EXPECT_NEAR(out(0, h, t, c), want, 1e-4 * (std::abs(want) + 1));  // epsilon is relative to exp(m)
      }
    }
  }
}

TEST(mlstm, errors) {
  const mix::tensor<float, 4> q({1, 2, 5, 8}), v({1, 2, 5, 6});
  const mix::tensor<float, 3> gate({1, 2, 5}), other({1, 1, 5});
  mix::tensor<float, 4> out({1, 2, 5, 6}, cases::untouched<float>());
  mix::tensor<float, 2> m({1, 3});
  const auto fails = [&](const mix::mlstm_inputs<float, float, float>& in, mix::tensor_view<float, 2> final_max,
                         const std::string& message) {
    try {
      mix::mlstm(in, out.view(), mix::mlstm_options{.final_max = final_max});
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const mix::shape_error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  mix::mlstm_inputs<float, float, float> in{.q = q, .k = q, .v = v, .input_gate = gate, .log_decay = gate};
  fails(in, m, "final_max is (1, 3), expected (sequences, Hk) = (1, 2)");
  in.input_gate = other;
  fails(in, {}, "input_gate is (1, 1, 5), expected (B, Hk, T) = (1, 2, 5)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
