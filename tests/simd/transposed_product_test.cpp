// SPDX-License-Identifier: Apache-2.0
// The product with rows transposed in registers has the bits of one fma chain per element, and reads nothing else.
//
// Budget: none, the chains are compared bit for bit. Operands lie flush against forbidden pages.
#include <gtest/gtest.h>
#include <reference/guarded.hpp>
#include <tokenmix/simd/transposed_product.hpp>

#include <cmath>
#include <cstring>
#include <random>

namespace {

using namespace tokenmix;
using reference::flush;
using reference::guarded_buffer;

template <class E>
class transposed_product : public testing::Test {};
#if defined(__SSE2__)
using stored_types = testing::Types<float, double, bfloat16>;
#else
using stored_types = testing::Types<float, double>;
#endif
TYPED_TEST_SUITE(transposed_product, stored_types);

template <class T>
T chain(T a, T b, T c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
  return std::fma(a, b, c);
#else
  volatile T product = a * b;  // rounded by itself
  return product + c;
#endif
}

template <class E, index_t Vectors>
void check(index_t rows, index_t steps, index_t gap, flush side) {
  using T = accumulator_t<E>;
  constexpr index_t width = Vectors * simd::lanes<T>;
  const index_t a_stride = (rows + simd::transposed_rows - 1) / simd::transposed_rows * simd::transposed_rows;
  const index_t b_stride = steps + gap;
  const index_t c_stride = width + 3;
  std::mt19937 random(static_cast<unsigned>(100 * rows + steps));
  std::normal_distribution<float> normal;
  guarded_buffer<T> a(steps * a_stride, side);
  guarded_buffer<E> b(steps == 0 ? 0 : (width - 1) * b_stride + steps, side);
  guarded_buffer<T> c((rows - 1) * c_stride + width, side);
  for (index_t i = 0; i < a.size(); ++i) a[i] = static_cast<T>(normal(random));
  for (index_t i = 0; i < b.size(); ++i) b[i] = E(static_cast<T>(normal(random)));
  for (index_t i = 0; i < c.size(); ++i) c[i] = T(77);
  simd::transposed_product<T, Vectors>(static_cast<const T*>(a.data()), a_stride, rows, static_cast<const E*>(b.data()),
                                       b_stride, steps, c.data(), c_stride);
  for (index_t i = 0; i < rows; ++i) {
    for (index_t w = 0; w < c_stride && i * c_stride + w < c.size(); ++w) {
      T expected = T(77);
      if (w < width) {
        expected = T(0);
        for (index_t s = 0; s < steps; ++s) {
          expected = chain(a[s * a_stride + i], static_cast<T>(b[w * b_stride + s]), expected);
        }
      }
      const T got = c[i * c_stride + w];
      ASSERT_EQ(std::memcmp(&got, &expected, sizeof(T)), 0)
          << rows << " rows, " << steps << " steps, at (" << i << ", " << w << "): " << got << ", not " << expected;
    }
  }
}

TYPED_TEST(transposed_product, is_one_chain_per_element) {
  for (index_t rows = 1; rows <= 9; ++rows) {
    for (index_t steps : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 64, 67}) {
      for (const flush side : {flush::start, flush::end}) {
        check<TypeParam, 1>(rows, steps, 0, side);
        check<TypeParam, 2>(rows, steps, rows % 3, side);
      }
    }
  }
}

}  // namespace
