// SPDX-License-Identifier: Apache-2.0
/// @file OpenMP's threads as an executor.
#pragma once

#ifndef _OPENMP
#error "tokenmix/interop/openmp.hpp needs OpenMP: compile and link with -fopenmp (in CMake: OpenMP::OpenMP_CXX)."
#endif

#include <omp.h>

#include <atomic>

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/types.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Runs tasks on a team of OpenMP threads, the calling thread among them.
///
///     softmax_attention(q, k, v, out, options, openmp_threads{8});
///
/// Every thread takes the next task when it has done one, so uneven tasks balance. Where OpenMP gives fewer threads
/// than asked for, as inside another parallel region, the team that there is does all tasks.
///
/// Without -fopenmp this header does not compile: tasks that quietly run one after the other are what nobody asked for
/// (that executor is calling_thread).
class openmp_threads {
 public:
  /// As many as OpenMP would start here: OMP_NUM_THREADS, or what omp_set_num_threads said.
  openmp_threads() : openmp_threads(omp_get_max_threads()) {}
  explicit openmp_threads(index_t threads) : threads_(threads < 1 ? 1 : threads) {}

  index_t concurrency() const { return threads_; }

  template <class Task>
  void for_each(index_t n, Task&& task) const {
    if (n <= 1 || threads_ <= 1) {
      for (index_t i = 0; i < n; ++i) task(i, index_t{0});
      return;
    }
    std::atomic<index_t> next{0};
    // The whole team, however few tasks: libgomp ends the threads that a smaller team leaves over and starts them again for
    // the next larger one, and with them goes the scratch that they kept.
#pragma omp parallel num_threads(static_cast<int>(threads_))
    {
      const index_t worker = omp_get_thread_num();
      for (index_t i = next.fetch_add(1, std::memory_order_relaxed); i < n;
           i = next.fetch_add(1, std::memory_order_relaxed)) {
        task(i, worker);
      }
    }
  }

 private:
  index_t threads_;
};

static_assert(executor<openmp_threads>);

}  // namespace tokenmix::inline TOKENMIX_ABI
