// SPDX-License-Identifier: Apache-2.0
// Dense biases: every broadcast, element type and stride; nothing outside the tensor is read for padding lanes.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/dense_bias.hpp>

#include <limits>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

template <class E>
double value(const mix::tensor_view<const E, 4>& v, index_t b, index_t h, index_t t, index_t s) {
  const auto at = [&](std::size_t axis, index_t i) { return v.extent(axis) == 1 ? 0 : i; };
  return static_cast<double>(static_cast<mix::accumulator_t<E>>(v(at(0, b), at(1, h), at(2, t), at(3, s))));
}

template <class T, class E>
void sweep() {
  // The value as T (exact but for double biases in float kernels: half an ulp), then one rounding of the sum.
  const double relative = sizeof(E) > sizeof(T) ? 2.0 : 1.0;
  unsigned seed = 1;
  for (const shape& s : shapes) {
    for (unsigned shared = 0; shared < 16; ++shared) {
      const auto side = shared % 2 == 0 ? mix::reference::flush::end : mix::reference::flush::start;
      const guarded_table<E, 4> table({(shared & 1) != 0 ? 1 : s.batches, (shared & 2) != 0 ? 1 : s.heads,
                                       (shared & 4) != 0 ? 1 : s.queries, (shared & 8) != 0 ? 1 : s.keys},
                                      ++seed, side);
      const auto v = table.view();
      expect_everywhere<T>(mix::dense_bias<E>{v}, s, relative, [&](double score, const mix::index& w) {
        return score + value<E>(v, w.batch, w.head, w.query + w.queries - w.keys, w.key);
      });
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(DenseBias, EveryBroadcastFloat) { sweep<float, float>(); }
TEST(DenseBias, EveryBroadcastDouble) { sweep<double, double>(); }
TEST(DenseBias, DoubleBiasInAFloatKernel) { sweep<float, double>(); }
TEST(DenseBias, FloatBiasInADoubleKernel) { sweep<double, float>(); }
TEST(DenseBias, Bfloat16) { sweep<float, mix::bfloat16>(); }
TEST(DenseBias, Float16InBothKernels) {
  sweep<float, mix::float16>();
  sweep<double, mix::float16>();
}

TEST(DenseBias, AnyStrides) {
  const shape s{2, 3, 21, 18};
  // Keys outermost; then rows backwards; then every other key of a wider tensor.
  const guarded_table<float, 4> across({s.keys, s.queries, s.heads, s.batches}, 3);
  const auto a = across.view().permuted({3, 2, 1, 0});
  const guarded_table<float, 4> plain({s.batches, s.heads, s.queries, s.keys}, 4);
  const auto p = plain.view();
  const mix::tensor_view<const float, 4> backwards(p.row(0, 0, s.queries - 1), p.shape(),
                                                   {p.stride(0), p.stride(1), -p.stride(2), 1});
  const guarded_table<float, 4> wide({s.batches, s.heads, s.queries, 2 * s.keys - 1}, 5);
  const auto w = wide.view();
  const mix::tensor_view<const float, 4> gaps(w.data(), p.shape(), {w.stride(0), w.stride(1), w.stride(2), 2});
  const mix::tensor_view<const float, 4> repeated(p.data(), p.shape(), {0, 0, 0, 1});
  for (const auto& v : {a, backwards, gaps, repeated}) {
    expect_everywhere<float>(mix::dense_bias<float>{v}, s, 1.0, [&](double score, const mix::index& i) {
      return score + value<float>(v, i.batch, i.head, i.query + i.queries - i.keys, i.key);
    });
  }
}

TEST(DenseBias, InfinityHidesAndNanShowsItself) {
  mix::tensor<float, 4> bias({1, 1, 2, 3});
  bias(0, 0, 0, 1) = -std::numeric_limits<float>::infinity();
  bias(0, 0, 1, 2) = std::numeric_limits<float>::quiet_NaN();
  const mix::dense_bias m{bias};
  EXPECT_EQ(mix::score_at(m, 7.0f, mix::index{0, 0, 1, 1, 2, 3}), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(mix::score_at(m, 7.0f, mix::index{0, 0, 2, 2, 2, 3})));
  EXPECT_EQ(mix::score_at(m, 7.0f, mix::index{0, 0, 2, 1, 2, 3}), 7.0f);
  expect_prepared<float>(m, {1, 1, 2, 3});
}

TEST(DenseBias, Errors) {
  const mix::tensor<float, 4> bias({2, 3, 4, 5});
  const mix::dense_bias m{bias.view()};
  m.check(2, 3, 4, 5);
  expect_error<mix::shape_error>([&] { m.check(3, 3, 4, 5); }, "dense_bias.values has 2 batches, expected 1 or 3");
  expect_error<mix::shape_error>([&] { m.check(2, 6, 4, 5); }, "dense_bias.values has 3 heads, expected 1 or 6");
  expect_error<mix::shape_error>([&] { m.check(2, 3, 1, 5); }, "dense_bias.values has 4 queries, expected 1 or 1");
  expect_error<mix::shape_error>([&] { m.check(2, 3, 4, 6); }, "dense_bias.values has 5 keys, expected 1 or 6");
}

}  // namespace
