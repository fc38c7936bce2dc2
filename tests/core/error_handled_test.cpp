// SPDX-License-Identifier: Apache-2.0
// Without exceptions an error goes to the handler, and the program never goes on behind it.
#ifndef TOKENMIX_NO_EXCEPTIONS
#define TOKENMIX_NO_EXCEPTIONS  // as -fno-exceptions would have it; gtest itself is compiled as usual
#endif
#include <tokenmix/core/check.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

namespace mix = tokenmix;

static_assert(!TOKENMIX_EXCEPTIONS);

TEST(error_handled_death_test, default_handler_prints_and_aborts) {
  EXPECT_EXIT(mix::detail::fail_value("window is ", -3, ": it must not be negative"), testing::KilledBySignal(SIGABRT),
              "^tokenmix: window is -3: it must not be negative\n$");
}

TEST(error_handled_death_test, handler_gets_the_message_and_may_end_the_program) {
  const auto run = [] {
    mix::set_failure_handler([](const char* message) {
      std::fprintf(stderr, "mine: %s", message);
      std::_Exit(7);
    });
    const mix::tensor<float, 2> q({2, 3}), k({2, 4});  // (T, D)
    mix::detail::check_same_shape("k", k, "q", q);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(7),
              "^mine: k is \\(2, 4\\), q is \\(2, 3\\): they must have the same shape$");
}

TEST(error_handled_death_test, handler_that_returns_is_followed_by_abort) {
  const auto run = [] {
    mix::set_failure_handler([](const char*) { std::fputs("returning", stderr); });
    mix::tensor<float, 1> t({-1});  // (T)
    std::fputs(" went on", stderr);
  };
  EXPECT_EXIT(run(), testing::KilledBySignal(SIGABRT), "^returning$");
}
