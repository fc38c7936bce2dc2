// SPDX-License-Identifier: Apache-2.0
/// @file The executor of the benchmarks: OpenMP's threads where there is OpenMP, Eigen's pool elsewhere.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/types.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>

#if defined(_OPENMP)
#include <tokenmix/interop/openmp.hpp>
#else
#include <tokenmix/interop/eigen_thread_pool.hpp>
#endif

namespace bench {

using tokenmix::index_t;

/// How many threads "all" means.
inline index_t hardware_threads() {
  return std::max<index_t>(1, static_cast<index_t>(std::thread::hardware_concurrency()));
}

// The same executor type serves one thread and many (one thread is a plain loop in both adapters), so every kernel is
// compiled once.
#if defined(_OPENMP)
using executor = tokenmix::openmp_threads;
inline constexpr const char* executor_name = "OpenMP";

inline executor executor_of(index_t threads) { return executor(threads); }
#else
using executor = tokenmix::eigen_thread_pool;
inline constexpr const char* executor_name = "Eigen::ThreadPool";

/// Pools live to the end of the program; the calling thread is one of the workers.
inline executor executor_of(index_t threads) {
  static std::map<index_t, std::unique_ptr<Eigen::ThreadPool>> pools;
  auto& pool = pools[threads];
  if (!pool) pool = std::make_unique<Eigen::ThreadPool>(static_cast<int>(std::max<index_t>(1, threads - 1)));
  return executor(*pool, threads);
}
#endif

}  // namespace bench
