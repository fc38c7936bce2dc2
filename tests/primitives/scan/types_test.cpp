// SPDX-License-Identifier: Apache-2.0
// Scans of double, bfloat16 and float16, mixtures of them, and lines long enough for three levels of blocks.
//
// Budget: as for float, in the unit of the computing type; 16-bit results add half a unit in their last place.
#include <primitives/scan/scan_cases.hpp>

namespace {

using namespace cases;

template <class T, class E, class O>
void check(const mix::extents<2>& shape, index_t axis, std::uint64_t seed) {
  const auto x = reference::uniform<E>(shape, seed);
  mix::tensor<O, 2> out(shape);
  mix::extents<2> state_shape = shape;
  state_shape[static_cast<std::size_t>(axis)] = 1;
  mix::tensor<T, 2> state(state_shape);  // of the computing type
  mix::inclusive_scan(mix::plus<T>{}, x, out,
                      mix::scan_options{.axis = axis, .order = mix::order::reverse, .final_state = state.view()});
  const auto expected = reference::affine_scan(
      shape, reference::scan_path{static_cast<std::size_t>(axis), true, {}}, true, [](index_t) { return 1.0L; },
      [&](index_t i) { return number(x.data()[i]); }, [](index_t) { return 0.0L; });
  const std::string label = tokenmix::detail::shape_text(shape) + " axis " + std::to_string(axis);
  expect_within_gate<T>(out, expected.out, expected.position, 2.0L, label);
  expect_within_gate<T>(state, expected.final_state, {}, 2.0L, label + ": final state");
}

template <class T, class E, class O>
void sweep() {
  for (const index_t axis : {0, 1}) {
    for (const index_t n : {1, 9, 32, 150, 300}) {
      check<T, E, O>({n, 21}, axis, static_cast<std::uint64_t>(n));
      check<T, E, O>({21, n}, axis, static_cast<std::uint64_t>(n));
    }
  }
}

TEST(types, doubles) { sweep<double, double, double>(); }
TEST(types, bfloat16_to_bfloat16) { sweep<float, mix::bfloat16, mix::bfloat16>(); }
TEST(types, float16_to_float) { sweep<float, mix::float16, float>(); }

TEST(types, long_lines) {
  const index_t n = 128 * 128 + 3 * 128 + 77;  // a third level, and a block that is not whole
  for (const index_t threads : {1, 5}) {
    for (const index_t axis : {0, 1}) {
      const mix::extents<2> shape = axis == 0 ? mix::extents<2>{n, 3} : mix::extents<2>{3, n};
      const mix::tensor<double, 2> ones(shape, 1.0);
      mix::tensor<double, 2> counts(shape);
      mix::exclusive_scan(mix::plus<double>{}, ones, counts, mix::scan_options{.axis = axis},
                          scrambled_threads{threads});
      for (index_t t = 0; t < n; ++t) {
        ASSERT_EQ(axis == 0 ? counts(t, 2) : counts(2, t), static_cast<double>(t));
      }
    }
  }
}

TEST(types, the_error_does_not_grow_with_the_line) {
  const index_t n = reduced_sweep ? 1 << 16 : 1 << 20;
  const mix::tensor<float, 1> x({n}, 0.1f);
  mix::tensor<float, 1> out({n});
  mix::inclusive_scan(mix::plus<float>{}, x, out);
  const long double expected = number(0.1f) * static_cast<long double>(n);
  // Equal terms: the roundings of a chain do not average out at all. One chain of all terms is off by some 10^5 u.
  EXPECT_LE(std::abs(number(out(n - 1)) - expected), 64 * unit<float> * expected);
}

}  // namespace
