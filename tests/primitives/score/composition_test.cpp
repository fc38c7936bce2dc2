// SPDX-License-Identifier: Apache-2.0
// a | b applies a, then b: modifiers, lambdas of every shape, prepared parts, and nothing else is taken for a score.
#include <gtest/gtest.h>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/score/alibi.hpp>
#include <tokenmix/primitives/score/composition.hpp>
#include <tokenmix/primitives/score/dense_bias.hpp>
#include <tokenmix/primitives/score/relative_embedding.hpp>
#include <tokenmix/primitives/score/softcap.hpp>
#include <tokenmix/primitives/score/t5_bias.hpp>
#include <tokenmix/primitives/score/temperature.hpp>

#include <type_traits>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

template <class T>
class Composition : public ::testing::Test {};
using kernels = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Composition, kernels);

float halved(float score, mix::index where) { return where.key == 0 ? score : 0.5f * score; }

// Every budget below: each step rounds at most twice, and no step enlarges what came before more than fourfold.
constexpr double steps = 24;

TYPED_TEST(Composition, AppliesLeftToRight) {
  using T = TypeParam;
  for (const shape& s : shapes) {
    const auto slopes = mix::alibi_slopes(s.heads);
    const auto bias = [&](const mix::index& w) {
      return slopes[static_cast<std::size_t>(w.head)] * std::abs(static_cast<double>(w.query - w.key));
    };
    // The bias is divided by the temperature in one order, and not in the other.
    expect_everywhere<T>(mix::alibi{slopes} | mix::temperature{0.25f}, s, steps,
                         [&](double x, const mix::index& w) { return (x - bias(w)) / 0.25; });
    expect_everywhere<T>(mix::temperature{0.25f} | mix::alibi{slopes}, s, steps,
                         [&](double x, const mix::index& w) { return x / 0.25 - bias(w); });
    expect_everywhere<T>(mix::alibi{slopes} | mix::softcap{30.f}, s, steps,
                         [&](double x, const mix::index& w) { return 30 * std::tanh((x - bias(w)) / 30); });
    if (this->HasFatalFailure()) return;
  }
}

TYPED_TEST(Composition, PreparesItsParts) {
  using T = TypeParam;
  const shape s{2, 3, 21, 30};
  const guarded_table<float, 4> values({1, 3, 21, 30}, 1);
  const guarded_table<float, 2> table({3, 32}, 2);
  const auto modifier = mix::dense_bias<float>{values.view()} | mix::softcap{20.0f} |
                        mix::t5_bias<float>{table.view()} | mix::temperature{2.0f} | mix::alibi{mix::alibi_slopes(3)};
  static_assert(mix::prepares_tiles<decltype(modifier), T>);
  static_assert(!mix::prepares_tiles<decltype(mix::softcap{1.f} | mix::temperature{1.f}), T>);
  static_assert(!mix::reads_query<decltype(modifier)>);
  const auto slopes = mix::alibi_slopes(3);
  expect_everywhere<T>(modifier, s, steps, [&](double x, const mix::index& w) {
    x = 20 * std::tanh((x + static_cast<double>(values.view()(0, w.head, w.query - 9, w.key))) / 20);
    x += static_cast<double>(table.view()(w.head, mix::t5_bucket(w.key - w.query, 32, 128, mix::t5_sides::both)));
    return x / 2 - slopes[static_cast<std::size_t>(w.head)] * std::abs(static_cast<double>(w.query - w.key));
  });
}

TYPED_TEST(Composition, TakesLambdasOfEveryShape) {
  using T = TypeParam;
  const auto scalar = [](T score, mix::index where) { return where.query > where.key ? score : score - T(3); };
  const auto scalar_index = [](auto score, const mix::index& where) { return score + static_cast<T>(where.head % 5); };
  const auto generic = [](auto score, const auto& where) {
    return mix::select(where.key >= where.query - 2, score, score * T(0.5));
  };
  const auto numbers = [](auto score, const auto& where) {
    return score - T(0.5) * mix::as_score(score, where.query - where.key);
  };
  const auto of_scalar = [](double x, const mix::index& w) { return w.query > w.key ? x : x - 3; };
  const auto of_generic = [](double x, const mix::index& w) { return w.key >= w.query - 2 ? x : x * 0.5; };
  const auto of_head = [](double x, const mix::index& w) { return x + static_cast<double>(w.head % 5); };
  const auto of_numbers = [](double x, const mix::index& w) { return x - 0.5 * static_cast<double>(w.query - w.key); };
  for (const shape& s : shapes) {
    const mix::temperature half{0.5f};
    expect_everywhere<T>(half | scalar, s, steps, [&](double x, const mix::index& w) { return of_scalar(2 * x, w); });
    expect_everywhere<T>(scalar | half, s, steps, [&](double x, const mix::index& w) { return 2 * of_scalar(x, w); });
    expect_everywhere<T>(generic | half | scalar_index, s, steps,
                         [&](double x, const mix::index& w) { return of_head(2 * of_generic(x, w), w); });
    expect_everywhere<T>(mix::score_function{generic} | scalar, s, steps,
                         [&](double x, const mix::index& w) { return of_scalar(of_generic(x, w), w); });
    expect_everywhere<T>(half | numbers, s, steps, [&](double x, const mix::index& w) { return of_numbers(2 * x, w); });
    expect_everywhere<T>(mix::alibi{std::vector<float>(static_cast<std::size_t>(s.heads), 1.0f)} | generic, s, steps,
                         [&](double x, const mix::index& w) {
                           return of_generic(x - std::abs(static_cast<double>(w.query - w.key)), w);
                         });
    if constexpr (std::is_same_v<T, float>) {
      expect_everywhere<T>(half | &halved, s, steps,
                           [&](double x, const mix::index& w) { return w.key == 0 ? 2 * x : x; });
    }
    if (this->HasFatalFailure()) return;
  }
}

TEST(Composition, ALambdaAloneIsAsked) {
  const shape s{1, 2, 9, 11};
  const auto lambda = [](float score, mix::index where) { return score + static_cast<float>(where.key); };
  expect_everywhere<float>(lambda, s, 1.0,
                           [](double x, const mix::index& w) { return x + static_cast<double>(w.key); });
  expect_everywhere<float>(mix::plain_score{}, s, 0.0, [](double x, const mix::index&) { return x; });
  expect_everywhere<float>(mix::plain_score{} | lambda, s, 1.0,
                           [](double x, const mix::index& w) { return x + static_cast<double>(w.key); });
}

TEST(Composition, LargePartsAreBorrowed) {
  // Not copied for every tile: neither because of its size nor because its copies allocate.
  struct large {
    using is_score = void;
    float numbers[1000];
    float operator()(float score, mix::index where) const { return score + numbers[where.key]; }
  };
  auto part = std::make_unique<large>();
  for (int i = 0; i < 1000; ++i) part->numbers[i] = 0.25f * static_cast<float>(i);
  const auto modifier = *part | mix::alibi{std::vector<float>{0.5f}};
  const shape s{1, 1, 20, 20};
  expect_everywhere<float>(modifier, s, 4.0, [](double x, const mix::index& w) {
    return x + 0.25 * static_cast<double>(w.key) - 0.5 * std::abs(static_cast<double>(w.query - w.key));
  });
  mix::scratch_frame frame;
  const mix::score_tile<float> tile{0, 0, 0, 1, 0, 1, 20, 20, 0, mix::simd::lanes<float>, nullptr, 1.0f};
  static_assert(sizeof(mix::score_prepare(modifier, tile, frame)) < 100);
}

TEST(Composition, ReadsTheQueryIfAPartDoes) {
  const mix::tensor<float, 3> table({1, 3, 4});
  const auto modifier = mix::softcap{3.0f} | mix::relative_embedding{table.view()};
  static_assert(mix::reads_query<decltype(modifier)>);
  static_assert(mix::prepares_tiles<decltype(modifier), float>);
  static_assert(mix::prepares_tiles<decltype(modifier), double>);
}

TEST(Composition, ChecksItsParts) {
  const mix::tensor<float, 3> table({1, 3, 4});
  const auto modifier = mix::softcap{3.0f} | mix::relative_embedding{table.view()} | mix::alibi{std::vector<float>(2)} |
                        [](float x, mix::index) { return x; };
  mix::score_check(modifier, 1, 2, 3, 4, 4);
  expect_error<mix::shape_error>([&] { mix::score_check(modifier, 1, 3, 3, 4, 4); },
                                 "alibi.slopes has 2 numbers, q has 3 heads");
  expect_error<mix::shape_error>([&] { mix::score_check(modifier, 1, 2, 3, 4, 5); },
                                 "relative_embedding.table has 4 channels");
  expect_error<mix::value_error>([&] { mix::score_check(mix::softcap{-3.0f} | mix::plain_score{}, 1, 3, 3, 4, 4); },
                                 "softcap.cap");
}

template <class A, class B>
concept composes = requires(A a, B b) { a | b; };

struct no_score {};
using lambda_type = decltype([](float x, mix::index) { return x; });

TEST(Composition, TakesNothingElse) {
  static_assert(composes<mix::softcap<float>, lambda_type>);
  static_assert(composes<lambda_type, mix::softcap<float>>);
  static_assert(!composes<lambda_type, lambda_type>);
  static_assert(!composes<no_score, lambda_type>);
  static_assert(!composes<mix::softcap<float>, int>);
  static_assert(!composes<float, mix::softcap<float>>);
  static_assert(!composes<mix::softcap<float>, mix::causal>);
  static_assert(!composes<mix::causal, mix::softcap<float>>);
  static_assert(!composes<mix::simd::batch<float>, no_score>);
}

}  // namespace
