// SPDX-License-Identifier: Apache-2.0
// The calling thread as an executor, and what the concept accepts.
#include <tokenmix/core/execution.hpp>

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "reference/executor_promises.hpp"

namespace mix = tokenmix;
using mix::index_t;

static_assert(mix::executor<mix::calling_thread>);
static_assert(mix::executor<mix::calling_thread&>);
static_assert(mix::executor<const mix::calling_thread&>);
static_assert(!mix::executor<int>);

struct without_for_each {
  index_t concurrency() const { return 1; }
};
static_assert(!mix::executor<without_for_each>);

TEST(calling_thread, keeps_the_promises) { mix::reference::expect_executor_promises(mix::calling_thread{}); }

TEST(calling_thread, runs_in_order_on_this_thread) {
  std::vector<index_t> order;
  const auto here = std::this_thread::get_id();
  mix::calling_thread{}.for_each(5, [&](index_t task, index_t worker) {
    EXPECT_EQ(std::this_thread::get_id(), here);
    EXPECT_EQ(worker, 0);
    order.push_back(task);
  });
  EXPECT_EQ(order, (std::vector<index_t>{0, 1, 2, 3, 4}));
}

TEST(calling_thread, takes_a_task_that_is_neither_copied_nor_moved) {
  struct counter {
    counter() = default;
    counter(const counter&) = delete;
    void operator()(index_t, index_t) { ++count; }
    index_t count = 0;
  } task;
  mix::calling_thread{}.for_each(3, task);
  EXPECT_EQ(task.count, 3);
}
