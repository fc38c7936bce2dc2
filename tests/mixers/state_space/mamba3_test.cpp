// SPDX-License-Identifier: Apache-2.0
// Mamba-3's recurrence: trapezoid and rotation, state and angle in and out.
//
// Budget: 12 u M + 8 u M1, M the recurrence on absolute values with pairs that turn at their length, M1 that with every part times
// its distance: an angle in one turn is rounded to 4 u at every token. Kept keys and states stand at an angle that was rounded at
// every token since the start. Identities: memcmp.
#include <mixers/state_space/ssd_mixers.hpp>

namespace {

using cases::index_t;
using cases::infinity;
using cases::mamba3_mixer;

TEST(mamba3, sizes) { cases::expect_state_sizes(mamba3_mixer{}); }
TEST(mamba3, identities) { cases::expect_state_identities(mamba3_mixer{}); }

TEST(mamba3, several_chunks) {
  for (index_t tokens : {63, 64, 66, 128, 200}) {
    cases::expect_state_split(mamba3_mixer{}, {1, 2, 1, 1, tokens, 20, 24}, 9);
    cases::expect_state_reverse(mamba3_mixer{}, {1, 2, 1, 1, tokens, 20, 24}, 9);
  }
  cases::expect_state_executors(mamba3_mixer{}, {1, 6, 2, 2, 100, 40, 17}, 10);
}

TEST(mamba3, decays_of_any_size) {
  cases::gate_record worst;
  std::uint64_t seed = 0;
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -20, -200, -1e4, -infinity, -1e-3};
  for (double steps : {0.0, 1.0, 10.0}) {
    for (index_t tokens : {1, 17, 100, 1000}) {
      cases::expect_state_oracle(mamba3_mixer{{.decays = decays, .steps = steps}}, {1, 2, 1, 1, tokens, 8, 19}, ++seed,
                                 &worst);
      cases::expect_state_oracle(mamba3_mixer{{.decays = {-1e-4}, .steps = steps}}, {1, 2, 1, 1, tokens, 8, 19}, ++seed,
                                 &worst);
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// With lambda = 1 and nothing that turns it is the rule of Mamba-2.
TEST(mamba3, is_mamba2_without_trapezoid_and_rotation) {
  const index_t T = 130, H = 2, P = 20, N = 9;
  const auto x = reference::normal<float>({1, T, H, P}, 1), B = reference::normal<float>({1, T, 1, N}, 2),
             C = reference::normal<float>({1, T, 1, N}, 3);
  const auto delta = reference::uniform<float>({1, T, H}, 4, 0.0, 1.0);
  const mix::tensor<float, 1> A({H}, -0.5f);
  mix::tensor<float, 3> log_decay({1, T, H}), trapezoid({1, T, H}, static_cast<float>(infinity));
  for (index_t i = 0; i < delta.size(); ++i) log_decay.data()[i] = delta.data()[i] * -0.5f;
  mix::tensor<float, 4> out({1, T, H, P}), want({1, T, H, P});
  mix::mamba3(mix::mamba3_inputs{.x = x, .delta = delta, .log_decay = log_decay, .trapezoid = trapezoid, .B = B, .C = C},
              out.view(), mix::mamba3_options{});
  mix::ssd(mix::ssd_inputs{.x = x, .delta = delta, .A = A, .B = B, .C = C}, want.view(), mix::ssd_options{});
  for (index_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.data()[i], want.data()[i], 1e-5);
}

}  // namespace
