// SPDX-License-Identifier: Apache-2.0
// Masks combined by & | ! with each other and with lambdas, through the kernel.
//
// Budget: the float gate. Keys that nobody sees hold NaN.
#include <mixers/softmax/mask_cases.hpp>

namespace {

using cases::check_mask;
using cases::index_t;

TEST(attention_mask_algebra, window_with_first_keys) {
  for (const auto& [left, first] : {std::array<index_t, 2>{7, 4}, {0, 1}, {20, 0}, {3, 66}}) {
    check_mask(
        mix::causal{} & (mix::window{.left = left} | mix::first_keys{first}),
        [before = left, sinks = first](const mix::index& w) {
          return w.key <= w.query && (w.query - w.key <= before || w.key < sinks);
        },
        "window with first keys");
  }
}

TEST(attention_mask_algebra, negation) {
  check_mask(!mix::causal{}, [](const mix::index& w) { return w.key > w.query; }, "not causal");
}

TEST(attention_mask_algebra, lambda_with_a_mask) {
  check_mask(
      mix::causal{} & [](const mix::index& w) { return w.key / 2 % 2 == 0; },
      [](const mix::index& w) { return w.key <= w.query && w.key / 2 % 2 == 0; }, "causal and lambda");
}

}  // namespace
