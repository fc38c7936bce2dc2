// SPDX-License-Identifier: Apache-2.0
/// @file Who runs the tiles: the executor concept, and the calling thread as the default.
#pragma once

#include <tokenmix/core/types.hpp>

#include <concepts>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {
struct any_task {
  void operator()(index_t /*task*/, index_t /*worker*/) const noexcept {}
};
}  // namespace detail

/// Runs independent tasks, possibly on several threads.
///
///     on.concurrency()   the number of workers, >= 1; the same for the whole of a call
///     on.for_each(n, f)  calls f(task, worker) once for every task in [0, n), returns when all are done; two calls
///                        of one for_each that run at the same time have different workers in [0, concurrency())
///
/// What tasks wrote is visible after for_each. Tasks do not throw and do not wait for each other, so an executor may
/// run them in any order; a task may itself call for_each. No result of the library depends on which executor ran it.
template <class Executor>
concept executor = requires(std::remove_reference_t<Executor>& on, index_t n, detail::any_task f) {
  { on.concurrency() } -> std::convertible_to<index_t>;
  on.for_each(n, f);
};

/// The executor that runs every task on the thread that calls, in order.
struct calling_thread {
  static constexpr index_t concurrency() { return 1; }

  template <class Task>
  void for_each(index_t n, Task&& task) const {
    for (index_t i = 0; i < n; ++i) task(i, index_t{0});
  }
};

static_assert(executor<calling_thread>);

}  // namespace tokenmix::inline TOKENMIX_ABI
