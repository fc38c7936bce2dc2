// SPDX-License-Identifier: Apache-2.0
/// @file The main function of every benchmark: our few options, defaults, the table.
#pragma once

#include "executor.hpp"
#include "table_reporter.hpp"

#include <benchmark/benchmark.h>

#include <tokenmix/simd/batch.hpp>

#include <cstdlib>
#include <string>
#include <vector>

namespace bench {

/// What the command line says beside Google Benchmark's own flags.
struct options {
  bool brief = false;                 ///< --short: few cases, short runs
  bool console = false;               ///< --console: Google Benchmark's own output instead of the table
  bool cpu_time = false;              ///< --cpu-time: lines of one thread count the processor time they got
  std::vector<index_t> threads = {};  ///< --threads=1,2,16; default: 1, 2 and all
  bool min_time_given = false;
  bool repetitions_given = false;

  static options read(int argc, char** argv, std::vector<char*>& rest) {
    const std::string context = "--benchmark_context=";
    options result;
    for (int i = 0; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument == "--short") {
        result.brief = true;
      } else if (argument == "--console") {
        result.console = true;
      } else if (const auto equals = argument.find('=', context.size());
                 argument.rfind(context, 0) == 0 && equals != std::string::npos) {
        // Read here because Google Benchmark's own parser refuses values that hold '=' or ',', as compiler flags do.
        benchmark::AddCustomContext(argument.substr(context.size(), equals - context.size()),
                                    argument.substr(equals + 1));
      } else if (argument == "--cpu-time") {
        result.cpu_time = true;
      } else if (argument.rfind("--threads=", 0) == 0) {
        for (const char* p = argv[i] + 10; *p != '\0';) {
          char* end = nullptr;
          const long n = std::strtol(p, &end, 10);
          if (end == p || n < 1) break;
          result.threads.push_back(static_cast<index_t>(n));
          p = *end == ',' ? end + 1 : end;
        }
      } else {
        if (argument.rfind("--benchmark_min_time", 0) == 0) result.min_time_given = true;
        if (argument.rfind("--benchmark_repetitions", 0) == 0) result.repetitions_given = true;
        if (argument.rfind("--benchmark_format", 0) == 0) result.console = true;
        rest.push_back(argv[i]);
      }
    }
    if (result.threads.empty()) {
      result.threads = {1};
      if (hardware_threads() > 2 && !result.brief) result.threads.push_back(2);
      if (hardware_threads() > 1) result.threads.push_back(hardware_threads());
    }
    return result;
  }

  /// Wall-clock time, defaults where the command line says nothing.
  template <class Line>  // benchmark::internal::Benchmark, in later versions benchmark::Benchmark
  void finish(Line* b) const {
    b->UseRealTime()->Unit(benchmark::kMillisecond);
    if (!min_time_given) b->MinTime(brief ? 0.05 : 0.2);
    if (!repetitions_given) b->Repetitions(brief ? 3 : 5);
  }
};

#define BENCH_TEXT_(x) #x
#define BENCH_TEXT(x) BENCH_TEXT_(x)

/// Parses, lets `add(options)` register, runs, prints.
template <class Add>
int run(int argc, char** argv, const char* title, Add&& add) {
  std::vector<char*> arguments;
  const options chosen = options::read(argc, argv, arguments);
  // Repetitions of different lines take turns, so that a drifting clock touches all of them alike.
  std::string interleaved = "--benchmark_enable_random_interleaving=true";
  arguments.insert(arguments.begin() + 1, interleaved.data());
  arguments.push_back(nullptr);
  int count = static_cast<int>(arguments.size()) - 1;
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  benchmark::AddCustomContext("tokenmix_instruction_set", BENCH_TEXT(TOKENMIX_ISA));
  benchmark::AddCustomContext("tokenmix_executor", executor_name);
#if defined(NDEBUG)
  benchmark::AddCustomContext("tokenmix_build", "release");
#else
  benchmark::AddCustomContext("tokenmix_build", "debug: assertions on");
#endif
  add(chosen);
  if (chosen.console) {
    benchmark::RunSpecifiedBenchmarks();
  } else {
    table_reporter table(std::string(title) + ", built for " BENCH_TEXT(TOKENMIX_ISA) ", threads of " + executor_name);
    benchmark::RunSpecifiedBenchmarks(&table);
  }
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
