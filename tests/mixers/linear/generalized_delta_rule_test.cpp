// SPDX-License-Identifier: Apache-2.0
// The generalised delta rule, identity and diagonal plus low rank, against the recurrence; the delta rule as an instance.
//
// Budget: 2 delta_factor u |q| M sqrt(D / beta) for every decay (see linear_cases.hpp), with beta = 0.3, the least of -a'b.
// Identities: none, memcmp.
#include <mixers/linear/low_rank_mixers.hpp>

namespace {

using cases::index_t;

const cases::generalized_mixer<false> identity_plus;
const cases::generalized_mixer<true> diagonal_plus;

void sweep(const auto& mixer) {
  cases::gate_record worst;
  cases::expect_sizes<float>(mixer, &worst);
  if (mixer.decay_channels({}) > 0) cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 20, 24}, 1, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(generalized_delta_rule, identity_plus_low_rank) { sweep(identity_plus); }
TEST(generalized_delta_rule, diagonal_plus_low_rank) { sweep(diagonal_plus); }
TEST(generalized_delta_rule, identities_of_identity_plus) { cases::expect_identities<float>(identity_plus); }
TEST(generalized_delta_rule, identities_of_diagonal_plus) { cases::expect_identities<float>(diagonal_plus); }

// a = -beta k, b = k and beta v: what is read and written back solves the delta rule's triangle.
TEST(generalized_delta_rule, delta_rule_is_an_instance) {
  for (index_t tokens : {1, 2, 16, 17, 100}) {
    cases::linear_operands<float> x(identity_plus, {1, 2, 2, 2, tokens, 40, 24}, static_cast<std::uint64_t>(tokens));
    mix::tensor<float, 3> beta({1, 2, tokens});
    for (index_t h = 0; h < 2; ++h) {
      for (index_t t = 0; t < tokens; ++t) {
        beta(0, h, t) = 0.5f;
        for (index_t d = 0; d < 40; ++d) {
          x.b(0, h, t, d) = x.k(0, h, t, d);
          x.a(0, h, t, d) = -0.5f * x.k(0, h, t, d);
        }
      }
    }
    const mix::tensor<float, 4> v = x.v;
    for (float& e : x.v) e *= 0.5f;
    identity_plus(x.call());
    const mix::tensor<float, 4> out = x.out, state = x.final_state;
    mix::delta_rule(mix::delta_inputs{.q = x.call().q,
                                      .k = x.call().k,
                                      .v = v.view(),
                                      .beta = beta.view(),
                                      .initial_state = x.call().initial_state},
                    x.out.view(), {.scale = 0.25, .final_state = x.final_state});
    for (index_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.data()[i], x.out.data()[i], 1e-5f) << tokens;
    for (index_t i = 0; i < state.size(); ++i) EXPECT_NEAR(state.data()[i], x.final_state.data()[i], 2e-5f) << tokens;
  }
}

}  // namespace
