// SPDX-License-Identifier: Apache-2.0
// A sum of keys that goes in and comes out in the same place, while several tasks share its head.
//
// Budget: none, memcmp.
#include <tokenmix/linear.hpp>

#include <reference/cases.hpp>

namespace {

using cases::index_t;

/// One worker after the other, so that the second starts when the first has written.
struct in_turn {
  static index_t concurrency() { return 4; }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    for (index_t i = 0; i < n; ++i) task(i, i % 4);
  }
};

TEST(linear_sums, in_place) {
  for (index_t tokens : {1, 20}) {
    const auto q = reference::normal<float>({1, 1, tokens, 8}, 1), k = reference::normal<float>({1, 1, tokens, 8}, 2),
               v = reference::normal<float>({1, 1, tokens, 64}, 3);
    const auto start = reference::uniform<float>({1, 1, 8}, 4, 1, 2);
    const auto run = [&](auto on, mix::tensor<float, 3>& sum) {
      mix::tensor<float, 4> out({1, 1, tokens, 64});
      mix::linear_attention(
          mix::linear_inputs<float, float>{.q = q, .k = k, .v = v, .initial_sum = sum}, out.view(),
          mix::linear_options{.feature = mix::elu_plus_one{}, .normalizer = mix::clamped{}, .final_sum = sum.view()},
          on);
      return out;
    };
    mix::tensor<float, 3> sum = start, other = start;
    const auto alone = run(mix::calling_thread{}, sum), shared = run(in_turn{}, other);
    cases::expect_same_bits<float, 4>(shared, alone, "out");
    cases::expect_same_bits<float, 3>(other, sum, "sum");
  }
}

}  // namespace
