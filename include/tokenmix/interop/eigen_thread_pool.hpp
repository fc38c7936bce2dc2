// SPDX-License-Identifier: Apache-2.0
/// @file Eigen's thread pool as an executor.
#pragma once

#include <atomic>
#include <concepts>
#include <memory>
#include <type_traits>

#if __has_include(<Eigen/ThreadPool>)
#include <Eigen/ThreadPool>
#else
#include <unsupported/Eigen/CXX11/ThreadPool>
#endif

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/types.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Runs tasks on the threads of an Eigen pool and on the thread that calls.
///
///     Eigen::ThreadPool pool(8);
///     softmax_attention(q, k, v, out, options, eigen_thread_pool(pool));
///
/// Every thread takes the next task when it has done one, so uneven tasks balance. The calling thread is one of the
/// workers: a pool of n threads lends n - 1 of them, so that n run at a time. for_each may be called from a task and
/// from several threads at once; it waits only for tasks that a thread has begun, never for a thread to become free.
///
/// Cost       one closure of the pool per helping thread and call (a few allocations of Eigen's), none for one task.
/// Errors     none; the pool must outlive the call.
class eigen_thread_pool {
 public:
  explicit eigen_thread_pool(Eigen::ThreadPoolInterface& pool) : eigen_thread_pool(pool, pool.NumThreads()) {}

  /// At most `workers` at a time, the calling thread included.
  eigen_thread_pool(Eigen::ThreadPoolInterface& pool, index_t workers)
      : pool_(&pool),
        workers_(workers < 1                       ? 1
                 : workers > pool.NumThreads() + 1 ? pool.NumThreads() + 1
                                                   : workers) {}

  /// The pool of an Eigen::ThreadPoolDevice, and as many workers as the device uses.
  template <class Device>
    requires requires(const Device& device) {
      static_cast<Eigen::ThreadPoolInterface*>(device.getPool());
      { device.numThreads() } -> std::convertible_to<index_t>;
    }
  explicit eigen_thread_pool(const Device& device)
      : eigen_thread_pool(*device.getPool(), static_cast<index_t>(device.numThreads())) {}

  index_t concurrency() const { return workers_; }

  template <class Task>
  void for_each(index_t n, Task&& task) const {
    const index_t helpers = (n < workers_ ? n : workers_) - 1;
    if (helpers <= 0) {
      for (index_t i = 0; i < n; ++i) task(i, index_t{0});
      return;
    }
    using state = loop<std::remove_reference_t<Task>>;
    const auto shared = std::make_shared<state>(n, &task);
    for (index_t i = 0; i < helpers; ++i) {
      pool_->Schedule([shared] { shared->work(); });
    }
    shared->work();
    shared->wait();
  }

 private:
  // Outlives the call where a pool thread comes too late: it then finds no task left, and does not touch `task`.
  template <class Task>
  struct loop {
    loop(index_t tasks, Task* f) : n(tasks), task(f) {}

    void work() {
      index_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= n) return;
      const index_t worker = workers.fetch_add(1, std::memory_order_relaxed);
      index_t count = 0;
      for (; i < n; i = next.fetch_add(1, std::memory_order_relaxed)) {
        (*task)(i, worker);
        ++count;
      }
      if (done.fetch_add(count, std::memory_order_acq_rel) + count == n) done.notify_all();
    }

    void wait() const {
      for (index_t seen = done.load(std::memory_order_acquire); seen != n;
           seen = done.load(std::memory_order_acquire)) {
        done.wait(seen, std::memory_order_acquire);
      }
    }

    const index_t n;
    Task* const task;
    std::atomic<index_t> next{0};
    std::atomic<index_t> workers{0};
    std::atomic<index_t> done{0};
  };

  Eigen::ThreadPoolInterface* pool_;
  index_t workers_;
};

static_assert(executor<eigen_thread_pool>);

}  // namespace tokenmix::inline TOKENMIX_ABI
