// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of scans share: lengths at the borders of blocks, threads, comparison with the oracle.
#pragma once

#include <tokenmix/scan.hpp>

#include <gtest/gtest.h>

#include <reference/random.hpp>
#include <reference/scan_oracle.hpp>
#include <reference/strided.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace cases {

namespace mix = tokenmix;
namespace reference = tokenmix::reference;
using tokenmix::index_t;

#if defined(TOKENMIX_REDUCED_SWEEP)
inline constexpr bool reduced_sweep = true;
#else
inline constexpr bool reduced_sweep = false;
#endif

/// Lengths around registers and blocks.
inline std::vector<index_t> lengths() {
  if (reduced_sweep) return {0, 1, 5, 17, 128, 131, 290, 1100};
  return {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 100, 127, 128, 129, 131, 255, 256, 257, 300, 513, 1300, 2200};
}

/// Threads of its own for every loop, tasks dealt out in a scrambled order.
struct scrambled_threads {
  index_t threads = 3;

  index_t concurrency() const { return threads; }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    if (threads == 1) {
      for (index_t i = n - 1; i >= 0; --i) task(i, index_t{0});
      return;
    }
    std::vector<std::jthread> team;
    for (index_t worker = 0; worker < threads; ++worker) {
      team.emplace_back([=, this, &task] {
        for (index_t i = n - 1 - worker; i >= 0; i -= threads) task(i, worker);
      });
    }
  }
};

template <class E, std::size_t R>
mix::tensor<E, R> marked(const mix::extents<R>& shape) {
  mix::tensor<E, R> result(shape);
  if (result.size() > 0)
    std::memset(static_cast<void*>(result.data()), 0xff, static_cast<std::size_t>(result.size()) * sizeof(E));
  return result;
}

template <class E>
long double number(const E& x) {
  return static_cast<long double>(static_cast<double>(x));
}

template <class T>
constexpr long double unit = static_cast<long double>(std::numeric_limits<T>::epsilon()) / 2;

/// |error| <= (base + log2(n + 1)) u magnitude + what O's own rounding adds, at every step; an element that no
/// segment holds is untouched.
template <class T, class O, std::size_t R>
void expect_within_gate(const mix::tensor<O, R>& out, const std::vector<reference::measured>& expected,
                        const std::vector<index_t>& position, long double base, const std::string& label) {
  ASSERT_EQ(static_cast<std::size_t>(out.size()), expected.size()) << label;
  const long double rounding = sizeof(O) == 2 ? (std::is_same_v<O, mix::bfloat16> ? 0x1p-8L : 0x1p-11L) * 1.02L : 0.0L;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const long double got = number(out.data()[i]);
    const auto& want = expected[i];
    if (std::isnan(want.value)) {
      ASSERT_TRUE(std::isnan(got)) << label << ": element " << i << " is " << got << ", expected NaN or nothing";
      continue;
    }
    const long double n = position.empty() ? 4096 : static_cast<long double>(position[i] + 1);
    const long double gate =
        (base + std::log2(n)) * unit<T> * want.magnitude + rounding * (std::abs(want.value) + 1e-9L);
    ASSERT_LE(std::abs(got - want.value), gate + 1e-40L)
        << label << ": element " << i << " is " << got << ", expected " << want.value;
  }
}

/// Offsets of segments of lengths 0, 0, 1, 2, ..., within n steps, with steps before the first and after the last one.
inline std::vector<index_t> some_offsets(index_t n) {
  std::vector<index_t> offsets{std::min<index_t>(n, 2)};
  for (const index_t length : {0, 1, 0, 2, 17, 127, 128, 300}) {
    if (offsets.back() + length + 1 > n) break;
    offsets.push_back(offsets.back() + length);
  }
  return offsets;
}

/// An affine recurrence, inclusive and reverse exclusive, into one tensor each.
struct answers {
  mix::tensor<float, 3> inclusive;
  mix::tensor<float, 3> exclusive;
  explicit answers(const mix::extents<3>& shape) : inclusive(shape), exclusive(shape) {}
};

inline void scan(const mix::tensor_view<const float, 3>& a, const mix::tensor_view<const float, 3>& b,
                 const mix::tensor_view<float, 3>& inclusive, const mix::tensor_view<float, 3>& exclusive, index_t axis,
                 std::span<const index_t> offsets = {}, index_t threads = 1) {
  const mix::affine_view in{.a = a, .b = b};
  const scrambled_threads on{threads};
  mix::inclusive_scan(mix::affine<float>{}, in, inclusive, mix::scan_options{.axis = axis, .offsets = offsets}, on);
  mix::exclusive_scan(mix::affine<float>{}, in, exclusive,
                      mix::scan_options{.axis = axis, .order = mix::order::reverse, .offsets = offsets}, on);
}

struct operands {
  mix::tensor<float, 3> a, b;
  explicit operands(const mix::extents<3>& shape)
      : a(reference::uniform<float>(shape, 1, 0.0, 1.0)), b(reference::uniform<float>(shape, 2)) {}
};

inline void expect_same(const answers& x, const answers& y, const std::string& label) {
  EXPECT_TRUE((reference::same_bits<float, 3>(x.inclusive, y.inclusive))) << label;
  EXPECT_TRUE((reference::same_bits<float, 3>(x.exclusive, y.exclusive))) << label;
}

}  // namespace cases
