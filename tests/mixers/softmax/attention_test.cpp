// SPDX-License-Identifier: Apache-2.0
// Softmax attention over all keys in float against the oracle: every shape at the borders of tiles, leaves and registers.
//
// Budget: (2 + D / 64) u A (1 + S) per element and 2e-6 in the relative root mean square, at every shape and length;
// expect_within_gate says where the terms come from. Gaussian data: with values of one sign the chain of additions
// inside a leaf would not average out and would need a wider gate.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

cases::gate_record record;

void check(const cases::shape& size, std::uint64_t seed, double amplitude = 1) {
  cases::operands<> x(size, seed, amplitude);
  const std::string label = size.text() + " seed " + std::to_string(seed) + " amplitude " + std::to_string(amplitude);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
  const auto expected = reference::softmax_attention(problem_of(x));
  expect_within_gate<float, float, float>(x.out, x, expected, label, 1, &record);
  expect_lse_within_gate(x, expected, label);
  if (amplitude <= 1 && x.out.size() >= 64) {
    EXPECT_LE(cases::relative_rms(x.out, expected), 2e-6) << label;
  }
}

TEST(attention, every_number_of_queries_and_keys_at_the_borders_of_tiles) {
  const std::vector<index_t> borders =
      cases::reduced_sweep ? std::vector<index_t>{0, 1, 2, 3, 15, 16, 17, 33, 65}
                           : std::vector<index_t>{0,  1,  2,  3,  4,  5,  7,  8,  9,  15, 16, 17, 23, 24,
                                                  25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97};
  std::uint64_t seed = 1;
  for (index_t t : borders)
    for (index_t s : borders) check({1, 2, 1, t, s, 16, 24}, ++seed);
}

TEST(attention, key_counts_at_the_borders_of_leaves) {
  const std::vector<index_t> keys = cases::reduced_sweep
                                        ? std::vector<index_t>{255, 256, 257, 769}
                                        : std::vector<index_t>{127, 128, 129, 255,  256,  257,  511,  512, 513,
                                                               767, 768, 769, 1023, 1025, 1279, 1537, 1793};
  std::uint64_t seed = 1000;
  for (index_t s : keys)
    for (index_t t : {1, 5, 49}) check({1, 2, 2, t, s, 32, 32}, ++seed);
}

TEST(attention, every_width) {
  const std::vector<index_t> widths =
      cases::reduced_sweep
          ? std::vector<index_t>{1, 3, 8, 17, 64, 130}
          : std::vector<index_t>{1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65, 80, 128, 192, 256, 512};
  std::uint64_t seed = 2000;
  for (index_t d : widths) {
    for (index_t dv : widths) {
      ++seed;
      check({1, 2, 1, 1 + static_cast<index_t>(seed % 2) * 18, 37, d, dv}, seed);
    }
  }
}

TEST(attention, every_grouping_of_heads) {
  std::uint64_t seed = 3000;
  for (index_t kv_heads : {1, 2, 3, 5, 7, 24})
    for (index_t group : {1, 2, 3, 5, 7, 24})
      for (index_t t : {1, 3, 18}) {
        if (cases::reduced_sweep && (kv_heads > 3 || group > 5)) continue;
        check({1, kv_heads * group, kv_heads, t, 40, 8, 8}, ++seed);
      }
}

TEST(attention, every_batch_size_and_empty_dimensions) {
  std::uint64_t seed = 4000;
  for (index_t batch : {0, 1, 2, 3})
    for (index_t heads : {0, 1, 2})
      for (index_t t : {0, 1, 17})
        for (index_t s : {0, 1, 33})
          for (index_t d : {0, 1, 8})
            for (index_t dv : {0, 1, 9}) check({batch, heads, heads, t, s, d, dv}, ++seed);
}

TEST(attention, no_keys_give_exact_zeros) {
  cases::operands<> x({2, 3, 1, 19, 0, 8, 9}, 1);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
  for (float y : x.out) EXPECT_TRUE(cases::same_bits(y, 0.0f));  // +0, not -0
  for (float y : x.lse) EXPECT_EQ(y, -std::numeric_limits<float>::infinity());
}

// The gate holds at any amplitude: sharp rows (one key takes all) as well as flat ones.
TEST(attention, amplitudes_of_scores) {
  std::uint64_t seed = 5000;
  for (double amplitude : {0.0, 1e-30, 1e-3, 0.25, 4.0, 16.0, 64.0, 1e3, 1e6})
    for (index_t s : {7, 64, 300}) check({1, 2, 2, 20, s, 64, 16}, ++seed, amplitude);
}

// Scores of up to +-1e30 * 30 without overflow of exp: every row is one-hot or shared between equal keys.
TEST(attention, scores_far_beyond_the_range_of_exp) {
  for (double amplitude : {1e2, 1e4, 1e30}) check({1, 1, 1, 33, 70, 16, 16}, 77, amplitude);
}

// Adding one number to all scores of a row changes nothing but rounding: the last channel of q times a constant channel of k.
TEST(attention, shifting_all_scores_of_a_row_stays_within_the_gate) {
  for (float shift : {-300.0f, -88.0f, 88.0f, 300.0f, 5000.0f}) {
    cases::operands<> x({1, 2, 2, 21, 75, 16, 16}, 78);
    for (index_t h = 0; h < 2; ++h) {
      for (index_t t = 0; t < 21; ++t) x.q(0, h, t, 15) = 4 * shift;
      for (index_t s = 0; s < 75; ++s) x.k(0, h, s, 15) = 1;
    }
    mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
    const auto expected = reference::softmax_attention(problem_of(x));
    expect_within_gate<float, float, float>(x.out, x, expected, "shift " + std::to_string(shift));
    expect_lse_within_gate(x, expected, "shift " + std::to_string(shift));
  }
}

TEST(attention, scale_is_an_option) {
  std::uint64_t seed = 6000;
  for (double scale : {1.0, 0.125, 0.3, -1.0, 0.0, 2.5}) {
    cases::operands<> x({1, 2, 1, 18, 50, 24, 8}, ++seed);
    mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.scale = scale, .lse = x.lse.view()});
    auto problem = problem_of(x);
    problem.scale = scale;
    const auto expected = reference::softmax_attention(problem);
    expect_within_gate<float, float, float>(x.out, x, expected, "scale " + std::to_string(scale), 1, &record);
    expect_lse_within_gate(x, expected, "scale " + std::to_string(scale));
  }
}

// A weighted mean of values that are all c is c: with u per addition in a leaf of 256 and per level of the tree.
TEST(attention, equal_values_come_out_as_they_went_in) {
  for (index_t s : {1, 2, 255, 256, 257, 1000}) {
    cases::operands<> x({1, 1, 1, 17, s, 16, 8}, 79);
    for (float& y : x.v) y = 0.7f;
    mix::softmax_attention(x.q, x.k, x.v, x.out);
    for (float y : x.out) EXPECT_NEAR(y, 0.7f, 0.7 * 32 * 0x1p-24) << s;  // 6 sigma of a random walk of 256 roundings
  }
}

// Shapes drawn at random; the seed in a failure's label replays it.
TEST(attention, random_shapes) {
  cases::random_numbers random(20240607);
  const int count = cases::reduced_sweep ? 60 : 1000;
  for (int n = 0; n < count; ++n) {
    cases::shape size;
    size.batch = random.integer(1, 2);
    size.kv_heads = random.integer(1, 3);
    size.heads = size.kv_heads * random.integer(1, 4);
    size.queries = random.integer(0, 40);
    size.keys = random.chance(0.2) ? random.integer(200, 600) : random.integer(0, 90);
    size.width = random.chance(0.1) ? random.integer(65, 200) : random.integer(1, 64);
    size.value_width = random.chance(0.1) ? random.integer(65, 200) : random.integer(1, 64);
    check(size, 100000 + static_cast<std::uint64_t>(n), random.one_of(std::vector<double>{0.1, 1, 1, 4}));
  }
}

TEST(attention, worst_error_over_gate) {
  RecordProperty("worst_error_over_gate", std::to_string(record.worst));
  std::printf("worst error: %.3f of its gate, at %s\n", record.worst, record.where.c_str());
}

}  // namespace
