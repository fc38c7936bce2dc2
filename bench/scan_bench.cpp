// SPDX-License-Identifier: Apache-2.0
// Scans: bytes read and written per second beside the rate of a copy, along time in (B, T, D) and along contiguous
// time in (B, D, T).
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/scan.hpp>

#include <cmath>
#include <cstddef>
#include <string>

namespace {

using namespace bench;
namespace mix = tokenmix;

/// Sequences of T steps and D channels; `axis` is the scanned one, 1 in (B, T, D) and 2 in (B, D, T).
struct scan_shape {
  index_t B, T, D, axis;
  auto operator<=>(const scan_shape&) const = default;
  mix::extents<3> extents() const { return axis == 1 ? mix::extents<3>{B, T, D} : mix::extents<3>{B, D, T}; }
};

struct scan_tensors {
  scan_shape shape;
  mix::tensor<float, 3> a;    // (B, T, D) or (B, D, T)
  mix::tensor<float, 3> x;    // the same
  mix::tensor<float, 3> out;  // the same

  explicit scan_tensors(const scan_shape& s) : shape(s), a(s.extents()), x(s.extents()), out(s.extents()) {
    normal_numbers next(static_cast<std::uint64_t>(s.T));
    for (float& e : x) e = next();
    for (float& e : a) e = 1.0f / (1.0f + 0.1f * std::abs(next()));
  }
};

scan_tensors& tensors_of(const scan_shape& shape) {
  static std::vector<std::unique_ptr<scan_tensors>> kept;
  for (auto& t : kept) {
    if (t->shape == shape) return *t;
  }
  if (shape.B * shape.T * shape.D > (index_t{1} << 22)) kept.clear();
  kept.push_back(std::make_unique<scan_tensors>(shape));
  return *kept.back();
}

enum class what { plus, maximum, affine, log_sum_exp };

double step(what operation, double h, double a, double x) {
  if (operation == what::plus) return h + x;
  if (operation == what::maximum) return std::max(h, x);
  if (operation == what::affine) return a * h + x;
  return std::max(h, x) + std::log1p(std::exp(-std::abs(h - x)));
}

/// The largest error of sampled lines, relative to the largest magnitude in each.
double largest_error(const scan_tensors& data, what operation) {
  const scan_shape& s = data.shape;
  double largest = 0.0;
  for (index_t sample = 0; sample < 5; ++sample) {
    const index_t b = (s.B - 1) * sample / 4, d = (s.D - 1) * (sample * 3 % 5) / 4;
    const auto at = [&](const mix::tensor<float, 3>& y, index_t t) {
      return static_cast<double>(s.axis == 1 ? y(b, t, d) : y(b, d, t));
    };
    double h = 0.0, scale = 1.0;
    for (index_t t = 0; t < s.T; ++t) {
      h = t == 0 ? at(data.x, t) : step(operation, h, at(data.a, t), at(data.x, t));
      scale = std::max(scale, std::abs(h));
      const double error = std::abs(at(data.out, t) - h) / scale;
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

/// One step after the other, as one would write it; the compiler vectorises over channels where they are contiguous.
void plain_loop(scan_tensors& data, what operation, const executor& on) {
  const scan_shape& s = data.shape;
  on.for_each(s.B, [&](index_t b, index_t) {
    const index_t lines = s.axis == 1 ? 1 : s.D, width = s.axis == 1 ? s.D : 1;
    for (index_t line = 0; line < lines; ++line) {
      const float* a = data.a.row(b, s.axis == 1 ? index_t{0} : line);
      const float* x = data.x.row(b, s.axis == 1 ? index_t{0} : line);
      float* out = data.out.row(b, s.axis == 1 ? index_t{0} : line);
      for (index_t d = 0; d < width; ++d) out[d] = x[d];
      for (index_t i = width; i < s.T * width; ++i) {
        const float h = out[i - width];
        out[i] = operation == what::plus ? h + x[i] : operation == what::maximum ? std::max(h, x[i]) : a[i] * h + x[i];
      }
    }
  });
}

void tokenmix_scan(scan_tensors& data, what operation, const executor& on) {
  const mix::scan_options options{.axis = data.shape.axis};
  if (operation == what::plus) mix::inclusive_scan(mix::plus<float>{}, data.x, data.out, options, on);
  if (operation == what::maximum) mix::inclusive_scan(mix::maximum<float>{}, data.x, data.out, options, on);
  if (operation == what::log_sum_exp) mix::inclusive_scan(mix::log_sum_exp<float>{}, data.x, data.out, options, on);
  if (operation == what::affine) {
    mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = data.a, .b = data.x}, data.out, options, on);
  }
}

// Useful work: every element read and written once, 4 bytes each; affine reads two.
template <class Call>
void line(benchmark::State& state, const scan_shape& shape, what operation, index_t threads, const std::string& name,
          Call call) {
  auto& data = tensors_of(shape);
  const executor on = executor_of(threads);
  const double elements = static_cast<double>(data.x.size());
  const double bytes = elements * (operation == what::affine ? 12.0 : 8.0);
  const auto limit = [&] { return copy_bandwidth(on, static_cast<std::size_t>(elements * 8.0)); };
  const auto verify = [&] { return largest_error(data, operation); };
  measure(state, name, on, {"byte", bytes}, [&] { call(data, operation, on); }, verify, 2e-5, limit);
}

void add_line(const options& chosen, const scan_shape& s, index_t threads, what operation, const char* operation_name) {
  const auto add = [&](const std::string& who, auto call) {
    const std::string name =
        std::string(s.axis == 1 ? "scan_of_rows/" : "scan_along_lines/") + operation_name + '/' + who;
    const std::string key = name + std::to_string(s.B) + '/' + std::to_string(s.T) + '/' + std::to_string(threads);
    chosen.finish(benchmark::RegisterBenchmark(
                      name.c_str(), [=](benchmark::State& state) { line(state, s, operation, threads, key, call); })
                      ->ArgNames({"B", "T", "D", "threads"})
                      ->Args({s.B, s.T, s.D, threads}));
  };
  add("tokenmix", tokenmix_scan);
  if (operation != what::log_sum_exp) add("plain_loop", plain_loop);
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    // 64 MiB in and as much out; then what fits in the second cache; then one long sequence. Along contiguous time also as many
    // elements in short lines.
    for (const scan_shape& s : {scan_shape{8, 4096, 512, 1}, scan_shape{1, 1024, 64, 1}, scan_shape{1, 131072, 128, 1},
                                scan_shape{8, 4096, 512, 2}, scan_shape{8, 1024, 2048, 2}, scan_shape{8, 256, 8192, 2},
                                scan_shape{8, 64, 32768, 2}, scan_shape{1, 1024, 64, 2}, scan_shape{1, 256, 256, 2},
                                scan_shape{1, 64, 1024, 2}}) {
      const bool large = s.B * s.T * s.D > (index_t{1} << 20);
      if (n > 1 && !large) continue;
      if (chosen.brief && (s.T == 131072 || (s.axis == 2 && (!large || s.T != 4096)))) continue;
      add_line(chosen, s, n, what::plus, "plus");
      add_line(chosen, s, n, what::affine, "affine");
      if (chosen.brief) continue;
      add_line(chosen, s, n, what::maximum, "maximum");
      add_line(chosen, s, n, what::log_sum_exp, "log_sum_exp");
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "scans", add_all); }
