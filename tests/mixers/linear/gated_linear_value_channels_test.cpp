// SPDX-License-Identifier: Apache-2.0
// Gated linear attention with a gate per value channel against the recurrence; decays from 0 to -infinity.
//
// Budget: 8 u A + 2 u A1 for every decay (see linear_cases.hpp). Identities: none, memcmp.
#include <mixers/linear/gated_cases.hpp>

namespace {

const cases::gated_mixer<cases::gated_by::value_channel> mixer;

TEST(gated_linear_value_channels, sizes_and_decays) { cases::expect_gated(mixer); }
TEST(gated_linear_value_channels, identities) { cases::expect_identities<float>(mixer); }

}  // namespace
