// SPDX-License-Identifier: Apache-2.0
// The delta rule against the recurrence; keys that are nearly alike; beta per value channel.
//
// Budget: delta_factor u |q| M sqrt(D / beta) (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/delta_cases.hpp>

namespace {

const cases::delta_mixer<cases::gate_of::nothing> mixer;

TEST(delta_rule, sizes_and_keys_alike) { cases::expect_delta_rule(mixer); }
TEST(delta_rule, identities) { cases::expect_identities<float>(mixer); }
TEST(delta_rule, beta_per_channel) {
  const cases::delta_mixer<cases::gate_of::nothing, true> per_channel;
  for (cases::index_t tokens : {1, 2, 16, 17, 50})
    cases::expect_oracle<float>(per_channel, {1, 2, 2, 2, tokens, 20, 37}, 1);
  cases::expect_split<float>(per_channel, {1, 2, 2, 2, 70, 20, 37}, 2);
  cases::expect_within_bounds<float>(per_channel, {1, 2, 2, 2, 18, 20, 37}, 3);
}

}  // namespace
