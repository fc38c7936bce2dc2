// SPDX-License-Identifier: Apache-2.0
// What the machine can do: the figures that the other benchmarks' fractions are fractions of.
#include "support/limits.hpp"
#include "support/main.hpp"

#include <benchmark/benchmark.h>

#include <string>

namespace {

using namespace bench;

// Each repetition is one measurement, itself the best of several passes; the benchmark loop is there for the report only.
template <class Rate>
void add_limit(const options& chosen, const std::string& name, const char* unit, index_t kibibytes, index_t threads,
               Rate rate) {
  auto* line = benchmark::RegisterBenchmark((name + "/machine").c_str(), [=](benchmark::State& state) {
    const executor on = executor_of(threads);
    double best = 0.0;
    for (auto _ : state) best = rate(on);
    state.counters[unit] = best;
  });
  if (kibibytes > 0) {
    line->ArgNames({"KiB", "threads"})->Args({kibibytes, threads});
  } else {
    line->ArgNames({"threads"})->Args({threads});
  }
  line->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);
  if (!chosen.repetitions_given) line->Repetitions(chosen.brief ? 3 : 5);
}

void add_all(const options& chosen) {
  for (const index_t n : chosen.threads) {
    add_limit(chosen, "fma_peak/float", "flop", 0, n, [](const executor& on) { return fma_peak<float>(on, 20); });
    add_limit(chosen, "fma_peak/double", "flop", 0, n, [](const executor& on) { return fma_peak<double>(on, 20); });
    for (const index_t kibibytes : {32, 512, 8 << 10, 64 << 10, 512 << 10}) {
      if (chosen.brief && kibibytes > (64 << 10)) continue;
      if (n > 1 && kibibytes < (8 << 10)) continue;  // starting the threads would be what is measured
      const auto bytes = static_cast<std::size_t>(kibibytes) << 10;
      add_limit(chosen, "read/bytes", "byte", kibibytes, n,
                [bytes](const executor& on) { return read_bandwidth(on, bytes, 3, 0.05); });
    }
    for (const index_t kibibytes : {64 << 10, 512 << 10}) {
      if (chosen.brief && kibibytes > (64 << 10)) continue;
      const auto bytes = static_cast<std::size_t>(kibibytes) << 10;
      add_limit(chosen, "copy_read_and_written/bytes", "byte", kibibytes, n,
                [bytes](const executor& on) { return copy_bandwidth(on, bytes, 3, 0.05); });
    }
    add_limit(chosen, "exp/float", "exp", 0, n, [](const executor& on) { return exp_rate<full_exp, float>(on); });
    add_limit(chosen, "exp_nonpositive/float", "exp", 0, n,
              [](const executor& on) { return exp_rate<softmax_exp, float>(on); });
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "limits of this machine", add_all); }
