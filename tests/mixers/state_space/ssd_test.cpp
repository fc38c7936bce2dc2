// SPDX-License-Identifier: Apache-2.0
// Mamba-2's dual against its recurrence, and the identities that it promises.
//
// Budget: 8 u M + 2 u M1, M the recurrence on absolute values, M1 that with every part times its distance. Identities: memcmp.
#include <mixers/state_space/ssd_mixers.hpp>

namespace {

using cases::index_t;
using cases::infinity;
using cases::ssd_mixer;

TEST(ssd, sizes) { cases::expect_state_sizes(ssd_mixer{}); }
TEST(ssd, identities) { cases::expect_state_identities(ssd_mixer{}); }

TEST(ssd, several_chunks) {
  for (index_t tokens : {63, 64, 66, 128, 200}) {
    cases::expect_state_split(ssd_mixer{}, {1, 2, 1, 1, tokens, 20, 24}, 9);
    cases::expect_state_reverse(ssd_mixer{}, {1, 2, 1, 1, tokens, 20, 24}, 9);
  }
  cases::expect_state_executors(ssd_mixer{}, {1, 6, 2, 2, 100, 40, 17}, 10);
}

// Steps A from nothing to 10^4, resets among them.
TEST(ssd, decays_of_any_size) {
  cases::gate_record worst;
  std::uint64_t seed = 0;
  for (double A : {0.0, -1e-6, -1e-3, -0.05, -1.0, -20.0, -200.0, -1e4, -1e38}) {
    for (index_t tokens : {1, 17, 100, cases::reduced_sweep ? 300 : 1500}) {
      cases::expect_state_oracle(ssd_mixer{{.decays = {A, A / 3}, .least = 0, .most = 1e6, .steps = 3}},
                                 {1, 2, 1, 1, tokens, 8, 19}, ++seed, &worst);
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(ssd, resets_are_like_new_sequences) {
  // Steps of 4 and A of -1e38 are -infinity together; smaller ones are not.
  const index_t T = 100, P = 20, N = 9;
  const auto x = reference::normal<float>({1, T, 1, P}, 1), B = reference::normal<float>({1, T, 1, N}, 2),
             C = reference::normal<float>({1, T, 1, N}, 3);
  for (index_t reset : {0, 1, 17, 63, 64, 99}) {
    mix::tensor<float, 3> delta({1, T, 1}, 1e-40f);
    delta(0, reset, 0) = 4;
    const mix::tensor<float, 1> A({1}, -1e38f);
    mix::tensor<float, 4> out({1, T, 1, P}), alone({1, T, 1, P}), state({1, 1, P, N}, std::nanf("")), final({1, 1, P, N});
    mix::ssd(mix::ssd_inputs{.x = x, .delta = delta, .A = A, .B = B, .C = C, .initial_state = state}, out.view(),
             mix::ssd_options{.final_state = final.view()});
    const index_t n = T - reset;
    mix::ssd(mix::ssd_inputs<float, float>{.x = x.slice(1, reset, n),
                                           .delta = delta.slice(1, reset, n),
                                           .A = A,
                                           .B = B.slice(1, reset, n),
                                           .C = C.slice(1, reset, n)},
             alone.slice(1, reset, n), mix::ssd_options{});
    for (index_t t = 0; t < T; ++t) {
      for (index_t p = 0; p < P; ++p) {
        if (t < reset) {
          EXPECT_TRUE(std::isnan(out(0, t, 0, p)));
        } else {
          EXPECT_NEAR(out(0, t, 0, p), alone(0, t, 0, p), 1e-4) << reset << " " << t;
        }
      }
    }
    for (float e : final) EXPECT_TRUE(std::isfinite(e));
    // One token.
    mix::ssd(mix::ssd_inputs<float, float>{.x = x.slice(1, reset, 1),
                                           .delta = delta.slice(1, reset, 1),
                                           .A = A,
                                           .B = B.slice(1, reset, 1),
                                           .C = C.slice(1, reset, 1),
                                           .initial_state = state},
             out.slice(1, reset, 1), mix::ssd_options{});
    for (index_t p = 0; p < P; ++p) EXPECT_NEAR(out(0, reset, 0, p), alone(0, reset, 0, p), 1e-4);
  }
}

// Without input no number of the state grows, however long the sequence.
TEST(ssd, state_does_not_grow) {
  const index_t T = cases::reduced_sweep ? 20000 : 1 << 20;
  const mix::tensor<float, 4> x({1, T, 1, 2}), B({1, T, 1, 4}, 1.0f);
  mix::tensor<float, 4> out({1, T, 1, 2}), state({1, 1, 2, 4}, 1.0f);
  auto delta = reference::uniform<float>({1, T, 1}, 1, 0.0, 1e-3);
  for (index_t t = 0; t < T; t += 1001) delta(0, t, 0) = 0.1f;
  const mix::tensor<float, 1> A({1}, -0.01f);
  mix::ssd(mix::ssd_inputs{.x = x, .delta = delta, .A = A, .B = B, .C = B, .initial_state = state}, out.view(),
           mix::ssd_options{.final_state = state.view()});
  double sum = 0;
  for (float e : delta) sum += static_cast<double>(e);
  for (float e : state) EXPECT_NEAR(static_cast<double>(e), std::exp(-0.01 * sum), 1e-5);
  for (index_t t = 1; t < T; ++t)
    ASSERT_LE(out(0, t, 0, 1), out(0, t - 1, 0, 1) * (1 + 0x1p-22f)) << t;  // each token's sums are rounded on their own
}

}  // namespace
