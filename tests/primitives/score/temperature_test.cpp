// SPDX-License-Identifier: Apache-2.0
// Temperatures by number, head and query, and the soft cap, against their formulas in double.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/softcap.hpp>
#include <tokenmix/primitives/score/temperature.hpp>

#include <limits>
#include <span>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

template <class T>
class Temperature : public ::testing::Test {};
using kernels = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Temperature, kernels);

// A division is rounded once: one u of the quotient. Budgets below are that, and a half for a rounded operand.
template <class T, class M, class Of>
void expect_divided(const M& m, const shape& s, double roundings, Of&& of) {
  const auto expected = [&](double score, const mix::index& w) { return score / of(w); };
  expect_modifier<T>(m, s, expected,
                     [&](double score, const mix::index& w) { return roundings * u<T> * std::abs(score / of(w)); });
  if (!::testing::Test::HasFatalFailure()) expect_prepared<T>(m, s);
}

TYPED_TEST(Temperature, Number) {
  using T = TypeParam;
  for (const shape& s : shapes)
    expect_divided<T>(mix::temperature{T(0.7)}, s, 1.0, [](const auto&) { return static_cast<double>(T(0.7)); });
  // A double in a float kernel is rounded first. That this stands in a template is part of the test: see the deduction guide.
  expect_divided<T>(mix::temperature{.value = 0.7}, shapes[1], 2.1, [](const auto&) { return 0.7; });
}

TYPED_TEST(Temperature, PerHead) {
  using T = TypeParam;
  for (const shape& s : shapes) {
    std::vector<float> values;
    for (index_t h = 0; h < s.heads; ++h) values.push_back(0.5f + 0.3f * static_cast<float>(h));
    const auto of = [&](const mix::index& w) { return static_cast<double>(values[static_cast<std::size_t>(w.head)]); };
    expect_divided<T>(mix::head_temperature{values}, s, 1.0, of);
    expect_divided<T>(mix::head_temperature{std::span<const float>(values)}, s, 1.0, of);
    expect_divided<T>(mix::head_temperature{mix::tensor_view<const float, 1>(values.data(), {s.heads})}, s, 1.0, of);
  }
}

TYPED_TEST(Temperature, PerQuery) {
  using T = TypeParam;
  unsigned seed = 0;
  for (const shape& s : shapes) {
    for (unsigned shared = 0; shared < 8; ++shared) {
      guarded_table<float, 3> table(
          {(shared & 1) != 0 ? 1 : s.batches, (shared & 2) != 0 ? 1 : s.heads, (shared & 4) != 0 ? 1 : s.queries},
          ++seed, shared % 2 == 0 ? mix::reference::flush::end : mix::reference::flush::start);
      const mix::tensor_view<const float, 3> v = std::as_const(table).view();
      expect_divided<T>(mix::query_temperature<float>{v}, s, 1.0, [&](const mix::index& w) {
        return static_cast<double>(v(v.extent(0) == 1 ? 0 : w.batch, v.extent(1) == 1 ? 0 : w.head,
                                     v.extent(2) == 1 ? 0 : w.query - (w.keys - w.queries)));
      });
    }
  }
}

TEST(TemperatureErrors, NameTheArgument) {
  expect_error<mix::value_error>([] { mix::temperature{0.0f}.check(1, 1, 1, 1); }, "temperature.value is 0");
  expect_error<mix::value_error>([] { mix::temperature{std::nanf("")}.check(1, 1, 1, 1); }, "temperature.value is");
  expect_error<mix::shape_error>([] { mix::head_temperature{std::vector<float>(3)}.check(1, 4, 1, 1); },
                                 "head_temperature.values has 3 numbers, q has 4 heads");
  const mix::tensor<float, 3> values({2, 3, 4});
  const mix::query_temperature m{values.view()};
  expect_error<mix::shape_error>([&] { m.check(1, 3, 4, 1); }, "query_temperature.values has 2 batches");
  expect_error<mix::shape_error>([&] { m.check(2, 2, 4, 1); }, "query_temperature.values has 3 heads");
  expect_error<mix::shape_error>([&] { m.check(2, 3, 5, 1); }, "query_temperature.values has 4 queries");
}

TYPED_TEST(Temperature, Softcap) {
  using T = TypeParam;
  for (const shape& s : shapes) {
    for (const T cap : {T(0.5), T(30), T(1e4)}) {
      const auto expected = [&](double score, const mix::index&) {
        return static_cast<double>(cap) * std::tanh(score / static_cast<double>(cap));
      };
      // The quotient is rounded once (the slope of tanh does not enlarge a relative error), the product once; the tanh is
      // good to 0.51 ulp in float and 1.5 ulp in double.
      expect_modifier<T>(mix::softcap{cap}, s, expected, [&](double score, const mix::index& w) {
        return (sizeof(T) == 4 ? 3.1 : 5.0) * u<T> * std::abs(expected(score, w)) + 1e-300;
      });
      if (this->HasFatalFailure()) return;
      expect_prepared<T>(mix::softcap{cap}, s);
    }
  }
  const mix::index where{};
  const T infinite = std::numeric_limits<T>::infinity();
  EXPECT_EQ(mix::score_at(mix::softcap{T(30)}, infinite, where), T(30));
  EXPECT_EQ(mix::score_at(mix::softcap{T(30)}, -infinite, where), T(-30));
  EXPECT_TRUE(std::isnan(mix::score_at(mix::softcap{T(30)}, std::numeric_limits<T>::quiet_NaN(), where)));
}

TEST(SoftcapErrors, NameTheArgument) {
  mix::softcap{30.0f}.check(1, 1, 1, 1);
  expect_error<mix::value_error>([] { mix::softcap{0.0f}.check(1, 1, 1, 1); }, "softcap.cap is 0");
  expect_error<mix::value_error>([] { mix::softcap{-1.0}.check(1, 1, 1, 1); }, "softcap.cap is -1");
  expect_error<mix::value_error>([] { mix::softcap{std::numeric_limits<float>::infinity()}.check(1, 1, 1, 1); },
                                 "softcap.cap is inf");
}

}  // namespace
