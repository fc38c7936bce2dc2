// SPDX-License-Identifier: Apache-2.0
// T5's buckets against the published formula, in float as published and in exact integers; the bias against a look-up.
#include <gtest/gtest.h>
#include <tokenmix/primitives/score/t5_bias.hpp>

#include <algorithm>

#include <primitives/score/score_cases.hpp>

namespace mix = tokenmix;
using namespace score_cases;

namespace {

// The authors' _relative_position_bucket, line by line, in the float arithmetic that it was published in.
index_t published(index_t relative_position, bool bidirectional, index_t num_buckets, index_t max_distance) {
  index_t ret = 0;
  index_t n = -relative_position;
  if (bidirectional) {
    num_buckets /= 2;
    ret += n < 0 ? num_buckets : 0;
    n = std::abs(n);
  } else {
    n = std::max<index_t>(n, 0);
  }
  const index_t max_exact = num_buckets / 2;
  if (n < max_exact) return ret + n;
  const float ratio = std::log(static_cast<float>(n) / static_cast<float>(max_exact)) /
                      static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(max_exact)));
  const auto large = max_exact + static_cast<index_t>(ratio * static_cast<float>(num_buckets - max_exact));
  return ret + std::min(large, num_buckets - 1);
}

// A whole number of any size, of which only products and comparison are needed.
class whole {
 public:
  whole& operator*=(index_t factor) {
    std::uint64_t carry = 0;
    for (std::uint32_t& digit : digits_) {
      carry += std::uint64_t{digit} * static_cast<std::uint64_t>(factor);
      digit = static_cast<std::uint32_t>(carry);
      carry >>= 32;
    }
    if (carry != 0) digits_.push_back(static_cast<std::uint32_t>(carry));
    return *this;
  }
  bool operator>=(const whole& other) const {
    if (digits_.size() != other.digits_.size()) return digits_.size() > other.digits_.size();
    return !std::lexicographical_compare(digits_.rbegin(), digits_.rend(), other.digits_.rbegin(),
                                         other.digits_.rend());
  }
  static whole power(index_t base, index_t exponent) {
    whole result;
    for (index_t i = 0; i < exponent; ++i) result *= base;
    return result;
  }

 private:
  std::vector<std::uint32_t> digits_{1};
};

// floor((m log(n / e)) / log(d / e)) >= b   <=>   (n / e)^m >= (d / e)^b   <=>   n^m e^b >= d^b e^m
bool reaches(index_t n, index_t e, index_t d, index_t m, index_t b) {
  whole left = whole::power(n, m);
  for (index_t i = 0; i < b; ++i) left *= e;
  whole right = whole::power(d, b);
  for (index_t i = 0; i < m; ++i) right *= e;
  return left >= right;
}

TEST(T5Bucket, IsThePublishedFormula) {
  // Where float loses no whole quotient, which is so for what was published: 32 buckets, 128 tokens.
  for (index_t relative = -3000; relative <= 3000; ++relative) {
    EXPECT_EQ(mix::t5_bucket(relative, 32, 128, mix::t5_sides::both), published(relative, true, 32, 128)) << relative;
    EXPECT_EQ(mix::t5_bucket(relative, 32, 128, mix::t5_sides::past), published(relative, false, 32, 128)) << relative;
  }
  // Spelled out: exact up to 7, then 8-11, 12-15, 16-22, 23-31, 32-45, 46-63, 64-90, 91 and more.
  for (const auto& [n, bucket] : std::vector<std::pair<index_t, index_t>>{{0, 0},
                                                                          {7, 7},
                                                                          {8, 8},
                                                                          {11, 8},
                                                                          {12, 9},
                                                                          {15, 9},
                                                                          {16, 10},
                                                                          {22, 10},
                                                                          {23, 11},
                                                                          {31, 11},
                                                                          {32, 12},
                                                                          {45, 12},
                                                                          {46, 13},
                                                                          {63, 13},
                                                                          {64, 14},
                                                                          {90, 14},
                                                                          {91, 15},
                                                                          {127, 15},
                                                                          {128, 15}}) {
    EXPECT_EQ(mix::t5_bucket(-n, 32, 128, mix::t5_sides::both), bucket) << n;
    if (n == 0) continue;
    EXPECT_EQ(mix::t5_bucket(n, 32, 128, mix::t5_sides::both), 16 + bucket) << n;
  }
  EXPECT_EQ(mix::t5_bucket(1, 32, 128, mix::t5_sides::past), 0);
  EXPECT_EQ(mix::t5_bucket(index_t{1} << 60, 32, 128, mix::t5_sides::both), 31);
  EXPECT_EQ(mix::t5_bucket(-(index_t{1} << 60), 32, 128, mix::t5_sides::past), 31);
}

TEST(T5Bucket, IsExact) {
  // Powers of two, of three and ten give whole quotients, the place where rounded logarithms fall into the wrong bucket.
  for (index_t buckets : {2, 3, 6, 8, 18, 20, 32, 34, 64}) {
    const index_t exact = buckets / 2;
    const index_t m = buckets - exact;
    for (index_t max_distance :
         {exact + 1, 8 * exact, 9 * exact, 27 * exact, 100 * exact, index_t{128}, index_t{2048}}) {
      if (max_distance <= exact) continue;
      for (index_t n = exact; n <= std::min<index_t>(max_distance + 2, 700); ++n) {
        const index_t bucket = mix::t5_bucket(-n, buckets, max_distance, mix::t5_sides::past);
        ASSERT_GE(bucket, exact);
        ASSERT_LT(bucket, buckets);
        EXPECT_TRUE(reaches(n, exact, max_distance, m, bucket - exact))
            << n << " of " << buckets << ", " << max_distance;
        if (bucket + 1 < buckets) {
          EXPECT_FALSE(reaches(n, exact, max_distance, m, bucket + 1 - exact))
              << n << " of " << buckets << ", " << max_distance;
        }
        EXPECT_EQ(mix::t5_bucket(-n, 2 * buckets, max_distance, mix::t5_sides::both), bucket);
        EXPECT_EQ(mix::t5_bucket(n, 2 * buckets, max_distance, mix::t5_sides::both), bucket + buckets);
      }
    }
  }
}

template <class T, class E>
void sweep() {
  unsigned seed = 10;
  for (const shape& s : shapes) {
    for (bool both : {true, false}) {
      for (index_t heads : {s.heads, index_t{1}}) {
        const guarded_table<E, 2> guarded({heads, 12}, ++seed,
                                          both ? mix::reference::flush::end : mix::reference::flush::start);
        const auto table = guarded.view();
        const mix::t5_bias<E> m{
            .table = table, .sides = both ? mix::t5_sides::both : mix::t5_sides::past, .max_distance = 20};
        // The table's number is exact as T; the sum is rounded once.
        expect_everywhere<T>(m, s, 1.0, [&](double score, const mix::index& w) {
          const index_t bucket = published(w.key - w.query, both, 12, 20);
          return score +
                 static_cast<double>(static_cast<mix::accumulator_t<E>>(table(heads == 1 ? 0 : w.head, bucket)));
        });
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(T5Bias, Float) { sweep<float, float>(); }
TEST(T5Bias, Double) { sweep<double, double>(); }
TEST(T5Bias, Bfloat16) { sweep<float, mix::bfloat16>(); }

TEST(T5Bias, CheckpointsTableThroughStrides) {
  const guarded_table<float, 2> embedding({32, 3}, 5);  // (buckets, H)
  const auto table = embedding.view().permuted({1, 0});
  expect_everywhere<float>(mix::t5_bias{table}, {1, 3, 20, 25}, 1.0, [&](double score, const mix::index& w) {
    return score + static_cast<double>(embedding.view()(published(w.key - w.query, true, 32, 128), w.head));
  });
}

TEST(T5Bias, Errors) {
  const mix::tensor<float, 2> table({3, 32});
  mix::t5_bias{table.view()}.check(1, 3, 1, 1);
  expect_error<mix::shape_error>([&] { mix::t5_bias{table.view()}.check(1, 6, 1, 1); }, "t5_bias.table has 3 heads");
  const mix::tensor<float, 2> small({1, 3});
  expect_error<mix::shape_error>([&] { mix::t5_bias{small.view()}.check(1, 6, 1, 1); },
                                 "t5_bias.table has 3 buckets, expected at least 4");
  mix::t5_bias{small.view(), mix::t5_sides::past}.check(1, 6, 1, 1);
  expect_error<mix::value_error>([&] { mix::t5_bias{.table = table.view(), .max_distance = 8}.check(1, 3, 1, 1); },
                                 "t5_bias.max_distance is 8: it must be larger than the 8");
}

}  // namespace
