// SPDX-License-Identifier: Apache-2.0
// Messages, and the exceptions that carry them.
#include <tokenmix/core/error.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace mix = tokenmix;

static_assert(TOKENMIX_EXCEPTIONS);

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(error, message_is_put_together_from_words_and_numbers) {
  const std::string name = "k";
  EXPECT_EQ(message_of([&] { mix::detail::fail_shape(name, " has ", mix::index_t{3}, " heads, q has ", 8u, ": no"); }),
            "k has 3 heads, q has 8: no");
  EXPECT_EQ(message_of([] { mix::detail::fail_value("offset ", INT64_MIN, " of ", std::size_t{7}); }),
            "offset -9223372036854775808 of 7");
}

TEST(error, numbers_with_a_fraction_keep_their_digits) {
  EXPECT_EQ(message_of([] { mix::detail::fail_value("eps is ", 1e-12f); }), "eps is 9.99999996e-13");
  EXPECT_EQ(message_of([] { mix::detail::fail_value("eps is ", 0.125); }), "eps is 0.125");
}

TEST(error, kinds_are_told_apart_and_both_are_invalid_arguments) {
  EXPECT_THROW(mix::detail::fail_shape("s"), mix::shape_error);
  EXPECT_THROW(mix::detail::fail_value("v"), mix::value_error);
  EXPECT_THROW(mix::detail::fail_shape("s"), std::invalid_argument);
  static_assert(!std::is_base_of_v<mix::shape_error, mix::value_error>);
  static_assert(!std::is_base_of_v<mix::value_error, mix::shape_error>);
}

TEST(error, handler_can_be_replaced_and_put_back) {
  static const char* seen = nullptr;
  const mix::failure_handler_t mine = [](const char* message) { seen = message; };
  const mix::failure_handler_t before = mix::set_failure_handler(mine);
  ASSERT_NE(before, nullptr);
  EXPECT_EQ(mix::failure_handler(), mine);
  EXPECT_EQ(mix::set_failure_handler(nullptr), mine);
  EXPECT_EQ(mix::failure_handler(), before);
  EXPECT_EQ(seen, nullptr);
}
