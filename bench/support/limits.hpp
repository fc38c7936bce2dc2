// SPDX-License-Identifier: Apache-2.0
/// @file What the machine can do, measured in the process that measures the kernels, with the same threads.
#pragma once

#include "executor.hpp"

#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/math.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>  // std::memcpy
#include <limits>
#include <span>
#include <vector>

namespace bench {

using seconds = std::chrono::duration<double>;
using stopwatch = std::chrono::steady_clock;

/// Keeps a value, and what computed it, from being optimised away.
template <class T>
inline void keep(T& value) {
  asm volatile("" : "+m"(value) : : "memory");
}

/// Seconds of the quickest of `passes` calls, at least one; goes on until `least` seconds are spent.
template <class Pass>
double quickest(const Pass& pass, index_t passes, double least = 0.0) {
  double best = std::numeric_limits<double>::infinity();
  double spent = 0.0;
  for (index_t i = 0; i < passes || spent < least; ++i) {
    const auto start = stopwatch::now();
    pass();
    const double elapsed = seconds(stopwatch::now() - start).count();
    best = std::min(best, elapsed);
    spent += elapsed;
  }
  return best;
}

/// Chains of dependent FMAs that one loop keeps going: two ports of four cycles need 8, five cycles need 10; with the two
/// other operands 14 registers, so that 16 are enough.
inline constexpr index_t fma_chains = 12;
inline constexpr index_t fma_rounds = 64;

/// fma_chains * fma_rounds * lanes FMAs per step, operands in registers.
template <class T>
TOKENMIX_NOINLINE void fma_burst(index_t steps, T* numbers /* two constants, then a place for the result */) {
  using namespace tokenmix::simd;
  const batch<T> a = broadcast(numbers[0]);
  const batch<T> b = broadcast(numbers[1]);
  batch<T> sums[fma_chains];
  for (index_t i = 0; i < fma_chains; ++i) sums[i] = broadcast(static_cast<T>(i));
  for (index_t step = 0; step < steps * fma_rounds; ++step) {
    unroll<fma_chains>([&](auto i) TOKENMIX_LAMBDA_INLINE { sums[i] = fma(sums[i], a, b); });
  }
  for (index_t i = 1; i < fma_chains; ++i) sums[0] = sums[0] + sums[i];
  numbers[2] = reduce_add(sums[0]);
}

/// Floating-point operations per second (an FMA counts two) of the instruction set that this program is compiled for.
/// Best of several passes of one or two milliseconds: a limit is what the machine can do, not what it mostly does.
template <class T>
double fma_peak(const executor& on, index_t passes = 6) {
  constexpr index_t steps = 2500;              // about a third of a millisecond
  const index_t tasks = on.concurrency() * 4;  // several each, so that a thread that starts late does not count
  const double flops = 2.0 * static_cast<double>(fma_chains * fma_rounds * tokenmix::simd::lanes<T> * steps) *
                       static_cast<double>(tasks);
  const double time = quickest(
      [&] {
        on.for_each(tasks, [](index_t, index_t) {
          T numbers[3] = {T(0.5), T(0.25), T(0)};
          keep(numbers);
          fma_burst(steps, numbers);
          keep(numbers);
        });
      },
      passes);
  return flops / time;
}

/// Reads n bytes once, in order, with eight accumulators; n is a multiple of eight registers.
TOKENMIX_NOINLINE inline float read_run(const std::byte* from, std::size_t n) {
  using namespace tokenmix::simd;
  using words = batch<std::int32_t>;
  constexpr std::size_t width = sizeof(std::int32_t) * static_cast<std::size_t>(lanes<std::int32_t>);
  words sums[8];
  for (words& s : sums) s = broadcast(std::int32_t{0});
  for (std::size_t at = 0; at + 8 * width <= n; at += 8 * width) {
    unroll<8>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      sums[i] = sums[i] | load(reinterpret_cast<const std::int32_t*>(from + at) + i * lanes<std::int32_t>);
    });
  }
  std::int32_t numbers[static_cast<std::size_t>(lanes<std::int32_t>)];
  for (int i = 1; i < 8; ++i) sums[0] = sums[0] | sums[i];
  store(numbers, sums[0]);
  return static_cast<float>(numbers[0]);
}

/// Bytes per second of reading all the given memory once, sequentially, shared between the executor's threads: what a kernel
/// that streams these very buffers can hope for. Best of several passes, so footprints that fit in a cache are found in it.
inline double read_bandwidth(const executor& on, std::span<const std::span<const std::byte>> buffers,
                             index_t passes = 3, double least = 0.01) {
  struct piece {
    const std::byte* from;
    std::size_t bytes;
  };
  std::vector<piece> pieces;
  double total = 0.0;
  const auto parts = static_cast<std::size_t>(on.concurrency() == 1 ? 1 : 4 * on.concurrency());
  for (const auto& buffer : buffers) {
    const std::size_t step = std::max<std::size_t>((buffer.size() / parts + 4095) & ~std::size_t{4095}, 4096);
    for (std::size_t at = 0; at < buffer.size(); at += step) {
      pieces.push_back({buffer.data() + at, std::min(step, buffer.size() - at)});
    }
    total += static_cast<double>(buffer.size());
  }
  const auto pass = [&] {
    on.for_each(static_cast<index_t>(pieces.size()), [&](index_t i, index_t) {
      const piece& p = pieces[static_cast<std::size_t>(i)];
      float result = read_run(p.from, p.bytes);
      keep(result);
    });
  };
  pass();
  return total / quickest(pass, passes, least);
}

/// The same for a footprint of its own.
inline double read_bandwidth(const executor& on, std::size_t bytes, index_t passes = 3, double least = 0.01) {
  const std::vector<std::byte> memory(bytes, std::byte{1});
  const std::span<const std::byte> buffer(memory);
  return read_bandwidth(on, std::span(&buffer, 1), passes, least);
}

/// Bytes per second, read and written ones added, of copying one half of a footprint to the other by std::memcpy.
inline double copy_bandwidth(const executor& on, std::size_t bytes, index_t passes = 3, double least = 0.01) {
  const std::size_t half = bytes / 2;
  std::vector<std::byte> from(half, std::byte{1});
  std::vector<std::byte> to(half);
  const auto parts = static_cast<std::size_t>(on.concurrency() == 1 ? 1 : 4 * on.concurrency());
  const std::size_t step = std::max<std::size_t>((half / parts + 4095) & ~std::size_t{4095}, 4096);
  const auto pass = [&] {
    on.for_each(static_cast<index_t>((half + step - 1) / step), [&](index_t i, index_t) {
      const std::size_t at = static_cast<std::size_t>(i) * step;
      std::memcpy(to.data() + at, from.data() + at, std::min(step, half - at));
    });
    keep(to[0]);
  };
  pass();
  return 2.0 * static_cast<double>(half) / quickest(pass, passes, least);
}

/// x *= a, four registers at a time.
TOKENMIX_NOINLINE inline void scale_run(float* x, std::size_t n, float a) {
  using namespace tokenmix::simd;
  constexpr std::size_t step = 4 * static_cast<std::size_t>(lanes<float>);
  const batch<float> factor(a);
  for (std::size_t at = 0; at + step <= n; at += step) {
    unroll<4>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      float* p = x + at + static_cast<std::size_t>(i * lanes<float>);
      store(p, load(p) * factor);
    });
  }
}

/// Bytes per second, read and written ones added, of scaling a footprint in place: what a kernel that updates a state can
/// hope for.
inline double update_bandwidth(const executor& on, std::size_t bytes, index_t passes = 3, double least = 0.01) {
  std::vector<float> memory(bytes / sizeof(float), 1.0f);
  const auto parts = static_cast<std::size_t>(on.concurrency() == 1 ? 1 : 4 * on.concurrency());
  const std::size_t step = std::max<std::size_t>((memory.size() / parts + 1023) & ~std::size_t{1023}, 1024);
  const auto pass = [&] {
    on.for_each(static_cast<index_t>((memory.size() + step - 1) / step), [&](index_t i, index_t) {
      const std::size_t at = static_cast<std::size_t>(i) * step;
      scale_run(memory.data() + at, std::min(step, memory.size() - at), 1.0f);
    });
    keep(memory[0]);
  };
  pass();
  return 2.0 * static_cast<double>(bytes) / quickest(pass, passes, least);
}

/// Which exponential a rate is of.
struct full_exp {
  template <class Batch>
  TOKENMIX_ALWAYS_INLINE static Batch of(const Batch& x) {
    return tokenmix::simd::exp(x);
  }
};
struct softmax_exp {
  template <class Batch>
  TOKENMIX_ALWAYS_INLINE static Batch of(const Batch& x) {
    return tokenmix::simd::exp_nonpositive(x);
  }
};

template <class Function, class T>
TOKENMIX_NOINLINE void exp_row(const T* from, T* to, index_t n) {
  using namespace tokenmix::simd;
  for (index_t i = 0; i + 4 * lanes<T> <= n; i += 4 * lanes<T>) {
    unroll<4>([&](auto j) TOKENMIX_LAMBDA_INLINE {
      store(to + i + j * lanes<T>, Function::of(load(from + i + j * lanes<T>)));
    });
  }
}

/// Exponentials per second over 2048 numbers in the first cache: load, exp, store. Arguments in [-20, 0].
template <class Function, class T>
double exp_rate(const executor& on, index_t passes = 6) {
  constexpr index_t n = 2048;
  constexpr index_t rounds = 500;
  const index_t tasks = on.concurrency() * 4;
  const double time = quickest(
      [&] {
        on.for_each(tasks, [](index_t, index_t) {
          alignas(64) T from[n];
          alignas(64) T to[n];
          for (index_t i = 0; i < n; ++i) from[i] = static_cast<T>(i) * T(-20.0 / n);
          for (index_t round = 0; round < rounds; ++round) {
            keep(from);
            exp_row<Function>(from, to, n);
            keep(to);
          }
        });
      },
      passes);
  return static_cast<double>(n * rounds) * static_cast<double>(tasks) / time;
}

}  // namespace bench
