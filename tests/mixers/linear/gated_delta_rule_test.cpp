// SPDX-License-Identifier: Apache-2.0
// The delta rule with a gate per head against the recurrence; decays from 0 to -infinity; keys that are nearly alike.
//
// Budget: delta_factor u |q| M sqrt(D / beta) for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/delta_cases.hpp>

namespace {

const cases::delta_mixer<cases::gate_of::head> mixer;

TEST(gated_delta_rule, sizes_decays_and_keys_alike) { cases::expect_delta_rule(mixer); }
TEST(gated_delta_rule, identities) { cases::expect_identities<float>(mixer); }

}  // namespace
