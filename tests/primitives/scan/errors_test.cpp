// SPDX-License-Identifier: Apache-2.0
// Every error of a scan with its message and its type; nothing is written then.
//
// Budget: none.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

template <class Error, class Call>
void expect_error(const std::string& message, Call&& call) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), message);
  }
}

using mix::shape_error;
using mix::value_error;
const mix::plus<float> plus;

TEST(errors, shapes) {
  mix::tensor<float, 3> x({2, 5, 3}), y({2, 4, 3}), z({2, 5, 3});
  auto out = marked<float, 3>({2, 5, 3});
  expect_error<shape_error>("out is (2, 4, 3), expected the shape of in = (2, 5, 3)",
                            [&] { mix::inclusive_scan(plus, x, y); });
  expect_error<shape_error>("in.a is (2, 4, 3), in.b is (2, 5, 3): extents must be equal, or 1 where in.a is repeated",
                            [&] { mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = y, .b = x}, out); });
  expect_error<shape_error>("out is (2, 5, 3) with strides (0, 3, 1): an output must not reach an element twice", [&] {
    mix::inclusive_scan(plus, x, mix::tensor_view<float, 3>(z.data(), {2, 5, 3}, {0, 3, 1}));
  });
  expect_error<value_error>("in is a null pointer, its shape is (2, 5, 3)", [&] {
    mix::inclusive_scan(plus, mix::tensor_view<const float, 3>(nullptr, {2, 5, 3}), out);
  });
  expect_error<shape_error>("in has extent -1 along axis 1: extents are not negative", [&] {
    mix::inclusive_scan(plus, mix::tensor_view<const float, 3>(x.data(), {2, -1, 3}), out);
  });
  for (const float e : out) EXPECT_TRUE(std::isnan(e));
}

TEST(errors, axes) {
  mix::tensor<float, 3> x({2, 5, 3}), out({2, 5, 3});
  expect_error<value_error>("axis is 3: in has 3 axes",
                            [&] { mix::inclusive_scan(plus, x, out, mix::scan_options{.axis = 3}); });
  expect_error<value_error>("axis is -4: in has 3 axes",
                            [&] { mix::exclusive_scan(plus, x, out, mix::scan_options{.axis = -4}); });
}

TEST(errors, order) {
  mix::tensor<float, 3> x({2, 5, 3}), out({2, 5, 3});
  expect_error<value_error>("order is bidirectional: a scan runs forward or reverse", [&] {
    mix::inclusive_scan(plus, x, out, mix::scan_options{.order = mix::order::bidirectional});
  });
}

TEST(errors, offsets) {
  mix::tensor<float, 3> x({2, 5, 3}), out({2, 5, 3});
  const auto scan = [&](std::vector<std::int32_t> offsets) {
    mix::inclusive_scan(plus, x, out, mix::scan_options{.offsets = std::span<const std::int32_t>(offsets)});
  };
  expect_error<value_error>("offsets[0] is -1: offsets start at 0 or later and do not decrease",
                            [&] { scan({-1, 5}); });
  expect_error<value_error>("offsets[2] is 2: offsets start at 0 or later and do not decrease",
                            [&] { scan({0, 3, 2}); });
  expect_error<value_error>("offsets[1] is 6: in has 5 steps along the scanned axis", [&] { scan({0, 6}); });
  const std::vector<std::uint64_t> far{0, 0x8000000000000000u};
  expect_error<value_error>("offsets[1] is 9223372036854775808: in has 5 steps along the scanned axis", [&] {
    mix::inclusive_scan(plus, x, out, mix::scan_options{.offsets = std::span<const std::uint64_t>(far)});
  });
}

TEST(errors, states) {
  mix::tensor<float, 3> x({2, 5, 3}), out({2, 5, 3}), state({2, 2, 3}), one({2, 1, 3});
  expect_error<shape_error>(
      "initial is (2, 2, 3), expected the shape of in with an entry per segment along the scanned axis = (2, 1, 3)",
      [&] { mix::inclusive_scan(plus, x, out, mix::scan_options{.initial = state.view()}); });
  const std::vector<std::int32_t> offsets{0, 1, 2};
  expect_error<shape_error>(
      "final_state is (2, 1, 3), expected the shape of in with an entry per segment along the scanned axis = (2, 2, 3)",
      [&] {
        mix::inclusive_scan(
            plus, x, out,
            mix::scan_options{.offsets = std::span<const std::int32_t>(offsets), .final_state = one.view()});
      });
}

TEST(errors, overlaps) {
  mix::tensor<float, 3> x({2, 6, 3}), out({2, 5, 3}), one({2, 1, 3});
  const auto first = x.slice(1, 0, 5), second = x.slice(1, 1, 5);
  expect_error<shape_error>("out overlaps in: it must be in itself or share no element with it",
                            [&] { mix::inclusive_scan(plus, first, second); });
  expect_error<shape_error>("final_state overlaps in: it must share no element with it", [&] {
    mix::inclusive_scan(plus, first, out, mix::scan_options{.final_state = x.slice(1, 4, 1)});
  });
  expect_error<shape_error>("out overlaps initial: it must share no element with it", [&] {
    mix::inclusive_scan(plus, first, out, mix::scan_options{.initial = out.slice(1, 0, 1)});
  });
  expect_error<shape_error>("out.b overlaps out.a: it must share no element with it", [&] {
    mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = first, .b = first},
                        mix::affine_view{.a = out.view(), .b = out.view()});
  });
}

}  // namespace
