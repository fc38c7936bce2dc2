// SPDX-License-Identifier: Apache-2.0
// The weight that every key takes over all queries.
//
// Budget: the sum of the weights' budgets, (2 + D / 64) u p (1 + S + own mass) each; the sum itself is taken in double.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

template <class Mask>
void check(const cases::shape& size, const Mask& mask, const std::function<bool(const mix::index&)>& sees,
           const std::string& name) {
  const cases::operands<> x(size, 1);
  auto problem = problem_of(x);
  problem.mask = sees;
  mix::tensor<float, 3> mass({size.batch, size.heads, size.keys}, cases::untouched<float>());
  mix::attention_column_mass(x.q, x.k, mass, mix::softmax_options{.mask = mask});
  for (index_t b = 0; b < size.batch; ++b)
    for (index_t h = 0; h < size.heads; ++h) {
      std::vector<double> want(static_cast<std::size_t>(size.keys)), gate(want);
      for (index_t t = 0; t < size.queries; ++t) {
        const auto row = reference::softmax_row_of(problem, {b, b, 0, size.queries, 0, size.keys}, h, t);
        double mean = 0;
        for (std::size_t s = 0; s < want.size(); ++s) mean += row.weight[s] * row.mass[s];
        for (std::size_t s = 0; s < want.size(); ++s) {
          want[s] += row.weight[s];
          gate[s] +=
              0x1p-24 * row.weight[s] * std::max(8.0, cases::gate_factor(size.width) * (1 + mean + row.mass[s])) +
              0x1p-126;
        }
      }
      for (index_t s = 0; s < size.keys; ++s) {
        const auto j = static_cast<std::size_t>(s);
        const double got = static_cast<double>(mass(b, h, s));
        ASSERT_NEAR(got, want[j], gate[j] + 0x1p-24 * want[j]) << name << " " << size.text() << " key " << s;
      }
    }
  mix::tensor<float, 3> again(mass.shape());
  mix::attention_column_mass(x.q, x.k, again, mix::softmax_options{.mask = mask}, cases::delayed_threads{4});
  cases::expect_same_bits<float, 3>(again, mass, name + " on threads");
}

TEST(column_mass, of_all_keys_and_causal) {
  for (const cases::shape& size : {cases::shape{2, 4, 2, 70, 70, 16, 8}, cases::shape{1, 2, 1, 1, 300, 16, 8},
                                   cases::shape{1, 3, 1, 130, 520, 64, 8}, cases::shape{1, 2, 2, 60, 20, 16, 8},
                                   cases::shape{1, 2, 1, 0, 5, 8, 8}, cases::shape{1, 2, 1, 5, 0, 8, 8}}) {
    if (cases::reduced_sweep && size.queries > 100) continue;
    check(size, mix::all_keys{}, [](const mix::index&) { return true; }, "all keys");
    check(size, mix::causal{}, [](const mix::index& w) { return w.key <= w.query; }, "causal");
  }
}

// Every query gives a weight of 1 in all; keys that nobody sees get exactly none.
TEST(column_mass, adds_up_to_the_number_of_queries) {
  const cases::operands<> x({1, 2, 1, 50, 90, 16, 8}, 2);
  mix::tensor<float, 3> mass({1, 2, 90});
  mix::attention_column_mass(x.q, x.k, mass, mix::softmax_options{.mask = mix::window{.left = 3, .right = 0}});
  for (index_t h = 0; h < 2; ++h) {
    double total = 0;
    for (index_t s = 0; s < 90; ++s) {
      total += static_cast<double>(mass(0, h, s));
      if (s < 37) {
        EXPECT_TRUE(cases::same_bits(mass(0, h, s), 0.0f)) << s;
      }
    }
    EXPECT_NEAR(total, 50, 50 * 8 * 0x1p-24);
  }
}

}  // namespace
