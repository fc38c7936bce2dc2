// SPDX-License-Identifier: Apache-2.0
// Tasks are numbered over sequences without gaps, and each runs once whatever the executor.
//
// Budget: none.
#include <gtest/gtest.h>
#include <tokenmix/core/tasks.hpp>

#include <vector>

namespace {

namespace mix = tokenmix;
using mix::index_t;

struct backwards {
  index_t workers;
  index_t concurrency() const { return workers; }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    for (index_t i = n; i-- > 0;) task(i, i % workers);
  }
};

TEST(tasks, are_numbered_over_sequences) {
  for (const std::vector<index_t>& tasks : {std::vector<index_t>{3, 3, 3}, {0, 2, 0, 5, 1, 0}, {0, 0}, {}, {4}}) {
    mix::scratch_frame frame;
    const mix::detail::task_numbers numbers(static_cast<index_t>(tasks.size()), frame,
                                            [&](index_t i) { return tasks[static_cast<std::size_t>(i)]; });
    index_t task = 0;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      EXPECT_EQ(numbers.first(static_cast<index_t>(i)), task);
      for (index_t n = 0; n < tasks[i]; ++n) EXPECT_EQ(numbers.sequence_of(task++), static_cast<index_t>(i));
    }
    EXPECT_EQ(numbers.total(), task);
  }
}

TEST(tasks, run_once_each) {
  for (const index_t workers : {1, 2, 7}) {
    for (const index_t n : {0, 1, 2, 31, 32, 33, 1000}) {
      backwards on{workers};
      std::vector<int> runs(static_cast<std::size_t>(n), 0);
      mix::detail::run_tasks(
          on, n, [](mix::scratch_frame& frame) { return frame.take<int>(1); },
          [&](index_t i, int* shared) {
            *shared = static_cast<int>(i);  // the frame outlives the task
            ++runs[static_cast<std::size_t>(*shared)];
          });
      for (const int r : runs) ASSERT_EQ(r, 1) << n << " tasks, " << workers << " workers";
    }
  }
}

}  // namespace
