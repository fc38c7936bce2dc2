// SPDX-License-Identifier: Apache-2.0
// OpenMP's threads as an executor. Compiled with -fopenmp; without, there is nothing to test and the program says so.
#include <gtest/gtest.h>

#ifdef _OPENMP

#include <tokenmix/interop/openmp.hpp>

#include <atomic>
#include <chrono>
#include <thread>

#include "reference/executor_promises.hpp"

namespace mix = tokenmix;
using mix::index_t;

namespace {

TEST(openmp_threads, keeps_the_promises) {
  for (index_t threads : {1, 2, 3, 8}) {
    SCOPED_TRACE(threads);
    mix::reference::expect_executor_promises(mix::openmp_threads{threads});
  }
  mix::reference::expect_executor_promises(mix::openmp_threads{});
}

TEST(openmp_threads, has_as_many_workers_as_asked_for) {
  EXPECT_EQ(mix::openmp_threads{5}.concurrency(), 5);
  EXPECT_EQ(mix::openmp_threads{0}.concurrency(), 1);
  EXPECT_EQ(mix::openmp_threads{}.concurrency(), omp_get_max_threads());
}

TEST(openmp_threads, really_uses_several_threads) {
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  mix::openmp_threads{2}.for_each(2, [&](index_t, index_t) {  // each task waits for the other, for a while
    ++inside;
    for (int i = 0; i < 20000 && inside.load() < 2; ++i) std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (inside.load() == 2) met = true;
  });
  EXPECT_TRUE(met.load());
}

TEST(openmp_threads, may_be_called_inside_a_parallel_region) {
#pragma omp parallel num_threads(3)
  mix::reference::expect_each_task_once(mix::openmp_threads{4}, 50, 3);
}

}  // namespace

#else

TEST(openmp_threads, is_not_tested_without_openmp) { GTEST_SKIP() << "compiled without -fopenmp"; }

#endif
