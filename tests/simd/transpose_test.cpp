// SPDX-License-Identifier: Apache-2.0
// Transposes move every element where its index says, whole registers or not, and touch no byte too many.

#include <gtest/gtest.h>
#include <reference/guarded.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

namespace {

using namespace tokenmix;
using reference::flush;
using reference::guarded_buffer;

template <class T>
class square : public testing::Test {};
using computing_types = testing::Types<float, double>;
TYPED_TEST_SUITE(square, computing_types);

TYPED_TEST(square, registers_transpose) {
  using T = TypeParam;
  constexpr index_t n = simd::lanes<T>;
  T numbers[static_cast<std::size_t>(n)];
  simd::batch<T> rows[static_cast<std::size_t>(n)];
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < n; ++j) numbers[j] = static_cast<T>(100 * i + j);
    rows[i] = simd::load(numbers);
  }
  simd::transpose(rows);
  for (index_t j = 0; j < n; ++j) {
    simd::store(numbers, rows[j]);
    for (index_t i = 0; i < n; ++i) EXPECT_EQ(numbers[i], static_cast<T>(100 * i + j)) << i << ", " << j;
  }
}

TYPED_TEST(square, memory_transposes_while_it_is_loaded) {
  using T = TypeParam;
  constexpr index_t n = simd::lanes<T>;
  constexpr index_t stride = n + 3;
  guarded_buffer<T> from((n - 1) * stride + n);
  for (index_t i = 0; i < from.size(); ++i) from[i] = static_cast<T>(i);
  simd::batch<T> columns[static_cast<std::size_t>(n)];
  simd::load_transposed(static_cast<const T*>(from.data()), stride, columns);
  for (index_t j = 0; j < n; ++j) {
    T numbers[static_cast<std::size_t>(n)];
    simd::store(numbers, columns[j]);
    for (index_t i = 0; i < n; ++i) EXPECT_EQ(numbers[i], static_cast<T>(i * stride + j)) << i << ", " << j;
  }
}

template <class E>
class rectangle : public testing::Test {};
using storage_types = testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(rectangle, storage_types);

const index_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 65};

// Elements outside the operand, between its rows, would be seen in the result: they are NaN (0xff bytes).
template <class E>
void fill_rows(guarded_buffer<E>& buffer, index_t rows, index_t cols, index_t stride) {
  std::mt19937 random(static_cast<std::mt19937::result_type>(rows * 1000 + cols));
  std::normal_distribution<double> normal;
  for (index_t r = 0; r < rows; ++r) {
    for (index_t c = 0; c < cols; ++c) {
      using T = simd::computed_t<E>;
      buffer[r * stride + c] = simd::to<E>(static_cast<T>(normal(random)));
    }
  }
}

index_t reach(index_t rows, index_t cols, index_t stride) {
  return rows == 0 || cols == 0 ? 0 : (rows - 1) * stride + cols;
}

TYPED_TEST(rectangle, in_and_padded_with_zeros) {
  using E = TypeParam;
  using T = simd::computed_t<E>;
  const T scale = T(0.3);
  for (flush side : {flush::end, flush::start}) {
    for (index_t rows : sizes) {
      for (index_t cols : sizes) {
        const index_t stride = cols + 5;
        const index_t padded = (rows + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
        guarded_buffer<E> from(reach(rows, cols, stride), side);
        fill_rows(from, rows, cols, stride);
        guarded_buffer<T> scaled(cols * padded, side);
        guarded_buffer<T> plain(cols * padded, side);
        simd::transpose_in(from.data(), stride, rows, cols, scaled.data(), padded, scale);
        simd::transpose_in(from.data(), stride, rows, cols, plain.data(), padded);
        for (index_t c = 0; c < cols; ++c) {
          for (index_t r = 0; r < padded; ++r) {
            const T x = r < rows ? static_cast<T>(from[r * stride + c]) : T(0);
            ASSERT_EQ(plain[c * padded + r], x) << rows << "x" << cols << " at " << r << ", " << c;
            ASSERT_EQ(scaled[c * padded + r], x * scale) << rows << "x" << cols << " at " << r << ", " << c;
          }
        }
      }
    }
  }
}

TYPED_TEST(rectangle, out_of_valid_rows_and_columns_only) {
  using E = TypeParam;
  using T = simd::computed_t<E>;
  for (flush side : {flush::end, flush::start}) {
    for (index_t rows : sizes) {
      for (index_t cols : sizes) {
        const index_t from_stride = rows + 3;
        const index_t stride = cols + 2;
        guarded_buffer<T> from(reach(cols, rows, from_stride), side);
        fill_rows(from, cols, rows, from_stride);
        if (from.size() > 0) from[0] = T(-0.0);
        guarded_buffer<T> row_scale(rows, side);
        for (index_t r = 0; r < rows; ++r) row_scale[r] = static_cast<T>(1 + r) / T(7);
        guarded_buffer<E> scaled(reach(rows, cols, stride), side);
        guarded_buffer<E> plain(reach(rows, cols, stride), side);
        simd::transpose_out(from.data(), from_stride, rows, cols, scaled.data(), stride, row_scale.data());
        simd::transpose_out(from.data(), from_stride, rows, cols, plain.data(), stride);
        for (index_t i = 0; i < plain.size(); ++i) {
          const index_t r = i / stride, c = i % stride;
          if (c < cols) {
            const T x = from[c * from_stride + r];
            const E wanted_plain = simd::to<E>(x + T(0)), wanted_scaled = simd::to<E>(x * row_scale[r] + T(0));
            ASSERT_EQ(std::memcmp(&plain[i], &wanted_plain, sizeof(E)), 0)
                << rows << "x" << cols << " " << r << " " << c;
            ASSERT_EQ(std::memcmp(&scaled[i], &wanted_scaled, sizeof(E)), 0)
                << rows << "x" << cols << " " << r << " " << c;
          } else {
            const auto* bytes = reinterpret_cast<const unsigned char*>(&plain[i]);
            ASSERT_EQ(bytes[0] & bytes[sizeof(E) - 1], 0xff) << "between the rows, " << r << ", " << c;
          }
        }
      }
    }
  }
}

}  // namespace
