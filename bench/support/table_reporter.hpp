// SPDX-License-Identifier: Apache-2.0
/// @file A reporter for Google Benchmark that prints one row per case, implementations side by side.
#pragma once

#include <benchmark/benchmark.h>
#include <unistd.h>  // isatty

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace bench {

/// Benchmarks are named <family>/<type>/<implementation>/<arguments>; lines that differ in the implementation alone are one
/// row. Every figure is the median of the repetitions; `cv` is their standard deviation over their mean.
class table_reporter : public benchmark::BenchmarkReporter {
 public:
  explicit table_reporter(std::string title) : title_(std::move(title)) {}

  bool ReportContext(const Context& context) override {
    std::printf("%s\n", title_.c_str());
    std::printf("%s, %d hardware threads; %s\n", processor().c_str(), context.cpu_info.num_cpus, compiler().c_str());
    std::fflush(stdout);
    return true;
  }

  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      const std::string& name = run.run_name.function_name;
      const auto slash = name.rfind('/');
      row& where = row_of(label(name.substr(0, slash), run.run_name.args), run.family_index);
      samples& line = where.lines[implementation(name.substr(slash + 1))];
      if (const std::string message = failure(run); !message.empty()) {
        line.failure = message;
        continue;
      }
      for (const char* unit : {"flop", "byte", "exp", "number", "choice"}) {
        if (const auto found = run.counters.find(unit); found != run.counters.end()) {
          where.unit = unit;
          line.rate.push_back(found->second.value);
        }
      }
      if (const auto found = run.counters.find("of_limit"); found != run.counters.end()) {
        line.of_limit.push_back(found->second.value);
        line.extra_bytes = run.counters.at("extra_bytes").value;
        line.allocations = run.counters.at("allocations").value;
      }
    }
    if (isatty(2) != 0) std::fprintf(stderr, "\r%zu cases", rows_.size());
  }

  void Finalize() override {
    if (isatty(2) != 0) std::fprintf(stderr, "\r");
    std::sort(rows_.begin(), rows_.end(), [](const row& a, const row& b) { return a.place < b.place; });
    for (const char* unit : {"flop", "byte", "exp", "number", "choice"}) print(unit);
  }

 private:
  struct samples {
    std::vector<double> rate, of_limit;
    double extra_bytes = 0.0;
    double allocations = 0.0;
    std::string failure;
  };
  struct row {
    std::string label, unit;
    std::int64_t place;  // in the order of registration: interleaved lines end in any order
    std::map<std::string, samples> lines;
  };

  static double median(std::vector<double> values) {
    if (values.empty()) return std::nan("");
    std::sort(values.begin(), values.end());
    const std::size_t n = values.size();
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2.0;
  }
  static double variation(const std::vector<double>& values) {
    if (values.size() < 2) return std::nan("");
    double mean = 0.0, squares = 0.0;
    for (const double x : values) mean += x / static_cast<double>(values.size());
    for (const double x : values) squares += (x - mean) * (x - mean);
    return std::sqrt(squares / static_cast<double>(values.size() - 1)) / mean;
  }

  // Google Benchmark renamed these fields in 1.8.
  template <class R>
  static std::string failure(const R& run) {
    if constexpr (requires { run.error_occurred; }) {
      return run.error_occurred ? run.error_message : std::string();
    } else {
      return static_cast<int>(run.skipped) != 0 ? run.skip_message : std::string();
    }
  }

  static std::string processor() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    }
    return "unknown processor";
  }
  static std::string compiler() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "g++ " __VERSION__;
#endif
  }

  // "prefill_causal/float", "B:1/H:8/T:512/D:64/threads:2" -> "prefill_causal float B1 H8 T512 D64", "2" as the last field
  static std::string label(const std::string& name, const std::string& arguments) {
    std::string text = name + ' ' + arguments;
    std::replace(text.begin(), text.end(), '/', ' ');
    text.erase(std::remove(text.begin(), text.end(), ':'), text.end());
    return text;
  }

  std::string implementation(const std::string& name) {
    if (std::find(implementations_.begin(), implementations_.end(), name) == implementations_.end()) {
      implementations_.push_back(name);
    }
    return name;
  }
  row& row_of(const std::string& label, std::int64_t place) {
    for (row& r : rows_) {
      if (r.label != label) continue;
      r.place = std::min(r.place, place);
      return r;
    }
    rows_.push_back(row{label, "flop", place, {}});
    return rows_.back();
  }

  static std::string bytes(double n) {
    char text[32];
    const char* const units[] = {"B", "KiB", "MiB", "GiB"};
    int unit = 0;
    for (; n >= 1024.0 && unit < 3; ++unit) n /= 1024.0;
    std::snprintf(text, sizeof text, n < 10.0 && unit > 0 ? "%.1f %s" : "%.0f %s", n, units[unit]);
    return text;
  }

  void print(const std::string& unit) const {
    std::vector<const row*> rows;
    int width = 4;
    for (const row& r : rows_) {
      if (r.unit != unit) continue;
      rows.push_back(&r);
      width = std::max(width, static_cast<int>(r.label.find(" threads")));
    }
    if (rows.empty()) return;
    std::vector<std::string> peers;
    bool ours = false;
    for (const std::string& name : implementations_) {
      const auto has = [&](const row* r) { return r->lines.contains(name); };
      if (!std::any_of(rows.begin(), rows.end(), has)) continue;
      if (name == "tokenmix") {
        ours = true;
      } else {
        peers.push_back(name);
      }
    }
    const char* const heading =
        unit == "flop" ? "useful GFLOP/s; the limit is the FMA peak"
        : unit == "byte"
            ? "GB/s; the limit is the bandwidth of reading the same bytes, for scans of a copy, for states of a "
              "scaling in place"
        : unit == "number" ? "G numbers/s; the limit is that of the library's transforms alone"
        : unit == "choice"
            ? "G pairs of a query and a block decided/s; at the limit choosing takes a tenth of the time that it saves"
            : "G exponentials/s";
    std::printf("\n%s (medians; limits measured beside every line, with its threads)\n", heading);
    std::printf("%-*s %7s", width, "case", "threads");
    if (ours) std::printf(" %9s %6s %8s %9s %6s", "tokenmix", "cv", "of limit", "memory", "alloc.");
    for (const std::string& name : peers) std::printf(" %13s", name.c_str());
    if (ours && !peers.empty()) std::printf(" %8s", "ratio");
    std::printf("\n");
    for (const row* r : rows) {
      const auto split = r->label.find(" threads");
      std::printf("%-*s %7s", width, r->label.substr(0, split).c_str(),
                  split == std::string::npos ? "" : r->label.substr(split + 8).c_str());
      double mine = std::nan("");
      if (const auto found = r->lines.find("tokenmix"); ours) {
        if (found == r->lines.end()) {
          std::printf(" %42s", "");
        } else if (!found->second.failure.empty()) {
          std::printf(" %-42s", found->second.failure.c_str());
        } else {
          const samples& s = found->second;
          mine = median(s.rate);
          const double v = variation(s.rate);
          char cv[16] = "";
          if (!std::isnan(v)) std::snprintf(cv, sizeof cv, "%.1f%%", 100.0 * v);
          std::printf(" %9.2f %6s %7.0f%% %9s %6.0f", mine / 1e9, cv, 100.0 * median(s.of_limit),
                      bytes(s.extra_bytes).c_str(), s.allocations);
        }
      }
      double best = 0.0;
      for (const std::string& name : peers) {
        const auto found = r->lines.find(name);
        if (found == r->lines.end()) {
          std::printf(" %13s", "");
        } else if (!found->second.failure.empty()) {
          std::printf(" %13s", "WRONG");
        } else {
          const double rate = median(found->second.rate);
          best = std::max(best, rate);
          std::printf(" %13.2f", rate / 1e9);
        }
      }
      if (best > 0.0 && mine > 0.0) std::printf(" %7.2fx", mine / best);
      std::printf("\n");
    }
    std::fflush(stdout);
  }

  std::string title_;
  std::vector<row> rows_;
  std::vector<std::string> implementations_;
};

}  // namespace bench
