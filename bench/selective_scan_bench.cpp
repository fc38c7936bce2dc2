// SPDX-License-Identifier: Apache-2.0
// Selective scans: states and tokens per second beside the rate of the exponential alone, and of the plain loop. The step: bytes
// beside the machine's bandwidth.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/state_space.hpp>

#include <cmath>
#include <cstddef>
#include <memory>
#include <string>

namespace {

using namespace bench;
namespace mix = tokenmix;

enum class what { plain, full, step };

struct selective_shape {
  index_t B, T, D, N;
  auto operator<=>(const selective_shape&) const = default;
};

struct selective_tensors {
  selective_shape shape;
  mix::tensor<float, 3> x, delta, gate, out;  // (B, T, D)
  mix::tensor<float, 2> A;                    // (D, N)
  mix::tensor<float, 4> B, C;                 // (B, T, 1, N)
  mix::tensor<float, 1> skip, bias;           // (D)
  mix::tensor<float, 3> state;                // (B, D, N)

  explicit selective_tensors(const selective_shape& s)
      : shape(s),
        x({s.B, s.T, s.D}),
        delta(x.shape()),
        gate(x.shape()),
        out(x.shape()),
        A({s.D, s.N}),
        B({s.B, s.T, 1, s.N}),
        C(B.shape()),
        skip({s.D}),
        bias({s.D}),
        state({s.B, s.D, s.N}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T));
    for (float& e : x) e = next();
    for (float& e : delta) e = 0.05f + 0.05f * std::abs(next());
    for (float& e : gate) e = next();
    for (float& e : B) e = next();
    for (float& e : C) e = next();
    for (float& e : skip) e = next();
    for (float& e : bias) e = -2.0f;
    for (index_t d = 0; d < s.D; ++d)
      for (index_t n = 0; n < s.N; ++n) A(d, n) = -static_cast<float>(n + 1);
  }

  mix::selective_scan_inputs<float> inputs(what work) const {
    mix::selective_scan_inputs<float> in{.x = x, .delta = delta, .A = A, .B = B, .C = C};
    if (work != what::plain) in.skip = skip, in.delta_bias = bias, in.gate = gate;
    if (work == what::step) in.initial_state = state;
    return in;
  }
};

selective_tensors& tensors_of(const selective_shape& shape) {
  static std::vector<std::unique_ptr<selective_tensors>> kept;
  for (auto& t : kept)
    if (t->shape == shape) return *t;
  kept.push_back(std::make_unique<selective_tensors>(shape));
  return *kept.back();
}

/// Token by token as one would write it: states of a channel in an array.
template <class Real>
void channel(const selective_tensors& data, what work, index_t b, index_t d, Real* out) {
  const selective_shape& s = data.shape;
  std::vector<Real> h(static_cast<std::size_t>(s.N));
  for (index_t t = 0; t < s.T; ++t) {
    Real delta = Real(data.delta(b, t, d));
    if (work != what::plain) delta = std::log1p(std::exp(delta + Real(data.bias(d))));
    Real y = 0;
    for (index_t n = 0; n < s.N; ++n) {
      Real& state = h[static_cast<std::size_t>(n)];
      state = std::exp(delta * Real(data.A(d, n))) * state + delta * Real(data.x(b, t, d)) * Real(data.B(b, t, 0, n));
      y += Real(data.C(b, t, 0, n)) * state;
    }
    if (work != what::plain) {
      const Real z = Real(data.gate(b, t, d));
      y = (y + Real(data.skip(d)) * Real(data.x(b, t, d))) * (z / (1 + std::exp(-z)));
    }
    out[t] = y;
  }
}

void tokenmix_scan(selective_tensors& data, what work, const executor& on) {
  mix::selective_scan(data.inputs(work), data.out.view(),
                      {.delta_form = work == what::plain ? mix::delta_form::given : mix::delta_form::softplus,
                       .final_state = work == what::step ? data.state.view() : mix::tensor_view<float, 3>{}},
                      on);
}

/// One more step, from the states that the last one left.
double error_of_step(selective_tensors& data, const executor& on) {
  const auto before = data.state;
  tokenmix_scan(data, what::step, on);
  double largest = 0.0;
  for (index_t b = 0; b < data.shape.B; ++b) {
    for (const index_t d : {index_t{0}, data.shape.D / 3, data.shape.D - 1}) {
      const auto number = [](float x) { return static_cast<double>(x); };
      const double delta = std::log1p(std::exp(number(data.delta(b, 0, d)) + number(data.bias(d))));
      const double x = number(data.x(b, 0, d)), z = number(data.gate(b, 0, d));
      double y = number(data.skip(d)) * x;
      for (index_t n = 0; n < data.shape.N; ++n) {
        const double h =
            std::exp(delta * number(data.A(d, n))) * number(before(b, d, n)) + delta * x * number(data.B(b, 0, 0, n));
        y += number(data.C(b, 0, 0, n)) * h;
        largest = std::max(largest, std::abs(h - number(data.state(b, d, n))));
      }
      const double error = std::abs(y * z / (1 + std::exp(-z)) - number(data.out(b, 0, d)));
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

double largest_error(selective_tensors& data, what work, const executor& on) {
  if (work == what::step) return error_of_step(data, on);
  std::vector<double> want(static_cast<std::size_t>(data.shape.T));
  double largest = 0.0;
  for (const index_t d : {index_t{0}, data.shape.D / 3, data.shape.D - 1}) {
    channel<double>(data, work, 0, d, want.data());
    for (index_t t = 0; t < data.shape.T; ++t) {
      const double error = std::abs(static_cast<double>(data.out(0, t, d)) - want[static_cast<std::size_t>(t)]);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

void plain_loop(selective_tensors& data, what work, const executor& on) {
  on.for_each(data.shape.B * data.shape.D, [&](index_t i, index_t) {
    std::vector<float> line(static_cast<std::size_t>(data.shape.T));
    const index_t b = i / data.shape.D, d = i % data.shape.D;
    channel<float>(data, work, b, d, line.data());
    for (index_t t = 0; t < data.shape.T; ++t) data.out(b, t, d) = line[static_cast<std::size_t>(t)];
  });
}

// Useful work: B T D N exponentials, one per state and token; of a step, the bytes of state (read and written), A, B, C and rows.
template <class Call>
void line(benchmark::State& state, const selective_shape& s, what work, index_t threads, const std::string& key,
          Call call) {
  auto& data = tensors_of(s);
  const executor on = executor_of(threads);
  const double items = static_cast<double>(s.B * s.T * s.D * s.N);
  const double bytes = 4.0 * static_cast<double>(2 * s.B * s.D * s.N + s.D * s.N + 2 * s.B * s.N + 4 * s.B * s.D);
  const useful_work amount = work == what::step ? useful_work{"byte", bytes} : useful_work{"exp", items};
  const auto limit = [&] {
    return work == what::step ? update_bandwidth(on, static_cast<std::size_t>(bytes))
                              : exp_rate<softmax_exp, float>(on);
  };
  measure(
      state, key, on, amount, [&] { call(data, work, on); }, [&] { return largest_error(data, work, on); }, 2e-4,
      limit);
}

struct map_tensors {
  mix::tensor<float, 3> x, out, A;
  mix::tensor<float, 4> delta;
  mix::tensor<float, 5> B, C;
  mix::tensor<std::int32_t, 2> paths;
  map_tensors(index_t side, index_t D, index_t N)
      : x({1, side * side, D}),
        out(x.shape()),
        A({4, D, N}, -1.0f),
        delta({1, 4, side * side, D}, -2.0f),
        B({1, 4, side * side, 1, N}),
        C(B.shape()),
        paths(mix::cross_paths({side, side})) {
    normal_numbers next(7);
    for (float& e : x) e = next();
    for (float& e : B) e = next();
    for (float& e : C) e = next();
  }
};

void map_line(benchmark::State& state, index_t side, index_t D, index_t N, index_t threads, const std::string& key) {
  map_tensors data(side, D, N);
  const executor on = executor_of(threads);
  const auto call = [&] {
    mix::selective_scan_2d(
        mix::selective_scan_2d_inputs<float>{
            .x = data.x, .delta = data.delta, .A = data.A, .B = data.B, .C = data.C, .paths = data.paths},
        data.out.view(), {}, on);
  };
  // One channel, path by path.
  const auto error = [&] {
    const index_t L = side * side;
    std::vector<double> sum(static_cast<std::size_t>(L));
    const double delta = std::log1p(std::exp(-2.0));
    for (index_t k = 0; k < 4; ++k) {
      std::vector<double> h(static_cast<std::size_t>(N));
      for (index_t i = 0; i < L; ++i) {
        const index_t at = data.paths(k % 2, k < 2 ? i : L - 1 - i);
        for (index_t n = 0; n < N; ++n) {
          double& e = h[static_cast<std::size_t>(n)];
          e = std::exp(-delta) * e +
              delta * static_cast<double>(data.x(0, at, 1)) * static_cast<double>(data.B(0, k, at, 0, n));
          sum[static_cast<std::size_t>(at)] += static_cast<double>(data.C(0, k, at, 0, n)) * e;
        }
      }
    }
    double largest = 0.0;
    for (index_t l = 0; l < L; ++l)
      largest = std::max(largest, std::abs(static_cast<double>(data.out(0, l, 1)) - sum[static_cast<std::size_t>(l)]));
    return largest;
  };
  measure(state, key, on, {"exp", static_cast<double>(4 * side * side * D * N)}, call, error, 2e-4,
          [&] { return exp_rate<softmax_exp, float>(on); });
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t threads : chosen.threads) {
    const auto add = [&](const selective_shape& s, what work, const std::string& name, auto call) {
      const std::string key = name + std::to_string(s.T) + '/' + std::to_string(threads);
      chosen.finish(benchmark::RegisterBenchmark(
                        name.c_str(), [=](benchmark::State& state) { line(state, s, work, threads, key, call); })
                        ->ArgNames({"B", "T", "D", "N", "threads"})
                        ->Args({s.B, s.T, s.D, s.N, threads}));
    };
    const selective_shape whole{1, 2048, 2048, 16}, one{1, 1, 2048, 16}, many{64, 1, 2048, 16};
    add(whole, what::plain, "selective_scan/plain/tokenmix", tokenmix_scan);
    add(whole, what::full, "selective_scan/softplus_skip_gate/tokenmix", tokenmix_scan);
    add(one, what::step, "selective_scan/step/tokenmix", tokenmix_scan);
    add(many, what::step, "selective_scan/step_of_64/tokenmix", tokenmix_scan);
    if (!chosen.brief) {
      add(whole, what::plain, "selective_scan/plain/plain_loop", plain_loop);
      add(whole, what::full, "selective_scan/softplus_skip_gate/plain_loop", plain_loop);
    }
    const std::string key = "selective_scan_2d" + std::to_string(threads);
    chosen.finish(
        benchmark::RegisterBenchmark("selective_scan_2d/cross/tokenmix",
                                     [=](benchmark::State& state) { map_line(state, 56, 192, 16, threads, key); })
            ->ArgNames({"side", "D", "N", "threads"})
            ->Args({56, 192, 16, threads}));
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "selective scans", add_all); }
