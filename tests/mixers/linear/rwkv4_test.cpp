// SPDX-License-Identifier: Apache-2.0
// RWKV-4 against its recurrence, for keys and decays of any size, and the identities that it promises.
//
// Budget: 8 u A + 4 u A1, A the mean of |v| under the weights, A1 that with every part times its distance. Identities: memcmp.
#include <mixers/linear/state_identities.hpp>

namespace {

using cases::index_t;
using cases::infinity;

/// Inputs: k, v. Log decay and bonus of a channel are functions of its place. State: values, weights, log.
struct rwkv4_mixer {
  static constexpr bool splits_anywhere = true;
  double keys = 2;               // typical size
  std::vector<double> decays{};  // of channels, in turn

  mix::tensor<float, 2> parameter(index_t H, index_t D, bool decay) const {
    mix::tensor<float, 2> x({H, D});
    for (index_t i = 0; i < x.size(); ++i) {
      const auto n = static_cast<std::size_t>(i);
      x.data()[i] = static_cast<float>(!decay           ? std::sin(static_cast<double>(i))
                                       : decays.empty() ? -std::exp(2 * std::cos(static_cast<double>(i)) - 3)
                                                        : decays[n % decays.size()]);
    }
    return x;
  }
  static std::vector<mix::extents<4>> inputs(const cases::linear_shape& s) {
    return {{s.batch, s.heads, s.tokens, s.value_width}, {s.batch, s.heads, s.tokens, s.value_width}};
  }
  void fill(std::vector<mix::tensor<float, 4>>& in, cases::random_numbers& random) const {
    cases::fill_random(in[0].view(), random, keys);
    cases::fill_random(in[1].view(), random);
  }
  static cases::state_parts initial(const cases::linear_shape& s, index_t n, cases::random_numbers& random) {
    cases::state_parts state(3, mix::tensor<double, 4>({n, s.heads, s.value_width, 1}));
    for (std::size_t p = 0; p < 3; ++p)
      for (double& e : state[p])
        e = static_cast<double>(static_cast<float>(p == 1 ? random.uniform(0.3, 2) : random.gaussian()));
    return state;
  }
  void operator()(const cases::state_call& c) const {
    auto on = c.on;
    auto values = cases::state_part<float, 3>((*c.state)[0]), weights = cases::state_part<float, 3>((*c.state)[1]),
         log = cases::state_part<float, 3>((*c.state)[2]);
    const auto decay = parameter(c.out.extent(1), c.out.extent(3), true),
               bonus = parameter(c.out.extent(1), c.out.extent(3), false);
    c.with_sequences([&](auto sequences) {
      mix::rwkv4(
          mix::rwkv4_inputs<float>{
              .k = c.in[0], .v = c.in[1], .log_decay = decay, .bonus = bonus, .initial_state = {values, weights, log}},
          c.out,
          mix::rwkv4_options<decltype(sequences)>{
              .order = c.order, .sequences = sequences, .final_state = {values.view(), weights.view(), log.view()}},
          on);
    });
    cases::put_state_part(values, (*c.state)[0]);
    cases::put_state_part(weights, (*c.state)[1]);
    cases::put_state_part(log, (*c.state)[2]);
  }
  static void rescale(cases::state_parts& got, const cases::state_parts& want) {
    for (index_t i = 0; i < got[0].size(); ++i) {
      const double log = want[2].data()[i];
      for (const std::size_t p : {0u, 1u}) got[p].data()[i] *= log == -infinity ? 0 : std::exp(got[2].data()[i] - log);
    }
  }
  cases::state_answer oracle(const cases::linear_shape& s, const std::vector<mix::tensor<float, 4>>& in,
                             const cases::state_parts& initial, bool reversed) const {
    const double u = 0x1p-24;
    cases::state_answer a{{}, {}, initial, {initial[0], initial[1]}};
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * s.value_width), 0);
    a.gate = a.out;
    const auto decay = parameter(s.heads, s.value_width, true), bonus = parameter(s.heads, s.value_width, false);
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        for (index_t c = 0; c < s.value_width; ++c) {
          double log = initial[2](b, h, c, 0);
          // Of values and of weights: the sum, its magnitude, and that times distances.
          double S[2] = {initial[0](b, h, c, 0), initial[1](b, h, c, 0)}, M[2] = {std::abs(S[0]), S[1]}, M1[2] = {0, 0};
          for (index_t i = 0; i < s.tokens; ++i) {
            const index_t t = reversed ? s.tokens - 1 - i : i;
            const double k = static_cast<double>(in[0](b, h, t, c)), v = static_cast<double>(in[1](b, h, t, c));
            const double mine = k + static_cast<double>(bonus(h, c)), top = std::max(log, mine);
            const double old = log == -infinity ? 0 : std::exp(log - top),
                         now = mine == -infinity ? 0 : std::exp(mine - top);
            const auto e = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * s.value_width + c);
            const double sum = old * S[1] + now;
            if (sum > 0) {
              a.out[e] = (old * S[0] + now * v) / sum;
              const double all = old * M[0] + now * std::abs(v) + std::abs(a.out[e]) * sum;
              const double far = old * (M1[0] + std::abs(a.out[e]) * M1[1]);
              a.gate[e] = u * (8 * all + 4 * far) / sum;
            }
            const double decayed = log + static_cast<double>(decay(h, c));
            log = std::max(decayed, k);
            const double keep = decayed == -infinity ? 0 : std::exp(decayed - log),
                         write = k == -infinity ? 0 : std::exp(k - log);
            for (int x = 0; x < 2; ++x) {
              const double written = write * (x == 0 ? v : 1);
              M1[x] = keep * (M1[x] + M[x]);
              S[x] = keep * S[x] + written;
              M[x] = keep * M[x] + std::abs(written);
            }
          }
          for (const std::size_t p : {0u, 1u}) {
            a.state[p](b, h, c, 0) = S[p];
            a.state_gate[p](b, h, c, 0) = u * (8 * M[p] + 4 * M1[p]);
          }
          a.state[2](b, h, c, 0) = log;
        }
      }
    }
    return a;
  }
};

TEST(rwkv4, sizes) { cases::expect_state_sizes(rwkv4_mixer{}); }
TEST(rwkv4, identities) { cases::expect_state_identities(rwkv4_mixer{}); }

TEST(rwkv4, keys_and_decays_of_any_size) {
  cases::gate_record worst;
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -5, -20, -88, -200, -1e4, -infinity, -3e-4};
  std::uint64_t seed = 0;
  for (double keys : {0.0, 1.0, 30.0, 1000.0}) {
    for (index_t tokens : {1, 17, 100, 1000})
      cases::expect_state_oracle(rwkv4_mixer{keys, decays}, {1, 2, 2, 2, tokens, 8, 19}, ++seed, &worst);
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// From nothing, with a receptance, in bfloat16; keys of -infinity, whose values may be NaN.
TEST(rwkv4, receptance_and_absent_keys) {
  const index_t T = 30, D = 21;
  auto k = reference::normal<mix::bfloat16>({1, 1, T, D}, 1), v = reference::normal<mix::bfloat16>({1, 1, T, D}, 2);
  const auto r = reference::normal<mix::bfloat16>({1, 1, T, D}, 3);
  for (index_t t = 0; t < T; t += t < 2 ? 1 : 5)
    for (index_t c = 0; c < 4; ++c)
      k(0, 0, t, c) = mix::bfloat16(static_cast<float>(-infinity)), v(0, 0, t, c) = mix::bfloat16(std::nanf(""));
  const mix::tensor<float, 2> decay({1, D}, -0.1f), bonus({1, D}, 0.5f);
  mix::tensor<mix::bfloat16, 4> out({1, 1, T, D});
  mix::rwkv4(mix::rwkv4_inputs<mix::bfloat16>{.k = k, .v = v, .log_decay = decay, .bonus = bonus, .receptance = r},
             out.view());
  for (index_t t = 0; t < T; ++t) {
    for (index_t c = 0; c < D; ++c) {
      double sum = 0, weights = 0;
      for (index_t s = 0; s <= t; ++s) {
        const double w = std::exp(static_cast<double>(static_cast<float>(k(0, 0, s, c))) +
                                  (s == t ? 0.5 : -0.1 * static_cast<double>(t - 1 - s)));
        if (w > 0) sum += w * static_cast<double>(static_cast<float>(v(0, 0, s, c))), weights += w;
      }
      const double want =
          weights == 0 ? 0 : sum / weights / (1 + std::exp(-static_cast<double>(static_cast<float>(r(0, 0, t, c)))));
      EXPECT_NEAR(static_cast<double>(static_cast<float>(out(0, 0, t, c))), want, 4e-3 * std::abs(want) + 1e-5);
    }
  }
}

TEST(rwkv4, errors) {
  const mix::tensor<float, 4> k({1, 2, 5, 8}), narrow({1, 2, 5, 7});
  const mix::tensor<float, 2> decay({2, 8}), other({1, 8});
  mix::tensor<float, 4> out({1, 2, 5, 8}, cases::untouched<float>());
  mix::tensor<float, 3> part({1, 2, 8});
  const auto fails = [&](const mix::rwkv4_inputs<float>& in, const mix::rwkv4_options<>& options,
                         const std::string& message) {
    try {
      mix::rwkv4(in, out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.k = k, .v = narrow, .log_decay = decay, .bonus = decay}, {}, "v is (1, 2, 5, 7), k is (1, 2, 5, 8)");
  fails({.k = k, .v = k, .log_decay = other, .bonus = decay}, {}, "log_decay is (1, 8), expected (H, D) = (2, 8)");
  fails({.k = k, .v = k, .log_decay = decay, .bonus = decay}, {.final_state = {.log = part.view()}},
        "a state has values, weights and log");
  fails({.k = k, .v = k, .log_decay = decay, .bonus = decay}, {.order = mix::order::bidirectional},
        "order is bidirectional");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
