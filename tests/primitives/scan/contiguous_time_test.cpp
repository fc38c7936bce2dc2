// SPDX-License-Identifier: Apache-2.0
// Lines of contiguous time, which stand in lanes side by side, or, where they are few, as blocks of one line: the same bits as rows.
//
// Budget: none. memcmp.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

TEST(contiguous_time, has_the_bits_of_rows) {
  // Registers of lines and some that fill none; lines with as many whole blocks as there are lanes, with more blocks than one level
  // of totals has, and with nothing else.
  for (const auto& shape : {mix::extents<3>{3, 16, 64}, mix::extents<3>{2, 37, 300}, mix::extents<3>{1, 18, 2100},
                            mix::extents<3>{2, 3, 5000}, mix::extents<3>{1, 2, 40000}, mix::extents<3>{1, 17, 4096}}) {
    const operands x(shape);
    const mix::tensor<float, 3> initial = reference::uniform<float>({shape[0], shape[1], 1}, 3);
    reference::layout<3> rows = reference::packed_layout<3>();
    rows.order = {0, 2, 1};
    const reference::strided<float, 3> a(x.a, rows), b(x.b, rows), inclusive(shape, rows), exclusive(shape, rows);
    answers expected(shape), got(shape);
    mix::tensor<float, 3> last({shape[0], shape[1], 1}), expected_last = last;
    for (const index_t threads : {1, 2, 8}) {
      const std::string label = std::to_string(shape[2]) + " steps, " + std::to_string(threads) + " threads";
      const std::vector<index_t> offsets{0, shape[2] / 50, shape[2] / 2, shape[2] / 2, shape[2] - 1};
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

TEST(contiguous_time, decays_may_be_repeated) {
  const mix::extents<3> shape{2, 21, 300};
  const operands x(shape);
  const mix::tensor_view<const float, 3> all(x.a);
  for (const auto& a :
       {all.slice(2, 0, 1), all.slice(1, 0, 1), all.slice(0, 0, 1), all.slice(1, 0, 1).slice(2, 0, 1)}) {
    mix::tensor<float, 3> repeated(shape);
    for (index_t i = 0; i < shape[0]; ++i) {
      for (index_t j = 0; j < shape[1]; ++j) {
        for (index_t t = 0; t < shape[2]; ++t) {
          repeated(i, j, t) = a(i % a.extent(0), j % a.extent(1), t % a.extent(2));
        }
      }
    }
    answers expected(shape), got(shape);
    scan(repeated, x.b, expected.inclusive, expected.exclusive, 2);
    scan(a, x.b, got.inclusive, got.exclusive, 2);
    expect_same(got, expected, tokenmix::detail::shape_text(a.shape()));
    mix::tensor<float, 3> in_place = x.b;
    mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = mix::tensor_view<const float, 3>(in_place)},
                        in_place, mix::scan_options{.axis = 2});
    EXPECT_TRUE((reference::same_bits<float, 3>(in_place, expected.inclusive)));
  }
}

}  // namespace
