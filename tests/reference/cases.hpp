// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of all mixers share: random operands, comparison of bits, executors with unusual schedules.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <tokenmix/tensor.hpp>

#include <reference/exact.hpp>
#include <reference/random.hpp>

namespace mix = tokenmix;
namespace reference = tokenmix::reference;

namespace cases {

using mix::index_t;

#if defined(TOKENMIX_REDUCED_SWEEP)
inline constexpr bool reduced_sweep = true;
#else
inline constexpr bool reduced_sweep = false;
#endif

/// The shared source of random numbers, with what these tests draw.
class random_numbers : public reference::random_source {
 public:
  using random_source::random_source;

  double gaussian() { return normal(); }
  bool chance(double probability) { return unit() < probability; }
  template <class Values>
  auto one_of(const Values& values) {
    return *(std::begin(values) + integer(0, static_cast<index_t>(std::size(values)) - 1));
  }
};

template <class E>
E element_of(double value) {
  if constexpr (std::is_arithmetic_v<E>) {
    return static_cast<E>(value);
  } else {
    return E(static_cast<float>(value));
  }
}

/// Gaussian, so asymmetric in every finite sample: no two rows or channels are alike.
template <class E, std::size_t R>
void fill_random(const mix::tensor_view<E, R>& view, random_numbers& random, double amplitude = 1) {
  reference::for_each_element(view, [&](E& element) { element = element_of<E>(amplitude * random.gaussian()); });
}

/// A NaN that no computation makes, so that an element nobody wrote is recognised.
template <class E>
E untouched() {
  if constexpr (std::is_same_v<E, float>) {
    return std::bit_cast<float>(0x7fc5a5a5u);
  } else if constexpr (std::is_same_v<E, double>) {
    return std::bit_cast<double>(std::uint64_t{0x7ff8a5a5a5a5a5a5u});
  } else {
    return E::from_bits(0x7fe5);
  }
}

template <class E>
bool same_bits(const E& a, const E& b) {
  return std::memcmp(&a, &b, sizeof(E)) == 0;
}

/// How far a comparison went beyond 1 = the gate; the largest of a whole test is reported when it ends.
struct gate_record {
  double worst = 0;
  std::string where;

  void see(double ratio, const std::string& what) {
    if (ratio > worst) worst = ratio, where = what;
  }
};

/// memcmp of two tensors of one shape, with the first difference in the message.
template <class E, std::size_t R>
void expect_same_bits(const mix::tensor_view<const E, R>& got, const mix::tensor_view<const E, R>& expected,
                      const std::string& label) {
  ASSERT_EQ(got.shape(), expected.shape()) << label;
  mix::extents<R> at{};
  index_t differences = 0;
  for (index_t n = 0; n < got.size(); ++n) {
    index_t from_got = 0, from_expected = 0;
    for (std::size_t axis = 0; axis < R; ++axis) {
      from_got += at[axis] * got.stride(axis);
      from_expected += at[axis] * expected.stride(axis);
    }
    const E a = got.data()[from_got], b = expected.data()[from_expected];
    if (!same_bits(a, b) && ++differences == 1) {
      std::string where;
      for (index_t i : at) where += " " + std::to_string(i);
      ADD_FAILURE() << label << ": differs first at" << where << ": " << reference::exact<double>(a) << " and "
                    << reference::exact<double>(b);
    }
    for (std::size_t axis = R; axis-- > 0;) {
      if (++at[axis] < got.extent(axis)) break;
      at[axis] = 0;
    }
  }
  EXPECT_EQ(differences, 0) << label << ": elements with other bits, of " << got.size();
}

/// n threads that take tasks in the order they come, each after a random short delay: schedules that no machine repeats.
class delayed_threads {
 public:
  explicit delayed_threads(index_t n, std::uint64_t seed = 1) : n_(n), seed_(seed) {}

  index_t concurrency() const { return n_; }

  template <class Task>
  void for_each(index_t count, Task&& task) {
    std::atomic<index_t> next{0};
    const auto work = [&](index_t worker) {
      random_numbers random(seed_ * 1000 + static_cast<std::uint64_t>(worker));
      for (;;) {
        if (random.chance(0.25)) std::this_thread::sleep_for(std::chrono::microseconds(random.integer(0, 40)));
        const index_t i = next.fetch_add(1);
        if (i >= count) return;
        task(i, worker);
      }
    };
    std::vector<std::thread> threads;
    for (index_t worker = 1; worker < n_; ++worker) threads.emplace_back(work, worker);
    work(0);
    for (std::thread& t : threads) t.join();
    ++seed_;
  }

 private:
  index_t n_;
  std::uint64_t seed_;
};

/// Runs tasks from the last to the first, with changing workers: order and worker must not matter.
class backwards {
 public:
  index_t concurrency() const { return 3; }
  template <class Task>
  void for_each(index_t count, Task&& task) {
    for (index_t i = count; i-- > 0;) task(i, (i * 2 + 1) % 3);
  }
};

/// A call that the library refuses: what it says holds the message.
template <class F>
void expect_refused(F&& call, const std::string& message) {
  try {
    call();
    ADD_FAILURE() << "not refused: " << message;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
  }
}

}  // namespace cases
