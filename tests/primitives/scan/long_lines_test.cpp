// SPDX-License-Identifier: Apache-2.0
// Lines of contiguous time that are long enough for as many whole blocks in a row as there are lanes: the same bits as rows.
//
// Budget: none. memcmp.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

TEST(long_lines, have_the_bits_of_rows) {
  // Long enough for as many whole blocks in a row as there are lanes, and for more blocks than one level of totals has.
  for (const auto& shape : {mix::extents<3>{2, 3, 5000}, mix::extents<3>{1, 2, 40000}}) {
    const operands x(shape);
    const mix::tensor<float, 3> initial = reference::uniform<float>({shape[0], shape[1], 1}, 3);
    reference::layout<3> rows = reference::packed_layout<3>();
    rows.order = {0, 2, 1};
    const reference::strided<float, 3> a(x.a, rows), b(x.b, rows), inclusive(shape, rows), exclusive(shape, rows);
    answers expected(shape), got(shape);
    mix::tensor<float, 3> last({shape[0], shape[1], 1}), expected_last = last;
    for (const index_t threads : {1, 2, 8}) {
      const std::string label = std::to_string(shape[2]) + " steps, " + std::to_string(threads) + " threads";
      const std::vector<index_t> offsets{0, 100, 2500, 2500, shape[2] - 1};
      for (const bool segmented : {false, true}) {
        const std::span<const index_t> chosen =
            segmented ? std::span<const index_t>(offsets) : std::span<const index_t>();
        scan(a.view(), b.view(), inclusive.view(), exclusive.view(), 2, chosen);
        scan(x.a, x.b, got.inclusive, got.exclusive, 2, chosen, threads);
        expected.inclusive = reference::packed_copy<float, 3>(inclusive.view());
        expected.exclusive = reference::packed_copy<float, 3>(exclusive.view());
        for (index_t i = segmented ? shape[2] - 1 : shape[2]; i < shape[2]; ++i) {  // not written
          for (answers* y : {&expected, &got}) {
            for (index_t line = 0; line < shape[0] * shape[1]; ++line) {
              y->inclusive(line / shape[1], line % shape[1], i) = y->exclusive(line / shape[1], line % shape[1], i) = 0;
            }
          }
        }
        expect_same(got, expected, label);
      }
      for (const mix::order order : {mix::order::forward, mix::order::reverse}) {
        const auto options = [&](mix::tensor<float, 3>& final_state) {
          return mix::scan_options{
              .axis = 2, .order = order, .initial = initial.view(), .final_state = final_state.view()};
        };
        mix::inclusive_scan(mix::plus<float>{}, b.view(), inclusive.view(), options(expected_last),
                            scrambled_threads{1});
        mix::inclusive_scan(mix::plus<float>{}, x.b, got.inclusive, options(last), scrambled_threads{threads});
        EXPECT_TRUE((reference::same_bits<float, 3>(got.inclusive, inclusive.view()))) << label;
        EXPECT_TRUE((reference::same_bits<float, 3>(last, expected_last))) << label;
        mix::exclusive_scan(mix::maximum<float>{}, b.view(), exclusive.view(), options(expected_last),
                            scrambled_threads{1});
        mix::exclusive_scan(mix::maximum<float>{}, x.b, got.exclusive, options(last), scrambled_threads{threads});
        EXPECT_TRUE((reference::same_bits<float, 3>(got.exclusive, exclusive.view()))) << label;
        EXPECT_TRUE((reference::same_bits<float, 3>(last, expected_last))) << label;
      }
    }
  }
}

}  // namespace
