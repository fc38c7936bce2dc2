// SPDX-License-Identifier: Apache-2.0
/// @file A call that takes no memory after the first ones of its kind.
#pragma once

#include <gtest/gtest.h>
#include <bench/support/allocations.hpp>

#include <string>

namespace tokenmix::reference {

template <class Call>
void expect_no_allocation(const Call& call, const std::string& label = "") {
  call();
  call();  // scratch taken in several blocks is merged into one when the first call ends
  const bench::allocation_watch watch;
  for (int n = 0; n < 5; ++n) call();
  EXPECT_EQ(watch.calls(), 0u) << label;
}

}  // namespace tokenmix::reference
