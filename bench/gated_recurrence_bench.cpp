// SPDX-License-Identifier: Apache-2.0
// Elementwise gated recurrences (RG-LRU, minGRU, minLSTM, HGRN): bytes of tokens read and written per second beside the rate of a
// copy, and, where exponentials take longer than memory, exponentials per second beside their rate; a plain loop and Eigen's
// expressions token by token in the same program.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <Eigen/Core>

#include <tokenmix/state_space.hpp>

#include <cmath>
#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

struct gated_shape {
  index_t B, T, C;
  auto operator<=>(const gated_shape&) const = default;
};

struct gated_tensors {
  gated_shape shape;
  mix::tensor<float, 3> x, f, i, out, other;  // (B, T, C)
  mix::tensor<float, 1> parameter, angle;     // (C)
  mix::tensor<float, 2> state;                // (B, C)

  explicit gated_tensors(const gated_shape& s)
      : shape(s),
        x({s.B, s.T, s.C}),
        f(x.shape()),
        i(x.shape()),
        out(x.shape()),
        other(x.shape()),
        parameter({s.C}),
        angle({s.C}),
        state({s.B, s.C}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T + s.C));
    for (auto* y : {&x, &f, &i})
      for (float& e : *y) e = next();
    for (float& e : parameter) e = std::abs(std::fmod(next(), 1.0f));
    for (float& e : angle) e = next();
  }
};

gated_tensors& tensors_of(const gated_shape& shape) {
  static std::unique_ptr<gated_tensors> large, small;
  auto& kept = shape.T > 1 ? large : small;
  if (!kept || !(kept->shape == shape)) kept = std::make_unique<gated_tensors>(shape);
  return *kept;
}

double number(float x) { return static_cast<double>(x); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// The largest error of sampled channels, where `step(h, x, f, i, parameter)` is the recurrence in double.
template <class Step>
double largest_error(const gated_tensors& data, const Step& step) {
  const gated_shape& s = data.shape;
  double largest = 0.0;
  for (index_t sample = 0; sample < 7; ++sample) {
    const index_t b = (s.B - 1) * sample / 6, c = (s.C - 1) * (sample * 3 % 7) / 6;
    double h = 0;
    for (index_t t = 0; t < s.T; ++t) {
      h = step(h, number(data.x(b, t, c)), number(data.f(b, t, c)), number(data.i(b, t, c)), number(data.parameter(c)));
      const double error = std::abs(number(data.out(b, t, c)) - h);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

/// `step` on floats, token after token.
template <class Step>
void by_token(gated_tensors& data, const executor& on, const Step& step) {
  const gated_shape& s = data.shape;
  on.for_each(s.B, [&](index_t b, index_t) {
    std::vector<float> state(static_cast<std::size_t>(s.C));
    for (index_t t = 0; t < s.T; ++t) {
      const float *x = data.x.row(b, t), *f = data.f.row(b, t), *i = data.i.row(b, t);
      float* out = data.out.row(b, t);
      for (index_t c = 0; c < s.C; ++c) {
        float& h = state[static_cast<std::size_t>(c)];
        out[c] = h = step(h, x[c], f[c], i[c], data.parameter(c));
      }
    }
  });
}

/// `step` on Eigen's arrays of channels.
template <class Step>
void by_eigen(gated_tensors& data, const executor& on, const Step& step) {
  using row = Eigen::Array<float, 1, Eigen::Dynamic>;
  const gated_shape& s = data.shape;
  on.for_each(s.B, [&](index_t b, index_t) {
    row state = row::Zero(s.C);
    const Eigen::Map<const row> parameter(data.parameter.data(), s.C);
    for (index_t t = 0; t < s.T; ++t) {
      const Eigen::Map<const row> x(data.x.row(b, t), s.C), f(data.f.row(b, t), s.C), i(data.i.row(b, t), s.C);
      step(state, x, f, i, parameter);
      Eigen::Map<row>(data.out.row(b, t), s.C) = state;
    }
  });
}

float sigmoid_float(float x) { return 1 / (1 + std::exp(-x)); }

void rg_lru(gated_tensors& x, const executor& on) {
  mix::rg_lru(
      mix::rg_lru_inputs<float>{
          .x = x.x, .recurrence_gate = x.f, .input_gate = x.i, .lambda = x.parameter, .initial_state = x.state},
      x.out.view(),
      mix::rg_lru_options<>{.final_state = x.shape.T == 1 ? x.state.view() : mix::tensor_view<float, 2>{}}, on);
}
void rg_lru_loop(gated_tensors& x, const executor& on) {
  by_token(x, on, [](float h, float v, float r, float i, float l) {
    const float log_a = -8 * std::log1p(std::exp(l)) * sigmoid_float(r);
    return std::exp(log_a) * h + std::sqrt(-std::expm1(2 * log_a)) * sigmoid_float(i) * v;
  });
}
void rg_lru_eigen(gated_tensors& x, const executor& on) {
  by_eigen(x, on, [](auto& h, const auto& v, const auto& r, const auto& i, const auto& l) {
    const Eigen::Array<float, 1, Eigen::Dynamic> log_a = -8 * (1 + l.exp()).log() / (1 + (-r).exp()), a = log_a.exp();
    h = a * h + (1 - a * a).sqrt() * v / (1 + (-i).exp());
  });
}
double rg_lru_error(gated_tensors& x) {
  return largest_error(x, [](double h, double v, double r, double i, double l) {
    const double log_a = -8 * std::log1p(std::exp(l)) * sigmoid(r);
    return std::exp(log_a) * h + std::sqrt(-std::expm1(2 * log_a)) * sigmoid(i) * v;
  });
}

void min_gru(gated_tensors& x, const executor& on) {
  mix::min_gru(mix::min_gru_inputs<float>{.gate = x.f, .candidate = x.x, .initial_state = x.state}, x.out.view(),
               mix::min_gru_options<>{.final_state = x.shape.T == 1 ? x.state.view() : mix::tensor_view<float, 2>{}},
               on);
}
void min_gru_loop(gated_tensors& x, const executor& on) {
  by_token(x, on, [](float h, float v, float z, float, float) { return h + sigmoid_float(z) * (v - h); });
}
void min_gru_eigen(gated_tensors& x, const executor& on) {
  by_eigen(x, on,
           [](auto& h, const auto& v, const auto& z, const auto&, const auto&) { h += (v - h) / (1 + (-z).exp()); });
}
double min_gru_error(gated_tensors& x) {
  return largest_error(x, [](double h, double v, double z, double, double) { return h + sigmoid(z) * (v - h); });
}

void min_lstm(gated_tensors& x, const executor& on) {
  mix::min_lstm(
      mix::min_lstm_inputs<float>{.forget_gate = x.f, .input_gate = x.i, .candidate = x.x, .initial_state = x.state},
      x.out.view(),
      mix::min_lstm_options<>{.final_state = x.shape.T == 1 ? x.state.view() : mix::tensor_view<float, 2>{}}, on);
}
void min_lstm_loop(gated_tensors& x, const executor& on) {
  by_token(x, on, [](float h, float v, float f, float i, float) {
    const float a = sigmoid_float(f), b = sigmoid_float(i);
    return (a * h + b * v) / (a + b);
  });
}
void min_lstm_eigen(gated_tensors& x, const executor& on) {
  by_eigen(x, on, [](auto& h, const auto& v, const auto& f, const auto& i, const auto&) {
    const Eigen::Array<float, 1, Eigen::Dynamic> a = 1 + (-i).exp(), b = 1 + (-f).exp();
    h = (a * h + b * v) / (a + b);
  });
}
double min_lstm_error(gated_tensors& x) {
  return largest_error(x, [](double h, double v, double f, double i, double) {
    return (sigmoid(f) * h + sigmoid(i) * v) / (sigmoid(f) + sigmoid(i));
  });
}

void hgrn(gated_tensors& x, const executor& on) {
  mix::hgrn(
      mix::hgrn_inputs<float>{
          .forget_gate = x.f, .candidate = x.x, .lower_bound = x.parameter, .initial_state = x.state},
      x.out.view(), mix::hgrn_options<>{.final_state = x.shape.T == 1 ? x.state.view() : mix::tensor_view<float, 2>{}},
      on);
}
void hgrn_loop(gated_tensors& x, const executor& on) {
  by_token(x, on, [](float h, float v, float f, float, float bound) {
    const float keep = bound + (1 - bound) * sigmoid_float(f);
    return keep * h + (1 - keep) * v * sigmoid_float(v);
  });
}
void hgrn_eigen(gated_tensors& x, const executor& on) {
  by_eigen(x, on, [](auto& h, const auto& v, const auto& f, const auto&, const auto& bound) {
    const Eigen::Array<float, 1, Eigen::Dynamic> keep = bound + (1 - bound) / (1 + (-f).exp());
    h = keep * h + (1 - keep) * v / (1 + (-v).exp());
  });
}
double hgrn_error(gated_tensors& x) {
  return largest_error(x, [](double h, double v, double f, double, double bound) {
    const double keep = bound + (1 - bound) * sigmoid(f);
    return keep * h + (1 - keep) * v * sigmoid(v);
  });
}
void complex_hgrn(gated_tensors& x, const executor& on) {
  mix::complex_hgrn(
      mix::complex_hgrn_inputs<float>{
          .forget_gate = x.f, .real = x.x, .imaginary = x.i, .angle = x.angle, .lower_bound = x.parameter},
      x.out.view(), x.other.view(), mix::complex_hgrn_options<>{}, on);
}

using call_of = void (*)(gated_tensors&, const executor&);
using error_of = double (*)(gated_tensors&);

struct line_of_mixer {
  const char* name;
  call_of call;
  error_of error;
  double streams;  ///< tensors of tokens that are read or written
  double exps;     ///< exponentials per element
};

double not_verified(gated_tensors&) { return 0; }

const line_of_mixer lines[] = {
    {"rg_lru/tokenmix", rg_lru, rg_lru_error, 4, 3},
    {"rg_lru/plain_loop", rg_lru_loop, rg_lru_error, 4, 3},
    {"rg_lru/eigen", rg_lru_eigen, not_verified, 4, 3},
    {"min_gru/tokenmix", min_gru, min_gru_error, 3, 1},
    {"min_gru/plain_loop", min_gru_loop, min_gru_error, 3, 1},
    {"min_gru/eigen", min_gru_eigen, min_gru_error, 3, 1},
    {"min_lstm/tokenmix", min_lstm, min_lstm_error, 4, 2},
    {"min_lstm/plain_loop", min_lstm_loop, min_lstm_error, 4, 2},
    {"min_lstm/eigen", min_lstm_eigen, min_lstm_error, 4, 2},
    {"hgrn/tokenmix", hgrn, hgrn_error, 3, 2},
    {"hgrn/plain_loop", hgrn_loop, hgrn_error, 3, 2},
    {"hgrn/eigen", hgrn_eigen, hgrn_error, 3, 2},
    {"complex_hgrn/tokenmix", complex_hgrn, not_verified, 5, 3},
};

void add_line(const options& chosen, const line_of_mixer& line, const gated_shape& s, index_t threads) {
  const std::string name = std::string(s.T == 1 ? "step_" : "prefill_") + line.name;
  const std::string key = name + std::to_string(s.T) + '/' + std::to_string(threads);
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [=](benchmark::State& state) {
                      auto& data = tensors_of(s);
                      const executor on = executor_of(threads);
                      const double elements = static_cast<double>(s.B * s.T * s.C);
                      // Useful work: bytes of tokens read and written. The limit: a copy of as many bytes, or the exponentials
                      // that the formula has, whichever takes longer.
                      const double bytes = 4 * line.streams * elements;
                      const auto limit = [&] {
                        const double of_memory = copy_bandwidth(on, static_cast<std::size_t>(bytes));
                        const double of_exp = exp_rate<full_exp, float>(on) / line.exps * 4 * line.streams;
                        return std::min(of_memory, of_exp);
                      };
                      const auto verify = [&] { return s.T == 1 ? 0.0 : line.error(data); };
                      measure(state, key, on, {"byte", bytes}, [&] { line.call(data, on); }, verify, 2e-5, limit);
                    })
                    ->ArgNames({"B", "T", "C", "threads"})
                    ->Args({s.B, s.T, s.C, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const line_of_mixer& line : lines) {
      const bool ours = std::string(line.name).ends_with("tokenmix");
      add_line(chosen, line, {1, 2048, 2048}, n);
      if (ours && !chosen.brief) add_line(chosen, line, {16, 1, 2048}, n);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "elementwise gated recurrences", add_all); }
