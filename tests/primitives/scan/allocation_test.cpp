// SPDX-License-Identifier: Apache-2.0
// No scan allocates after the first of its kind: scratch is kept by the thread.
//
// Budget: zero calls of operator new.
#include <primitives/scan/scan_cases.hpp>
#include <reference/no_allocation.hpp>

namespace {

using namespace cases;
using reference::expect_no_allocation;

TEST(allocation, none_after_the_first_call) {
  mix::tensor<float, 4> g({2, 1, 3, 1}), m({2, 1, 3, 20}), s({2, 1, 3, 20});
  expect_no_allocation(
      [&] {
        mix::inclusive_scan(mix::matrix_decay<float>{}, mix::matrix_decay_view{.log_decay = g, .matrix = m}, m,
                            mix::scan_options{.axis = 1, .initial = s.view(), .final_state = s.view()});
      },
      "one step of a matrix state");
  mix::tensor<float, 2> x({40, 1000}), y({40, 1000});
  const std::vector<index_t> offsets{0, 0, 7, 40};
  expect_no_allocation(
      [&] {
        mix::inclusive_scan(mix::plus<float>{}, x, y,
                            mix::scan_options{.axis = 0, .offsets = std::span<const index_t>(offsets)});
      },
      "segments of rows");
  expect_no_allocation([&] { mix::exclusive_scan(mix::plus<float>{}, x, y, mix::scan_options{.axis = 1}); },
                       "contiguous time");
}

}  // namespace
