// SPDX-License-Identifier: Apache-2.0
// First-order recurrences: real, complex, repeated decays, all places for the result, resets.
//
// Budget: (4 + log2 n) u sum of |a ... a b|: each step rounds a product and a sum, products of a round once per step.
#include <primitives/scan/scan_cases.hpp>

#include <complex>

namespace {

using namespace cases;

struct recurrence {
  mix::extents<3> shape;
  mix::extents<3> a_shape;
  std::size_t axis;
  bool reverse = false;

  std::string text() const {
    return tokenmix::detail::shape_text(shape) + " with a " + tokenmix::detail::shape_text(a_shape) + " along axis " +
           std::to_string(axis) + (reverse ? " reverse" : "");
  }
};

/// The place in a packed tensor of decays, some of whose extents are 1, of an element of the whole.
index_t decay_of(const recurrence& c, index_t i) {
  const index_t at[] = {i / (c.shape[1] * c.shape[2]), i / c.shape[2] % c.shape[1], i % c.shape[2]};
  index_t place = 0;
  for (std::size_t axis = 0; axis < 3; ++axis) place = place * c.a_shape[axis] + (c.a_shape[axis] == 1 ? 0 : at[axis]);
  return place;
}

void check(const recurrence& c, std::uint64_t seed, index_t threads = 1) {
  const std::string label = c.text() + ", seed " + std::to_string(seed);
  auto a = reference::uniform<float>(c.a_shape, seed, -0.2, 1.0);
  if (seed % 3 == 0 && a.size() > 2) a.data()[a.size() / 2] = 0.0f;
  auto b = reference::uniform<float>(c.shape, seed + 1);
  mix::extents<3> state_shape = c.shape;
  state_shape[c.axis] = 1;
  auto h = reference::uniform<float>(state_shape, seed + 2);
  const auto expected = reference::affine_scan(
      c.shape, reference::scan_path{c.axis, c.reverse, {}}, true,
      [&](index_t i) { return number(a.data()[decay_of(c, i)]); }, [&](index_t i) { return number(b.data()[i]); },
      [&](index_t i) { return number(h.data()[i]); });
  // h may be both states, b the result.
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = b}, b,
                      mix::scan_options{.axis = static_cast<index_t>(c.axis),
                                        .order = c.reverse ? mix::order::reverse : mix::order::forward,
                                        .initial = h.view(),
                                        .final_state = h.view()},
                      scrambled_threads{threads});
  expect_within_gate<float>(b, expected.out, expected.position, 4.0L, label);
  expect_within_gate<float>(h, expected.final_state, {}, 4.0L, label + ": final state");
}

TEST(affine, recurrences_with_decays_of_every_shape) {
  std::uint64_t seed = 1;
  for (const index_t n : {1, 2, 17, 128, 300}) {
    for (const bool reverse : {false, true}) {
      for (int repeated = 0; repeated < 8; ++repeated) {
        const auto extent = [&](int axis, index_t full) { return (repeated >> axis & 1) != 0 ? index_t{1} : full; };
        check({{2, n, 37}, {extent(0, 2), extent(1, n), extent(2, 37)}, 1, reverse}, ++seed);
        check({{2, 19, n}, {extent(0, 2), extent(1, 19), extent(2, n)}, 2, reverse}, ++seed);
      }
    }
  }
  check({{1, 2000, 5}, {1, 2000, 1}, 1}, ++seed, 4);
  check({{1, 3, 3000}, {1, 3, 3000}, 2, true}, ++seed, 4);
}

TEST(affine, a_large_recurrence_with_one_decay_per_step) {
  check({{2, 1000, 150}, {2, 1000, 1}, 1}, 5);  // beyond the inner caches
}

TEST(affine, maps_are_written_to_a_struct_of_views) {
  const auto a = reference::uniform<float>({3, 200}, 1, 0.5, 1.0), b = reference::uniform<float>({3, 200}, 2);
  mix::tensor<float, 2> h({3, 200}), products({3, 200}), sums({3, 200});
  const mix::affine_view in{.a = a, .b = b};
  mix::inclusive_scan(mix::affine<float>{}, in, h, mix::scan_options{.axis = 1});
  mix::inclusive_scan(mix::affine<float>{}, in, mix::affine_view{.a = products.view(), .b = sums.view()},
                      mix::scan_options{.axis = 1});
  EXPECT_TRUE((reference::same_bits<float, 2>(h, sums)));
  long double product = 1;
  for (index_t t = 0; t < 200; ++t) {
    product *= number(a(1, t));
    EXPECT_NEAR(static_cast<double>(number(products(1, t)) / product), 1.0, 1e-5);
  }
}

TEST(affine, complex_numbers) {
  using complex = std::complex<float>;
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    for (const bool reverse : {false, true}) {
      for (const index_t n : {1, 7, 16, 33, 300}) {
        const mix::extents<2> shape = axis == 0 ? mix::extents<2>{n, 21} : mix::extents<2>{21, n};
        mix::tensor<complex, 2> a(shape), b(shape), h(shape);
        reference::random_source random(static_cast<std::uint64_t>(n));
        for (index_t i = 0; i < a.size(); ++i) {
          a.data()[i] =
              std::polar(static_cast<float>(random.uniform(0.9, 1.0)), static_cast<float>(random.uniform(0, 3)));
          b.data()[i] = {static_cast<float>(random.normal()), static_cast<float>(random.normal())};
        }
        mix::inclusive_scan(mix::affine<complex>{}, mix::affine_view{.a = a, .b = b}, h,
                            mix::scan_options{.axis = static_cast<index_t>(axis),
                                              .order = reverse ? mix::order::reverse : mix::order::forward});
        struct state {
          std::complex<long double> h;
          long double magnitude = 0;
        };
        const auto wide = [](complex x) { return std::complex<long double>(number(x.real()), number(x.imag())); };
        reference::scan_lines(
            shape, reference::scan_path{axis, reverse, {}}, [](index_t) { return state{}; },
            [&](state& s, index_t i, index_t t) {
              s.h = wide(a.data()[i]) * s.h + wide(b.data()[i]);
              s.magnitude = std::abs(wide(a.data()[i])) * s.magnitude + std::abs(wide(b.data()[i]));
              // Products of two parts each: twice the roundings.
              const long double gate = (8 + std::log2(static_cast<long double>(t + 1))) * unit<float> * s.magnitude;
              ASSERT_LE(std::abs(wide(h.data()[i]) - s.h), gate) << "n " << n << " axis " << axis << " step " << t;
            },
            [](const state&, index_t) {});
      }
    }
  }
}

TEST(affine, zero_times_what_is_not_finite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {infinity, nan}) {
    for (const index_t at :
         {0, 100, 127, 128, 200}) {  // the step after the bad one resets; also across a block's border
      mix::tensor<float, 1> a({300}, 0.5f), b({300}, 1.0f), h({300});
      b(at) = bad;
      a(at + 1) = 0.0f;
      const mix::affine_view in{.a = a, .b = b};
      mix::inclusive_scan(mix::affine<float>{}, in, h);
      EXPECT_TRUE(std::isnan(h(at + 1)));
      mix::inclusive_scan(mix::affine_with_reset<float>{}, in, h);
      EXPECT_FALSE(std::isfinite(h(at)));
      EXPECT_EQ(h(at + 1), 1.0f) << at;
      for (index_t t = at + 1; t < 300; ++t) ASSERT_TRUE(std::isfinite(h(t))) << at << " " << t;
    }
  }
  // Products that underflow are no reset: a NaN stays.
  mix::tensor<float, 1> a({300}, 1e-3f), b({300}, 1.0f), h({300});
  b(0) = nan;
  mix::inclusive_scan(mix::affine_with_reset<float>{}, mix::affine_view{.a = a, .b = b}, h);
  for (const float x : h) EXPECT_TRUE(std::isnan(x));
}

TEST(affine, a_growing_recurrence_is_right_until_products_overflow) {
  mix::tensor<float, 1> a({128}, 4.0f), b({128}), h({128});
  b(100) = 1.0f;  // 4^100 is infinite, 0 times it must not appear in the first block
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = b}, h);
  EXPECT_EQ(h(99), 0.0f);
  EXPECT_EQ(h(110), 0x1p20f);
}

}  // namespace
