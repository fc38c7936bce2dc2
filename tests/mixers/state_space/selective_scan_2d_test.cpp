// SPDX-License-Identifier: Apache-2.0
// Selective scans along paths against scans of permuted copies, flipped back and summed; the lists; the errors.
//
// Budget: memcmp where the sum is of the computing type; half a unit of bfloat16 where it is rounded to that.
#include <reference/cases.hpp>
#include <reference/strided.hpp>

#include <tokenmix/mixers/state_space/selective_scan_2d.hpp>
#include <tokenmix/primitives/grid_paths.hpp>

namespace {

using cases::index_t;
using list = std::vector<std::int32_t>;

struct map_operands {
  index_t batch, K, L, D, N;
  mix::tensor<float, 3> x, A;
  mix::tensor<float, 4> delta;
  mix::tensor<float, 5> B, C;
  mix::tensor<float, 2> skip, bias;
  mix::tensor<std::int32_t, 2> paths;

  map_operands(index_t batches, index_t scans, index_t channels, index_t states, mix::tensor<std::int32_t, 2> lists)
      : batch(batches),
        K(scans),
        L(lists.extent(1)),
        D(channels),
        N(states),
        x(reference::normal<float>(mix::extents<3>{batch, L, D}, 1)),
        A(reference::uniform<float>(mix::extents<3>{K, D, N}, 2, -3, 0)),
        delta(reference::normal<float>(mix::extents<4>{batch, K, L, D}, 3)),
        B(reference::normal<float>(mix::extents<5>{batch, K, L, 1, N}, 4)),
        C(reference::normal<float>(mix::extents<5>{batch, K, L, 1, N}, 5)),
        skip(reference::normal<float>(mix::extents<2>{K, D}, 6)),
        bias(reference::normal<float>(mix::extents<2>{K, D}, 7)),
        paths(std::move(lists)) {}

  mix::selective_scan_2d_inputs<float> inputs() const {
    return {.x = x, .delta = delta, .A = A, .B = B, .C = C, .skip = skip, .delta_bias = bias, .paths = paths};
  }

  /// Copies in the order of every path, scanned, put back and added.
  mix::tensor<float, 3> by_copies() const {
    mix::tensor<float, 3> sum({batch, L, D});
    for (index_t k = 0; k < K; ++k) {
      const index_t lists = paths.extent(0);
      const auto at = [&](index_t i) { return static_cast<index_t>(paths(k % lists, k < lists ? i : L - 1 - i)); };
      mix::tensor<float, 3> xs({batch, L, D}), deltas({batch, L, D}), out({batch, L, D});
      mix::tensor<float, 4> Bs({batch, L, 1, N}), Cs({batch, L, 1, N});
      for (index_t b = 0; b < batch; ++b)
        for (index_t i = 0; i < L; ++i) {
          std::copy_n(x.row(b, at(i)), D, xs.row(b, i)), std::copy_n(delta.row(b, k, at(i)), D, deltas.row(b, i));
          std::copy_n(B.row(b, k, at(i)), N, Bs.row(b, i)), std::copy_n(C.row(b, k, at(i)), N, Cs.row(b, i));
        }
      mix::selective_scan(mix::selective_scan_inputs<float>{.x = xs,
                                                            .delta = deltas,
                                                            .A = A.part(k),
                                                            .B = Bs,
                                                            .C = Cs,
                                                            .skip = skip.part(k),
                                                            .delta_bias = bias.part(k)},
                          out.view(), {.delta_form = mix::delta_form::softplus});
      for (index_t b = 0; b < batch; ++b)
        for (index_t i = 0; i < L; ++i)
          for (index_t d = 0; d < D; ++d) sum(b, at(i), d) = k == 0 ? out(b, i, d) : out(b, i, d) + sum(b, at(i), d);
    }
    return sum;
  }
};

TEST(selective_scan_2d, is_the_sum_of_scans_of_permuted_copies) {
  for (const mix::grid g : {mix::grid{1, 1}, mix::grid{5, 7}, mix::grid{14, 14}}) {
    map_operands o(2, 4, 35, 16, mix::cross_paths(g));
    const auto want = o.by_copies();
    mix::tensor<float, 3> out(o.x.shape(), cases::untouched<float>());
    mix::selective_scan_2d(o.inputs(), out.view());
    EXPECT_TRUE(reference::same_bits<float>(out.view(), want.view())) << g.rows;
    cases::delayed_threads threads(3);
    mix::selective_scan_2d(o.inputs(), out.view(), {}, threads);
    EXPECT_TRUE(reference::same_bits<float>(out.view(), want.view()));
    mix::tensor<mix::bfloat16, 3> narrow(o.x.shape());
    mix::selective_scan_2d(o.inputs(), narrow.view());
    for (index_t i = 0; i < want.size(); ++i)
      ASSERT_TRUE(cases::same_bits(narrow.data()[i], mix::bfloat16(want.data()[i])));
  }
}

TEST(selective_scan_2d, snakes_and_windows_one_way) {
  const mix::grid g{6, 5};
  mix::tensor<std::int32_t, 2> lists({3, 30});
  mix::row_snake_path(g, {lists.row(0), 30});
  mix::column_snake_path(g, {lists.row(1), 30});
  mix::window_path(g, {4, 3}, {lists.row(2), 30});
  map_operands o(1, 3, 19, 5, lists);
  mix::tensor<float, 3> out(o.x.shape());
  mix::selective_scan_2d(o.inputs(), out.view(), {.directions = mix::path_directions::forward});
  EXPECT_TRUE(reference::same_bits<float>(out.view(), o.by_copies().view()));
  // No state that reads: every path gives skip x, so the sum does.
  for (float& e : o.C) e = 0;
  mix::selective_scan_2d(o.inputs(), out.view(), {.directions = mix::path_directions::forward});
  for (index_t l = 0; l < 30; ++l)
    for (index_t d = 0; d < 19; ++d)
      EXPECT_NEAR(out(0, l, d), o.x(0, l, d) * (o.skip(0, d) + o.skip(1, d) + o.skip(2, d)), 1e-5);
}

TEST(selective_scan_2d, lists) {
  const auto made = [](auto make, std::size_t n) {
    list path(n);
    make(std::span<std::int32_t>(path));
    return path;
  };
  const mix::grid g{2, 3};
  EXPECT_EQ(made([&](auto p) { mix::row_path(g, p); }, 6), (list{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(made([&](auto p) { mix::column_path(g, p); }, 6), (list{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(made([&](auto p) { mix::row_snake_path(g, p); }, 6), (list{0, 1, 2, 5, 4, 3}));
  EXPECT_EQ(made([&](auto p) { mix::column_snake_path(g, p); }, 6), (list{0, 3, 4, 1, 2, 5}));
  EXPECT_EQ(made([&](auto p) { mix::window_path({3, 3}, {2, 2}, p); }, 9), (list{0, 1, 3, 4, 2, 5, 6, 7, 8}));
  EXPECT_THROW(made([&](auto p) { mix::row_path(g, p); }, 5), std::invalid_argument);
  EXPECT_THROW(made([&](auto p) { mix::window_path(g, {0, 2}, p); }, 6), std::invalid_argument);
}

TEST(selective_scan_2d, errors) {
  map_operands o(1, 4, 8, 4, mix::cross_paths({2, 3}));
  mix::tensor<float, 3> out(o.x.shape(), cases::untouched<float>());
  const auto fails = [&](const mix::selective_scan_2d_options& options, const std::string& message) {
    try {
      mix::selective_scan_2d(o.inputs(), out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.directions = mix::path_directions::forward}, "delta is (1, 4, 6, 8), expected (B, K, L, D) = (1, 2, 6, 8)");
  o.paths(1, 2) = 6;
  fails({}, "paths[1][2] is 6: expected 0 to 5");
  o.paths(1, 2) = -1;
  fails({}, "paths[1][2] is -1: expected 0 to 5");
  o.paths(1, 2) = 0;
  fails({}, "paths[1][2] is 0 as paths[1][0] is");
  for (const float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
