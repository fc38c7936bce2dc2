// SPDX-License-Identifier: Apache-2.0
// Feature maps that make another width of a row: against their formulas in double, and as kernels of linear attention.
//
// Budget: 4 u of a Taylor feature; 8 u (1 + sum |w x|) of an exponential one. Linear attention: 8 u A + 2 u A1 on the features.
#include <tokenmix/primitives/feature_map_projected.hpp>
#include <tokenmix/primitives/feature_map_taylor.hpp>

#include <mixers/linear/linear_cases.hpp>

namespace {

using cases::index_t;

template <class Feature, class T = float>
std::vector<T> features(const Feature& f, const std::vector<T>& x) {
  const auto D = static_cast<index_t>(x.size());
  std::vector<T> to(static_cast<std::size_t>(f.width(D)), cases::untouched<T>());
  f.apply(x.data(), to.data(), D);  // under a sanitizer, any access beyond shows
  for (T e : to) EXPECT_FALSE(cases::same_bits(e, cases::untouched<T>()));
  return to;
}

std::vector<float> row(index_t n, std::uint64_t seed, double amplitude = 1) {
  cases::random_numbers random(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& e : x) e = static_cast<float>(amplitude * random.gaussian());
  return x;
}

double dot(const std::vector<float>& a, const std::vector<float>& b, bool magnitude = false) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]) * static_cast<double>(b[i]);
    sum += magnitude ? std::abs(x) : x;
  }
  return sum;
}

TEST(feature_map, taylor_is_the_exponential_to_second_order) {
  EXPECT_EQ(mix::taylor_second_order::width(16), 153);
  for (index_t D = 0; D <= 40; ++D) {
    for (const std::optional<double> scale : {std::optional<double>{}, std::optional<double>{0.3}}) {
      const auto q = row(D, 1), k = row(D, 2);
      const mix::taylor_second_order map{scale};
      const auto a = features(map, q), b = features(map, k);
      const double factor = scale.value_or(1 / std::sqrt(std::max<double>(1, static_cast<double>(D))));
      const double s = factor * dot(q, k), size = factor * dot(q, k, true);
      EXPECT_NEAR(dot(a, b), 1 + s + s * s / 2, 8 * 0x1p-24 * (1 + size + size * size));
      EXPECT_GE(dot(a, b), 0.5 - 1e-5);
    }
  }
}

TEST(feature_map, favor_is_unbiased_and_stable) {
  const index_t D = 8, m = 4000;
  const auto weight = reference::normal<float>({m, D}, 3, 0.0, 1.0);
  const auto maps = mix::favor_plus(mix::tensor_view<const float, 2>(weight), 0.0, 0.0, 1.0);
  const auto q = row(D, 1, 0.25), k = row(D, 2, 0.25);
  const auto a = features(maps.of_queries, q), b = features(maps.of_keys, k);
  double largest = -1e30, key_error = 0;
  for (index_t r = 0; r < m; ++r) {
    double wq = 0, wk = 0, size = 0;
    for (index_t d = 0; d < D; ++d) {
      wq += static_cast<double>(weight(r, d)) * static_cast<double>(q[static_cast<std::size_t>(d)]);
      wk += static_cast<double>(weight(r, d)) * static_cast<double>(k[static_cast<std::size_t>(d)]);
      size += std::abs(static_cast<double>(weight(r, d)) * static_cast<double>(k[static_cast<std::size_t>(d)]));
    }
    largest = std::max(largest, wq);
    const double want = std::exp(wk - dot(k, k) / 2) / std::sqrt(static_cast<double>(m));
    key_error =
        std::max(key_error, std::abs(static_cast<double>(b[static_cast<std::size_t>(r)]) - want) / (want * (1 + size)));
  }
  EXPECT_LE(key_error, 8 * 0x1p-24);
  const double kernel = dot(a, b) * std::exp(largest - dot(q, q) / 2);
  EXPECT_NEAR(kernel / std::exp(dot(q, k)), 1, 0.1);  // 4000 features
  // Rows of any size: relative to the maximum nothing overflows; a constant brings keys into range.
  for (float e : features(maps.of_queries, row(D, 4, 1e3))) EXPECT_TRUE(std::isfinite(e) && e >= 0);
  const auto shifted = mix::favor_plus(mix::tensor_view<const float, 2>(weight), 5.0, 1e-4, 1.0);
  const auto c = features(shifted.of_keys, k);
  for (std::size_t r = 0; r < c.size(); ++r)
    EXPECT_NEAR(c[r], (static_cast<double>(b[r]) * std::exp(-5.0) + 1e-4 / std::sqrt(static_cast<double>(m))),
                1e-6 * static_cast<double>(b[r]) + 1e-9);
}

TEST(feature_map, hedgehog_is_a_softmax) {
  for (const auto& [D, m] :
       std::vector<std::pair<index_t, index_t>>{{1, 1}, {5, 3}, {16, 16}, {33, 40}, {64, 64}, {4, 100}}) {
    const auto weight = reference::normal<float>({m, D}, 3, 0.0, 0.5);
    const mix::hedgehog_features<float> map{mix::tensor_view<const float, 2>(weight)};
    const auto x = row(D, 7);
    const auto got = features(map, x);
    std::vector<double> want(static_cast<std::size_t>(2 * m)), size = want;
    double total = 0;
    for (index_t r = 0; r < m; ++r) {
      double sum = 0, magnitude = 0;
      for (index_t d = 0; d < D; ++d) {
        const double e = static_cast<double>(weight(r, d)) * static_cast<double>(x[static_cast<std::size_t>(d)]);
        sum += e, magnitude += std::abs(e);
      }
      want[static_cast<std::size_t>(r)] = std::exp(sum), want[static_cast<std::size_t>(m + r)] = std::exp(-sum);
      size[static_cast<std::size_t>(r)] = size[static_cast<std::size_t>(m + r)] = magnitude;
      total += std::exp(sum) + std::exp(-sum);
    }
    double largest = *std::max_element(size.begin(), size.end());
    for (std::size_t r = 0; r < got.size(); ++r)
      EXPECT_NEAR(got[r], want[r] / total, 8 * 0x1p-24 * (1 + largest) * want[r] / total) << D << ' ' << m;
  }
}

/// Linear attention with a map is linear attention on the features; states have the width of the features.
template <class Feature>
void expect_kernel(const Feature& map, index_t F) {
  const index_t T = 37, D = 16, Dv = 12;
  const auto q = reference::normal<float>({1, 2, T, D}, 1), k = reference::normal<float>({1, 2, T, D}, 2),
             v = reference::normal<float>({1, 2, T, Dv}, 3);
  mix::tensor<float, 4> fq({1, 2, T, F}), fk = fq, out({1, 2, T, Dv}), want = out, state({1, 2, F, Dv}),
                                          want_state = state;
  for (index_t i = 0; i < 2 * T; ++i) {
    mix::detail::query_feature(map).apply(static_cast<const float*>(q.data() + i * D), fq.data() + i * F, D);
    mix::detail::key_feature(map).apply(static_cast<const float*>(k.data() + i * D), fk.data() + i * F, D);
  }
  mix::linear_attention(q, k, v, out,
                        mix::linear_options{.feature = map, .normalizer = mix::clamped{}, .final_state = state.view()});
  mix::linear_attention(fq, fk, v, want,
                        mix::linear_options{.normalizer = mix::clamped{}, .final_state = want_state.view()});
  cases::expect_same_bits<float, 4>(out, want, "features");
  cases::expect_same_bits<float, 4>(state, want_state, "state");
  for (float e : out) EXPECT_TRUE(std::isfinite(e));
}

TEST(feature_map, kernels_of_linear_attention) {
  const auto weight = reference::normal<float>({20, 16}, 3, 0.0, 0.5);
  const mix::tensor_view<const float, 2> view = weight;
  expect_kernel(mix::taylor_second_order{}, 153);
  expect_kernel(mix::favor_plus(view), 20);
  expect_kernel(mix::hedgehog_features<float>(view), 40);
  const mix::tensor<float, 4> q({1, 2, 3, 15}), v({1, 2, 3, 4});
  mix::tensor<float, 4> out({1, 2, 3, 4});
  try {
    mix::linear_attention(q, q, v, out, mix::linear_options{.feature = mix::hedgehog_features<float>(view)});
    ADD_FAILURE() << "no error";
  } catch (const mix::shape_error& e) {
    EXPECT_NE(std::string(e.what()).find("weight has 16 channels, q and k have 15"), std::string::npos) << e.what();
  }
}

/// Part h of a weight, which feature maps without heads take.
mix::tensor<float, 2> part_of(const mix::tensor<float, 3>& weight, index_t h) {
  mix::tensor<float, 2> part({weight.extent(1), weight.extent(2)});
  std::copy_n(weight.row(h, 0), part.size(), part.data());
  return part;
}

// Every key head has weights of its own, which its group of query heads shares; learned maps may have them per query head.
TEST(feature_map, weights_per_head) {
  const index_t H = 4, Hk = 2, T = 37, D = 16, m = 20, Dv = 12;
  const auto q = reference::normal<float>({1, H, T, D}, 1), k = reference::normal<float>({1, Hk, T, D}, 2),
             v = reference::normal<float>({1, Hk, T, Dv}, 3);
  const auto of_keys = reference::normal<float>({Hk, m, D}, 4, 0.0, 0.5),
             of_queries = reference::normal<float>({H, m, D}, 5, 0.0, 0.5);
  const mix::tensor_view<const float, 3> key_weight = of_keys, query_weight = of_queries;
  const auto expect = [&](const auto& map, auto&& query_map, auto&& key_map, index_t F, const char* what) {
    mix::tensor<float, 4> fq({1, H, T, F}), fk({1, Hk, T, F}), out({1, H, T, Dv}), want = out, step = out;
    for (index_t t = 0; t < T; ++t) {
      for (index_t h = 0; h < H; ++h) query_map(h).apply(static_cast<const float*>(q.row(0, h, t)), fq.row(0, h, t), D);
      for (index_t h = 0; h < Hk; ++h) key_map(h).apply(static_cast<const float*>(k.row(0, h, t)), fk.row(0, h, t), D);
    }
    mix::tensor<float, 4> state({1, Hk, F, Dv}), want_state = state;
    mix::linear_attention(q, k, v, out, mix::linear_options{.feature = map, .final_state = state.view()});
    mix::linear_attention(fq, fk, v, want, mix::linear_options{.final_state = want_state.view()});
    cases::expect_same_bits<float, 4>(out, want, what);
    cases::expect_same_bits<float, 4>(state, want_state, what);
    const mix::tensor<float, 3> beta({1, Hk, T}, 0.1f);
    mix::delta_rule(mix::delta_inputs<float, float, float, 3>{.q = q, .k = k, .v = v, .beta = beta}, out,
                    mix::delta_options{.feature = map, .scale = 1.0});
    mix::delta_rule(mix::delta_inputs<float, float, float, 3>{.q = fq, .k = fk, .v = v, .beta = beta}, want,
                    mix::delta_options{.scale = 1.0});
    cases::expect_same_bits<float, 4>(out, want, what);
  };
  const auto favor = [&](index_t h) {
    const auto part = part_of(of_keys, h);
    return mix::favor_plus(mix::tensor_view<const float, 2>(part), 1.0);
  };
  expect(
      mix::favor_plus(key_weight, 1.0), [&](index_t h) { return favor(h / (H / Hk)).of_queries; },
      [&](index_t h) { return favor(h).of_keys; }, m, "favor+");
  const auto hedgehog = [](const auto& weight, index_t h) {
    const auto part = part_of(weight, h);
    return mix::hedgehog_features<float>(mix::tensor_view<const float, 2>(part));
  };
  using learned = mix::hedgehog_features<float>;
  expect(
      mix::feature_pair<learned, learned>{learned(query_weight), learned(key_weight)},
      [&](index_t h) { return hedgehog(of_queries, h); }, [&](index_t h) { return hedgehog(of_keys, h); }, 2 * m,
      "hedgehog");
  mix::tensor<float, 4> out({1, H, T, Dv});
  try {
    mix::linear_attention(q, k, v, out, mix::linear_options{.feature = learned(query_weight)});
    ADD_FAILURE() << "no error";
  } catch (const mix::shape_error& e) {
    EXPECT_STREQ(e.what(),
                 "weight has 4 heads, k has 2: the number of heads of k must be a multiple of the number of heads of "
                 "weight");
  }
  const mix::feature_pair<learned, mix::as_given> unequal{learned(query_weight), {}};
  EXPECT_THROW(mix::linear_attention(q, k, v, out, mix::linear_options{.feature = unequal}), mix::shape_error);
}

}  // namespace
