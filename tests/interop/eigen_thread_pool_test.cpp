// SPDX-License-Identifier: Apache-2.0
// Eigen's thread pool as an executor: each task once, workers unique, nested and simultaneous use, late helpers.
#define EIGEN_USE_THREADS
#include <tokenmix/interop/eigen_thread_pool.hpp>

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>
#include <unsupported/Eigen/CXX11/Tensor>
#include <vector>

#include "reference/executor_promises.hpp"

namespace mix = tokenmix;
using mix::index_t;

namespace {

TEST(eigen_thread_pool, keeps_the_promises) {
  for (int threads : {1, 2, 3, 8}) {
    SCOPED_TRACE(threads);
    Eigen::ThreadPool pool(threads);
    mix::reference::expect_executor_promises(mix::eigen_thread_pool(pool));
    mix::reference::expect_executor_promises(mix::eigen_thread_pool(pool, threads + 1));
  }
}

TEST(eigen_thread_pool, has_as_many_workers_as_asked_for_and_as_the_pool_can_give) {
  Eigen::ThreadPool pool(3);
  EXPECT_EQ(mix::eigen_thread_pool(pool).concurrency(), 3);
  EXPECT_EQ(mix::eigen_thread_pool(pool, 2).concurrency(), 2);
  EXPECT_EQ(mix::eigen_thread_pool(pool, 4).concurrency(), 4);
  EXPECT_EQ(mix::eigen_thread_pool(pool, 99).concurrency(), 4);
  EXPECT_EQ(mix::eigen_thread_pool(pool, 0).concurrency(), 1);
  const Eigen::ThreadPoolDevice device(&pool, 2);
  const mix::eigen_thread_pool on(device);
  EXPECT_EQ(on.concurrency(), 2);
  mix::reference::expect_executor_promises(on);
}

TEST(eigen_thread_pool, really_uses_several_threads) {
  Eigen::ThreadPool pool(2);
  std::atomic<int> inside{0};
  std::atomic<bool> met{false};
  mix::eigen_thread_pool(pool).for_each(2, [&](index_t, index_t) {  // each task waits for the other, for a while
    ++inside;
    for (int i = 0; i < 20000 && inside.load() < 2; ++i) std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (inside.load() == 2) met = true;
  });
  EXPECT_TRUE(met.load());
}

TEST(eigen_thread_pool, may_be_called_from_several_threads_and_from_the_pool_itself) {
  Eigen::ThreadPool pool(2);
  const mix::eigen_thread_pool on(pool);
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        mix::reference::expect_each_task_once(on, 20, 2);
        mix::reference::expect_nested_use(on, 4, 5);
      }
    });
  }
  std::atomic<int> left{2};
  for (int i = 0; i < 2; ++i) {  // all threads of the pool call for_each: nobody is free to help
    pool.Schedule([&] {
      mix::reference::expect_nested_use(on, 6, 6);
      --left;
    });
  }
  for (std::thread& caller : callers) caller.join();
  while (left.load() > 0) std::this_thread::yield();
}

// A pool whose threads come when the test says so: after the call has returned, or at once on the calling thread.
class scripted_pool : public Eigen::ThreadPoolInterface {
 public:
  explicit scripted_pool(bool at_once) : at_once_(at_once) {}
  void Schedule(std::function<void()> f) override {
    if (at_once_) {
      f();
    } else {
      late.push_back(std::move(f));
    }
  }
  int NumThreads() const override { return 4; }
  int CurrentThreadId() const override { return -1; }

  std::vector<std::function<void()>> late;

 private:
  bool at_once_;
};

TEST(eigen_thread_pool, does_not_wait_for_threads_that_do_not_come) {
  scripted_pool pool(false);
  {
    auto task_memory = std::make_unique<std::vector<int>>(10, 0);
    mix::eigen_thread_pool(pool).for_each(10, [&](index_t i, index_t worker) {
      EXPECT_EQ(worker, 0);
      ++task_memory->at(static_cast<std::size_t>(i));
    });
    EXPECT_EQ(*task_memory, std::vector<int>(10, 1));
  }
  EXPECT_EQ(pool.late.size(), 3u);
  for (const auto& f : pool.late) f();  // an address sanitizer watches: the task is gone
}

TEST(eigen_thread_pool, takes_a_pool_that_runs_closures_at_once) {
  scripted_pool pool(true);
  mix::reference::expect_executor_promises(mix::eigen_thread_pool(pool));
}

TEST(eigen_thread_pool, one_task_goes_to_no_other_thread) {
  scripted_pool pool(false);
  mix::reference::expect_each_task_once(mix::eigen_thread_pool(pool), 1);
  mix::reference::expect_each_task_once(mix::eigen_thread_pool(pool), 0);
  EXPECT_TRUE(pool.late.empty());
}

}  // namespace
