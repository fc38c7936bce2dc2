// SPDX-License-Identifier: Apache-2.0
// One answer: the same bits for any number of threads, strides, places, neighbours, sizes, and whatever comes later.
//
// Budget: none. memcmp.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

using const_view = mix::tensor_view<const float, 3>;

TEST(bits, any_number_of_threads) {
  for (const auto& shape : {mix::extents<3>{2, 700, 37}, mix::extents<3>{1, 3000, 5}, mix::extents<3>{3, 5, 1500}}) {
    const operands x(shape);
    for (const index_t axis : {1, 2}) {
      const std::vector<index_t> offsets = some_offsets(shape[static_cast<std::size_t>(axis)]);
      for (const bool segmented : {false, true}) {
        const std::span<const index_t> chosen =
            segmented ? std::span<const index_t>(offsets) : std::span<const index_t>();
        answers expected(shape);
        scan(x.a, x.b, expected.inclusive, expected.exclusive, axis, chosen);
        for (const index_t threads : {2, 3, 8, 33}) {
          answers got(shape);
          scan(x.a, x.b, got.inclusive, got.exclusive, axis, chosen, threads);
          expect_same(got, expected, std::to_string(threads) + " threads, axis " + std::to_string(axis));
        }
      }
    }
  }
}

TEST(bits, any_strides) {
  const mix::extents<3> shape{3, 300, 20};
  const operands x(shape);
  for (const index_t axis : {0, 1, 2}) {
    answers expected(shape);
    scan(x.a, x.b, expected.inclusive, expected.exclusive, axis);
    auto layouts = reference::layouts<3>();
    for (const auto& order : {std::array<std::size_t, 3>{2, 0, 1}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}}) {
      reference::layout<3> l = reference::packed_layout<3>();
      l.name = "order " + std::to_string(order[0]) + std::to_string(order[1]) + std::to_string(order[2]);
      l.order = order;
      layouts.push_back(l);
      l.before = {1, 0, 2};
      l.reversed = {false, true, true};
      l.name += " reversed";
      layouts.push_back(l);
    }
    for (const auto& l : layouts) {
      const reference::strided<float, 3> a(x.a, l), b(x.b, layouts[1]);
      const reference::strided<float, 3> inclusive(shape, l), exclusive(shape, layouts[2]);
      scan(a.view(), b.view(), inclusive.view(), exclusive.view(), axis);
      answers got(shape);
      got.inclusive = reference::packed_copy<float, 3>(inclusive.view());
      got.exclusive = reference::packed_copy<float, 3>(exclusive.view());
      expect_same(got, expected, l.name + ", axis " + std::to_string(axis));
    }
  }
}

TEST(bits, neighbours_size_and_what_comes_later) {
  // Larger than the caches, so that the whole is streamed; its parts are not.
  const mix::extents<3> shape{2, 20000, 112};
  const operands x(shape);
  answers whole(shape);
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = x.a, .b = x.b}, whole.inclusive);
  for (const auto& [first, lines, steps] : {std::array<index_t, 3>{0, 5, 20000}, {31, 64, 17000}, {111, 1, 300}}) {
    const auto part = [&, f = first, n = lines, t = steps](const mix::tensor<float, 3>& y) {
      return const_view(y).slice(0, 1, 1).slice(1, 0, t).slice(2, f, n);
    };
    mix::tensor<float, 3> out({1, steps, lines});
    mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = part(x.a), .b = part(x.b)}, out);
    EXPECT_TRUE((reference::same_bits<float, 3>(out, part(whole.inclusive)))) << first;
  }
  // In place.
  mix::tensor<float, 3> b = x.b;
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = x.a, .b = b}, b, mix::scan_options{},
                      scrambled_threads{2});
  EXPECT_TRUE((reference::same_bits<float, 3>(b, whole.inclusive)));
}

TEST(bits, segments_are_calls_of_their_own) {
  const mix::extents<3> shape{2, 900, 18};
  const operands x(shape);
  for (const index_t axis : {1, 2}) {
    const std::vector<index_t> offsets = some_offsets(shape[static_cast<std::size_t>(axis)]);
    answers whole(shape), parts(shape);
    scan(x.a, x.b, whole.inclusive, whole.exclusive, axis, offsets);
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const auto part = [&](auto& y) {
        return y.slice(static_cast<std::size_t>(axis), offsets[i], offsets[i + 1] - offsets[i]);
      };
      scan(part(x.a), part(x.b), part(parts.inclusive), part(parts.exclusive), axis);
    }
    expect_same(parts, whole, "axis " + std::to_string(axis));
  }
}

TEST(bits, a_nan_stays_in_its_line_and_segment) {
  const mix::extents<3> shape{2, 600, 18};
  const operands clean(shape);
  for (const index_t axis : {1, 2}) {
    const index_t steps = shape[static_cast<std::size_t>(axis)];
    const std::vector<index_t> offsets{0, steps / 3, steps / 2, steps};
    operands x(shape);
    answers expected(shape), got(shape);
    scan(x.a, x.b, expected.inclusive, expected.exclusive, axis, offsets);
    const index_t at = steps / 3 + 1;
    (axis == 1 ? x.b(1, at, 7) : x.b(1, 7, at)) = std::numeric_limits<float>::quiet_NaN();
    scan(x.a, x.b, got.inclusive, got.exclusive, axis, offsets);
    for (index_t i = 0; i < shape[0]; ++i) {
      for (index_t j = 0; j < shape[1]; ++j) {
        for (index_t k = 0; k < shape[2]; ++k) {
          const index_t t = axis == 1 ? j : k;
          const bool line = i == 1 && (axis == 1 ? k : j) == 7;
          const bool segment = t >= offsets[1] && t < offsets[2];
          ASSERT_EQ(std::isnan(got.inclusive(i, j, k)), line && segment && t >= at);
          ASSERT_EQ(std::isnan(got.exclusive(i, j, k)), line && segment && t < at);
          ASSERT_TRUE(std::isnan(got.inclusive(i, j, k)) || got.inclusive(i, j, k) == expected.inclusive(i, j, k));
        }
      }
    }
  }
}

}  // namespace
