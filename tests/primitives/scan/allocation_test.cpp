// SPDX-License-Identifier: Apache-2.0
// No scan allocates after the first of its kind: scratch is kept by the thread.
//
// Budget: zero calls of operator new.
#include <bench/support/allocations.hpp>
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

template <class Scan>
void expect_none(const char* what, Scan&& scan) {
  scan();
  const bench::allocation_watch watch;
  scan();
  EXPECT_EQ(watch.calls(), 0u) << what;
}

TEST(allocation, none_after_the_first_call) {
  mix::tensor<float, 4> g({2, 1, 3, 1}), m({2, 1, 3, 20}), s({2, 1, 3, 20});
  expect_none("one step of a matrix state", [&] {
    mix::inclusive_scan(mix::matrix_decay<float>{}, mix::matrix_decay_view{.log_decay = g, .matrix = m}, m,
                        mix::scan_options{.axis = 1, .initial = s.view(), .final_state = s.view()});
  });
  mix::tensor<float, 2> x({40, 1000}), y({40, 1000});
  const std::vector<index_t> offsets{0, 0, 7, 40};
  expect_none("segments of rows", [&] {
    mix::inclusive_scan(mix::plus<float>{}, x, y,
                        mix::scan_options{.axis = 0, .offsets = std::span<const index_t>(offsets)});
  });
  expect_none("contiguous time", [&] { mix::exclusive_scan(mix::plus<float>{}, x, y, mix::scan_options{.axis = 1}); });
}

}  // namespace
