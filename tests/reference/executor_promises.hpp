// SPDX-License-Identifier: Apache-2.0
/// @file What every executor promises: each task once, workers never twice at a time, everything done at the end.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/types.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <vector>

namespace tokenmix::reference {

/// n tasks, some long, some short. The plain (not atomic) counters are a data race, which a thread sanitizer reports,
/// where two tasks run with one worker at a time or for_each returns early.
template <executor Executor>
void expect_each_task_once(Executor&& on, index_t n, index_t long_tasks = 0) {
  const index_t workers = on.concurrency();
  ASSERT_GE(workers, 1);
  std::vector<index_t> runs(static_cast<std::size_t>(n), 0);
  std::vector<index_t> done_by(static_cast<std::size_t>(workers), 0);
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(workers));
  std::atomic<index_t> faults{0};
  on.for_each(n, [&](index_t task, index_t worker) {
    if (task < 0 || task >= n || worker < 0 || worker >= workers) {
      ++faults;
      return;
    }
    const auto w = static_cast<std::size_t>(worker);
    if (busy[w].fetch_add(1) != 0) ++faults;
    const index_t turns = task < long_tasks ? 20000 : task % 7 * 10;
    for (index_t i = 0; i < turns; ++i) faults.fetch_add(0, std::memory_order_relaxed);
    ++runs[static_cast<std::size_t>(task)];
    ++done_by[w];
    busy[w].fetch_sub(1);
  });
  EXPECT_EQ(faults.load(), 0);
  index_t sum = 0;
  for (index_t count : done_by) sum += count;
  EXPECT_EQ(sum, n);
  for (index_t task = 0; task < n; ++task) ASSERT_EQ(runs[static_cast<std::size_t>(task)], 1) << "task " << task;
}

/// for_each inside a task, on the same executor.
template <executor Executor>
void expect_nested_use(Executor&& on, index_t outer, index_t inner) {
  std::vector<std::atomic<index_t>> runs(static_cast<std::size_t>(outer * inner));
  on.for_each(outer, [&](index_t i, index_t) {
    on.for_each(inner, [&](index_t j, index_t) { ++runs[static_cast<std::size_t>(i * inner + j)]; });
    for (index_t j = 0; j < inner; ++j) {
      if (runs[static_cast<std::size_t>(i * inner + j)].load() != 1) runs[static_cast<std::size_t>(i * inner)] = -1;
    }
  });
  for (const auto& count : runs) ASSERT_EQ(count.load(), 1);
}

template <executor Executor>
void expect_executor_promises(Executor&& on) {
  for (index_t n : {0, 1, 2, 3, 7, 64, 1000}) {
    SCOPED_TRACE(n);
    expect_each_task_once(on, n);
    expect_each_task_once(on, n, 3);
  }
  for (int repeat = 0; repeat < 200; ++repeat) expect_each_task_once(on, 5);
  expect_nested_use(on, 1, 9);
  expect_nested_use(on, 9, 1);
  expect_nested_use(on, 8, 8);
}

}  // namespace tokenmix::reference
