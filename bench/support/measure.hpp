// SPDX-License-Identifier: Apache-2.0
/// @file One benchmark line: verified once, timed, set against the machine's limit, memory counted.
#pragma once

#include "allocations.hpp"
#include "limits.hpp"

#include <benchmark/benchmark.h>
#include <time.h>  // clock_gettime

#include <tokenmix/core/scratch.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>

namespace bench {

/// What a call is measured in.
struct useful_work {
  const char* unit;  // the counter's name; the table prints it per second
  double amount;     // per call
};

/// Empties every thread's scratch memory, so that the next call shows what it takes.
inline void release_scratch(const executor& on) {
  on.for_each(on.concurrency() * 64, [](index_t, index_t) {
    tokenmix::scratch::of_this_thread().release();
    const auto start = stopwatch::now();  // long enough that every thread takes a share of the tasks
    while (seconds(stopwatch::now() - start).count() < 20e-6) {
    }
  });
  tokenmix::scratch::of_this_thread().release();
}

/// Whether lines of one thread are timed by the processor time they got (--cpu-time) instead of by the clock on the wall: on
/// a busy machine only that says anything.
inline bool by_cpu_time = false;

inline double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Times `call`.
///
/// `verify` gives the largest error of the call's result, once per line (outside the timed loop); `limit` the machine's
/// best in units of the work per second: measured before and after the loop, the larger counts. `workspace` is what the
/// implementation holds besides its operands, in bytes; negative: what operator new was asked for.
template <class Call, class Verify, class Limit>
void measure(benchmark::State& state, const std::string& line, const executor& on, const useful_work& work, Call&& call,
             Verify&& verify, double tolerance, Limit&& limit, double workspace = -1.0) {
  static std::set<std::string> verified;
  static std::map<std::string, double> held;
  if (!verified.contains(line)) {
    release_scratch(on);
    const allocation_watch first;
    call();
    held[line] = workspace >= 0.0 ? workspace : static_cast<double>(first.peak_bytes());
    const double error = verify();
    if (!(error <= tolerance)) {
      state.SkipWithError(("differs from the float64 reference by " + std::to_string(error)).c_str());
      return;
    }
    verified.insert(line);
  } else {
    call();  // warm
  }
  double best = limit();
  const allocation_watch later;
  const auto start = stopwatch::now();
  const double cpu_start = cpu_seconds();
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
  const double time =
      by_cpu_time && on.concurrency() == 1 ? cpu_seconds() - cpu_start : seconds(stopwatch::now() - start).count();
  const double asked = static_cast<double>(later.calls());
  best = std::max(best, limit());
  const double calls = static_cast<double>(state.iterations());
  state.counters[work.unit] = work.amount * calls / time;
  state.counters["limit"] = best;
  state.counters["of_limit"] = work.amount * calls / time / best;
  state.counters["extra_bytes"] = held[line];
  state.counters["allocations"] = std::floor(asked / calls);
}

}  // namespace bench
