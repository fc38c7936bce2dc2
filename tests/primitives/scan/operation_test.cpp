// SPDX-License-Identifier: Apache-2.0
// Operations of the user's own: on plain numbers, on registers, on structs.
//
// Budget: none but a rounding or two; places are exact.
#include <primitives/scan/scan_cases.hpp>

#include <algorithm>
#include <cstdint>

namespace {

using namespace cases;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A user's own: plain numbers only.
struct clipped_sum {
  float identity = 0.0f;
  float operator()(float before, float now) const { return std::min(before + now, 100.0f); }
};

/// A user's own, also on registers.
struct product_of {
  static float identity() { return 1.0f; }
  template <class X>
  X operator()(const X& before, const X& now) const {
    return before * now;
  }
};

/// A user's own on a struct: the largest value and where it was.
struct place {
  float value = -infinity;
  std::int32_t at = -1;
  friend bool operator==(const place&, const place&) = default;
};
struct latest_largest {
  static constexpr place identity{};
  place operator()(const place& before, const place& now) const { return now.value >= before.value ? now : before; }
};

TEST(operation, of_the_users_own) {
  static_assert(mix::scan_operation<clipped_sum, float> && mix::scan_operation<product_of, float>);
  static_assert(mix::scan_operation<latest_largest, place> && !mix::scan_operation<place, float>);
  const auto x = reference::uniform<float>({2, 300, 3}, 11, 0.9, 1.1);
  mix::tensor<float, 3> sums({2, 300, 3}), products({2, 300, 3});
  mix::inclusive_scan(clipped_sum{}, x, sums);
  mix::exclusive_scan(product_of{}, x, products);
  EXPECT_EQ(sums(1, 299, 2), 100.0f);
  EXPECT_NEAR(sums(1, 1, 2), x(1, 0, 2) + x(1, 1, 2), 1e-6);
  EXPECT_EQ(products(1, 0, 2), 1.0f);
  EXPECT_EQ(products(1, 2, 2), x(1, 0, 2) * x(1, 1, 2));

  mix::tensor<place, 2> in({4, 500}), out({4, 500});
  for (index_t i = 0; i < 4; ++i) {
    for (index_t t = 0; t < 500; ++t)
      in(i, t) = {std::sin(static_cast<float>(i * 31 + t)), static_cast<std::int32_t>(t)};
  }
  mix::inclusive_scan(latest_largest{}, in, out, mix::scan_options{.axis = 1}, scrambled_threads{3});
  for (index_t i = 0; i < 4; ++i) {
    place expected;
    for (index_t t = 0; t < 500; ++t) {
      if (in(i, t).value >= expected.value) expected = in(i, t);
      ASSERT_EQ(out(i, t), expected) << i << " " << t;
    }
  }
  mix::tensor<std::int32_t, 1> ones({1000}, 1), counts({1000});
  mix::inclusive_scan(mix::plus<std::int32_t>{}, ones, counts);
  EXPECT_EQ(counts(999), 1000);
}

}  // namespace
