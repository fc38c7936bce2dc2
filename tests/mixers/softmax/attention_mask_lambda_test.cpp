// SPDX-License-Identifier: Apache-2.0
// Lambdas as masks, of the plain index and generic, through the kernel.
//
// Budget: the float gate. Keys that nobody sees hold NaN.
#include <mixers/softmax/mask_cases.hpp>

namespace {

using cases::check_mask;
using cases::index_t;

// Holes of every kind inside a tile, between leaves and by head.
TEST(attention_mask_lambda, lambda_of_the_plain_index) {
  const auto sees = [](const mix::index& w) { return (w.query * 7 + w.key * 5 + w.head * 3 + w.batch) % 4 != 0; };
  check_mask(sees, sees, "lambda");
}

TEST(attention_mask_lambda, generic_lambda) {
  check_mask([](const auto& w) { return w.key % 3 != 1 && (w.key < w.query || w.head == 1); },
             [](const mix::index& w) { return w.key % 3 != 1 && (w.key < w.query || w.head == 1); }, "generic lambda");
}

}  // namespace
