// SPDX-License-Identifier: Apache-2.0
/// @file How the work of a mixer is handed to an executor: tasks numbered over sequences, several per call where they are small.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/types.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A numbering of tasks over sequences: sequence i has tasks [first[i], first[i + 1]).
class task_numbers {
 public:
  /// `tasks_of(i)` is how many tasks sequence i has.
  template <class TasksOf>
  task_numbers(index_t sequences, scratch_frame& frame, TasksOf&& tasks_of)
      : first_(frame.take<index_t>(sequences + 1)), sequences_(sequences) {
    first_[0] = 0;
    for (index_t i = 0; i < sequences; ++i) first_[i + 1] = first_[i] + tasks_of(i);
    each_ = sequences == 0 ? 0 : first_[1];
    for (index_t i = 0; i < sequences && each_ > 0; ++i) {
      if (first_[i + 1] - first_[i] != each_) each_ = 0;
    }
  }

  index_t total() const { return first_[sequences_]; }
  index_t sequence_of(index_t task) const {
    if (each_ > 0) return task / each_;
    return std::upper_bound(first_, first_ + sequences_ + 1, task) - first_ - 1;
  }
  index_t first(index_t i) const { return first_[i]; }

 private:
  index_t* first_;
  index_t sequences_;
  index_t each_;  // tasks of every sequence, 0 if they differ
};

/// Runs tasks [0, n), several per call of the executor where there are many small ones: in each call `prepare(frame)` gives
/// what its tasks share, which `task(i, shared)` then uses.
template <class Executor, class Prepare, class Task>
void run_tasks(Executor& on, index_t n, Prepare&& prepare, Task&& task) {
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t calls = workers == 1 ? std::min<index_t>(n, 1) : std::min(n, workers * 32);
  if (calls == 0) return;
  on.for_each(calls, [&](index_t call, index_t /*worker*/) {
    scratch_frame frame;
    auto shared = prepare(frame);
    for (index_t i = call * n / calls; i < (call + 1) * n / calls; ++i) task(i, shared);
  });
}

template <class Executor, class Task>
void run_tasks(Executor& on, index_t n, Task&& task) {
  run_tasks(on, n, [](scratch_frame&) { return 0; }, [&](index_t i, int) { task(i); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
