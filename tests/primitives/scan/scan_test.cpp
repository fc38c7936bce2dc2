// SPDX-License-Identifier: Apache-2.0
// Running sums of every shape, along every axis, forward and reverse, inclusive and exclusive, segmented, with states.
//
// Budget: (2 + log2 n) u sum|x| at step n: a chain of 128 additions of numbers of both signs, whose roundings average
// out, then a chain of blocks.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

struct sums {
  mix::extents<3> shape;
  std::size_t axis;
  bool segmented;
  bool with_initial;
  bool reverse;
  bool inclusive;

  std::string text() const {
    return tokenmix::detail::shape_text(shape) + " along axis " + std::to_string(axis) +
           (segmented ? " segmented" : "") + (with_initial ? " from a state" : "") + (reverse ? " reverse" : "") +
           (inclusive ? " inclusive" : " exclusive");
  }
};

/// One call of a scan of sums in memory of a layout, compared with the oracle.
void check(const sums& c, const reference::layout<3>& l, std::uint64_t seed, scrambled_threads on = {1}) {
  const std::string label = c.text() + ", " + l.name + ", seed " + std::to_string(seed);
  reference::scan_path path{c.axis, c.reverse, {}};
  if (c.segmented) path.offsets = some_offsets(c.shape[c.axis]);
  mix::extents<3> state_shape = c.shape;
  state_shape[c.axis] = path.segments();
  const auto x = reference::uniform<float>(c.shape, seed);
  const auto h0 = reference::uniform<float>(state_shape, seed + 1);
  auto h1 = marked<float>(state_shape);
  reference::strided<float, 3> in(x, l);
  reference::strided<float, 3> out(c.shape, l);

  const auto order = c.reverse ? mix::order::reverse : mix::order::forward;
  const auto axis = static_cast<index_t>(c.axis);
  const std::span<const index_t> offsets(path.offsets);
  const mix::plus<float> plus;
  if (c.with_initial) {
    const mix::scan_options options{
        .axis = axis, .order = order, .offsets = offsets, .initial = h0.view(), .final_state = h1.view()};
    c.inclusive ? mix::inclusive_scan(plus, in.view(), out.view(), options, on)
                : mix::exclusive_scan(plus, in.view(), out.view(), options, on);
  } else {
    const mix::scan_options options{.axis = axis, .order = order, .offsets = offsets, .final_state = h1.view()};
    c.inclusive ? mix::inclusive_scan(plus, in.view(), out.view(), options, on)
                : mix::exclusive_scan(plus, in.view(), out.view(), options, on);
  }

  const auto expected = reference::affine_scan(
      c.shape, path, c.inclusive, [](index_t) { return 1.0L; }, [&](index_t i) { return number(x.data()[i]); },
      [&](index_t i) { return c.with_initial ? number(h0.data()[i]) : 0.0L; });
  expect_within_gate<float>(reference::packed_copy<float, 3>(out.view()), expected.out, expected.position, 2.0L, label);
  EXPECT_TRUE(out.gaps_untouched()) << label;
  if (c.shape[c.axis] > 0) expect_within_gate<float>(h1, expected.final_state, {}, 2.0L, label + ": final state");
}

void all_ways(const mix::extents<3>& shape, std::size_t axis, std::uint64_t& seed) {
  const auto layouts = reference::layouts<3>();
  for (int ways = 0; ways < 16; ++ways) {
    const sums c{shape, axis, (ways & 1) != 0, (ways & 2) != 0, (ways & 4) != 0, (ways & 8) != 0};
    ++seed;
    check(c, layouts[seed % layouts.size()], seed);
  }
}

TEST(scan, sums_along_an_axis_before_the_channels) {
  std::uint64_t seed = 100;
  for (const index_t n : lengths()) {
    for (const index_t width : {1, 3, 16, 37}) all_ways({2, n, width}, 1, seed);
  }
}

TEST(scan, sums_along_the_contiguous_axis) {
  std::uint64_t seed = 200;
  for (const index_t n : lengths()) {
    all_ways({1, 1, n}, 2, seed);
    all_ways({2, 3, n}, 2, seed);
    all_ways({19, 1, n}, 2, seed);
  }
}

TEST(scan, sums_along_the_first_axes) {
  std::uint64_t seed = 300;
  for (const index_t n : {1, 5, 300}) {
    all_ways({n, 3, 5}, 0, seed);
    all_ways({n, 11, 100}, 0, seed);
  }
}

TEST(scan, sums_where_no_axis_is_contiguous) {
  for (const bool inclusive : {true, false}) {
    for (const bool reverse : {true, false}) {
      const sums c{{2, 300, 5}, 1, true, true, reverse, inclusive};
      reference::layout<3> l = reference::packed_layout<3>();
      l.name = "channels of a struct";
      l.order = {2, 0, 1};  // time is contiguous
      check(c, l, 7);
      l.order = {2, 1, 0};  // the batch is
      check(c, l, 8);
      // Every second channel: nothing is.
      const auto x = reference::uniform<float>({2, 300, 10}, 9);
      mix::tensor<float, 3> out({2, 300, 10}), expected({2, 300, 5});
      const auto every_second = [](auto& t) {
        return mix::tensor_view<float, 3>(t.data(), {2, 300, 5}, {3000, 10, 2});
      };
      mix::tensor<float, 3> copy = x;
      const auto dense = reference::packed_copy<float, 3>(every_second(copy));
      const mix::scan_options options{.order = reverse ? mix::order::reverse : mix::order::forward};
      if (inclusive) {
        mix::inclusive_scan(mix::plus<float>{}, every_second(copy), every_second(out), options);
        mix::inclusive_scan(mix::plus<float>{}, dense, expected, options);
      } else {
        mix::exclusive_scan(mix::plus<float>{}, every_second(copy), every_second(out), options);
        mix::exclusive_scan(mix::plus<float>{}, dense, expected, options);
      }
      EXPECT_TRUE((reference::same_bits<float, 3>(every_second(out), expected)));
      for (index_t i = 1; i < out.size(); i += 2) ASSERT_EQ(out.data()[i], 0.0f);
    }
  }
}

TEST(scan, sums_on_threads) {
  std::uint64_t seed = 400;
  for (const index_t n : {1, 128, 129, 1000, 3000}) {
    for (int ways = 0; ways < 16; ++ways) {
      const bool a = (ways & 1) != 0, b = (ways & 2) != 0, c = (ways & 4) != 0, d = (ways & 8) != 0;
      check({{1, n, 21}, 1, a, b, c, d}, reference::packed_layout<3>(), ++seed, scrambled_threads{3});
      check({{1, 2, n}, 2, a, b, c, d}, reference::packed_layout<3>(), ++seed, scrambled_threads{5});
    }
  }
}

TEST(scan, default_axis_and_negative_axes) {
  const auto x = reference::uniform<float>({2, 5, 3}, 1);
  mix::tensor<float, 3> a({2, 5, 3}), b({2, 5, 3}), c({2, 5, 3});
  mix::inclusive_scan(mix::plus<float>{}, x, a);
  mix::inclusive_scan(mix::plus<float>{}, x, b, mix::scan_options{.axis = 1});
  mix::inclusive_scan(mix::plus<float>{}, x, c, mix::scan_options{.axis = -2});
  EXPECT_TRUE((reference::same_bits<float, 3>(a, b)));
  EXPECT_TRUE((reference::same_bits<float, 3>(a, c)));
}

TEST(scan, empty_extents) {
  mix::tensor<float, 3> none({2, 0, 3}), none_out({2, 0, 3});
  auto h1 = marked<float, 3>({2, 1, 3});
  const auto h0 = reference::uniform<float>({2, 1, 3}, 1);
  mix::inclusive_scan(mix::plus<float>{}, none, none_out, mix::scan_options{.final_state = h1.view()});
  for (const float x : h1) EXPECT_EQ(x, 0.0f);
  mix::inclusive_scan(mix::plus<float>{}, none, none_out,
                      mix::scan_options{.initial = h0.view(), .final_state = h1.view()});
  EXPECT_TRUE((reference::same_bits<float, 3>(h0, h1)));
  mix::tensor<float, 3> no_batch({0, 4, 3}), no_batch_out({0, 4, 3});
  mix::inclusive_scan(mix::plus<float>{}, no_batch, no_batch_out);
  mix::tensor<float, 3> no_channels({2, 4, 0}), no_channels_out({2, 4, 0});
  mix::exclusive_scan(mix::plus<float>{}, no_channels, no_channels_out);
  // Segments, but none that has steps.
  const std::vector<index_t> offsets{2, 2, 2};
  const auto x = reference::uniform<float>({1, 4, 3}, 2);
  auto out = marked<float, 3>({1, 4, 3});
  auto states = marked<float, 3>({1, 2, 3});
  mix::inclusive_scan(mix::plus<float>{}, x, out,
                      mix::scan_options{.offsets = std::span<const index_t>(offsets), .final_state = states.view()});
  for (const float y : out) EXPECT_TRUE(std::isnan(y));
  for (const float y : states) EXPECT_EQ(y, 0.0f);
}

}  // namespace
