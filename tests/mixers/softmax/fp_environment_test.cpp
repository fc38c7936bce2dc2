// SPDX-License-Identifier: Apache-2.0
// The processor's floating-point state is left as it was found; denormals cost little; what flushing them to zero changes.
//
// Budget: control bits equal; denormal-heavy input within 1.5 times the time of normal input (3 times asserted, for busy
// machines); with flush-to-zero the difference stays below what the flushed numbers were worth: A 2^-126 per weight.
#include <mixers/softmax/softmax_cases.hpp>

#include <cfenv>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using cases::index_t;

/// The control bits: rounding, flushing, masks of exceptions; flags of what happened are not among them.
std::uint64_t control_bits() {
#if defined(__x86_64__)
  return _mm_getcsr() & ~0x3fu;
#elif defined(__aarch64__)
  std::uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
#endif
}

void attend(cases::operands<>& x) {
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mix::causal{}, .lse = x.lse.view()});
}

TEST(fp_environment, control_bits_stay) {
  const std::uint64_t before = control_bits();
  for (index_t t : {1, 70}) {
    cases::operands<> x({1, 2, 1, t, 300, 16, 16}, 1);
    attend(x);
    EXPECT_EQ(control_bits(), before);
  }
  EXPECT_EQ(std::fegetround(), FE_TONEAREST);
}

double seconds(cases::operands<>& x) {
  double best = 1e9;
  for (int n = 0; n < 7; ++n) {
    const auto start = std::chrono::steady_clock::now();
    attend(x);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Weights far below FLT_MIN (scores of -90 to -110 beside a 0) are +0, not denormals, so V meets no denormal product by them.
TEST(fp_environment, small_weights_cost_no_more_than_large_ones) {
  for (index_t t : {1, 128}) {
    cases::operands<> normal({1, 4, 1, t, 1024, 64, 64}, 2);
    cases::operands<> tiny = normal;
    for (index_t h = 0; h < 4; ++h)
      for (index_t row = 0; row < t; ++row)
        for (index_t i = 0; i < 64; ++i) tiny.q(0, h, row, i) = i == 0 ? 8.0f : 0.0f;
    for (index_t s = 0; s < 1024; ++s) tiny.k(0, 0, s, 0) = s % 256 == 0 ? 0.0f : -86.0f - static_cast<float>(s % 32);
    attend(normal);
    attend(tiny);
    const double ratio = seconds(tiny) / seconds(normal);
    RecordProperty("ratio_weights_T" + std::to_string(t), std::to_string(ratio));
    std::printf("T %td: small weights take %.2f times the time\n", t, ratio);
    if (!cases::reduced_sweep) {
      EXPECT_LT(ratio, 3.0);
    }
  }
}

// The weight of a score x below ln(FLT_MIN) relative to the largest is exactly +0.
TEST(fp_environment, weights_below_the_normal_range_are_zero) {
  for (index_t t : {1, 20}) {
    cases::operands<> x({1, 1, 1, t, 2, 1, 1}, 3);
    for (index_t row = 0; row < t; ++row) x.q(0, 0, row, 0) = 1;
    x.k(0, 0, 0, 0) = 0;
    x.v(0, 0, 0, 0) = 0;
    for (float far : {-87.5f, -88.0f, -95.0f, -103.0f, -104.0f, -200.0f}) {
      x.k(0, 0, 1, 0) = far;
      x.v(0, 0, 1, 0) = 3e38f;  // any weight would show
      mix::softmax_attention(x.q, x.k, x.v, x.out);
      for (float y : x.out) EXPECT_TRUE(cases::same_bits(y, 0.0f)) << far << " gives " << static_cast<double>(y);
    }
    x.k(0, 0, 1, 0) = -86.5f;  // above 2^-125, below which a weight may be zero already
    mix::softmax_attention(x.q, x.k, x.v, x.out);
    const double weight = std::exp(-86.5);
    for (float y : x.out) EXPECT_NEAR(static_cast<double>(y), 3e38 * weight, 3e38 * weight * 2e-5);
  }
}

#if defined(__x86_64__)
class flushing {
 public:
  flushing() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }  // FTZ and DAZ
  ~flushing() { _mm_setcsr(before_); }
  flushing(const flushing&) = delete;
  flushing& operator=(const flushing&) = delete;

 private:
  unsigned before_;
};

// Flush-to-zero in force when the call comes: it stays in force, and ordinary data give the same bits.
TEST(fp_environment, flushing_changes_no_bit_of_ordinary_data) {
  for (index_t t : {1, 70}) {
    cases::operands<> x({1, 2, 1, t, 600, 32, 16}, 4);
    attend(x);
    const mix::tensor<float, 4> plain = x.out;
    x.forget_results();
    {
      const flushing on;
      const std::uint64_t before = control_bits();
      attend(x);
      EXPECT_EQ(control_bits(), before);
    }
    cases::expect_same_bits<float, 4>(x.out, plain, "under flush-to-zero");
  }
}

// Without flushing, denormal values are numbers like others; with it they count as zero.
TEST(fp_environment, denormal_values) {
  cases::operands<> x({1, 1, 1, 20, 40, 8, 8}, 5);
  for (float& v : x.v) v *= 1e-40f;
  mix::softmax_attention(x.q, x.k, x.v, x.out);
  const auto expected = reference::softmax_attention(problem_of(x));
  for (index_t i = 0; i < x.out.size(); ++i)  // 40 products and sums, each rounded to a multiple of 2^-149
    EXPECT_NEAR(static_cast<double>(x.out.data()[i]), expected.out[static_cast<std::size_t>(i)], 42 * 0x1p-149);
  const flushing on;
  mix::softmax_attention(x.q, x.k, x.v, x.out);
  for (float y : x.out) EXPECT_EQ(y, 0.0f);
}
#endif

}  // namespace
