// SPDX-License-Identifier: Apache-2.0
// Short causal convolutions: bytes read and written per second beside the rate of a copy, with channels contiguous (axis 1) and
// with time contiguous (axis 2); a plain loop and Eigen's expression in the same program.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <Eigen/Core>

#include <tokenmix/state_space.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

struct conv_shape {
  index_t B, T, C, k, axis;
  auto operator<=>(const conv_shape&) const = default;
  mix::extents<3> extents() const { return axis == 1 ? mix::extents<3>{B, T, C} : mix::extents<3>{B, C, T}; }
};

struct conv_tensors {
  conv_shape shape;
  mix::tensor<float, 3> x, out;  // (B, T, C) or (B, C, T)
  mix::tensor<float, 2> weight;  // (C, k)
  mix::tensor<float, 1> bias;    // (C)
  mix::tensor<float, 3> state;   // (B, k - 1, C) or (B, C, k - 1), of steps

  explicit conv_tensors(const conv_shape& s)
      : shape(s),
        x(s.extents()),
        out(s.extents()),
        weight({s.C, s.k}),
        bias({s.C}),
        state(s.axis == 1 ? mix::extents<3>{s.B, s.k - 1, s.C} : mix::extents<3>{s.B, s.C, s.k - 1}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T + s.C));
    for (float& e : x) e = next();
    for (float& e : weight) e = next();
    for (float& e : bias) e = next();
  }
  float at(const mix::tensor<float, 3>& y, index_t b, index_t t, index_t c) const {
    return shape.axis == 1 ? y(b, t, c) : y(b, c, t);
  }
};

conv_tensors& tensors_of(const conv_shape& shape) {
  static std::vector<std::unique_ptr<conv_tensors>> kept;
  for (auto& t : kept) {
    if (t->shape == shape) return *t;
  }
  if (kept.size() == 4) kept.clear();
  kept.push_back(std::make_unique<conv_tensors>(shape));
  return *kept.back();
}

/// The largest error of sampled channels.
double largest_error(const conv_tensors& data, bool activated) {
  const conv_shape& s = data.shape;
  double largest = 0.0;
  for (index_t sample = 0; sample < 7; ++sample) {
    const index_t b = (s.B - 1) * sample / 6, c = (s.C - 1) * (sample * 3 % 7) / 6;
    for (index_t t = 0; t < s.T; ++t) {
      double sum = static_cast<double>(data.bias(c));
      for (index_t j = 0; j < s.k; ++j) {
        const index_t from = t - (s.k - 1 - j);
        if (from >= 0) sum += static_cast<double>(data.weight(c, j)) * static_cast<double>(data.at(data.x, b, from, c));
      }
      if (activated) sum /= 1 + std::exp(-sum);
      const double error = std::abs(static_cast<double>(data.at(data.out, b, t, c)) - sum);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

template <class Activation>
void tokenmix_conv(conv_tensors& x, const executor& on) {
  mix::causal_conv1d(mix::causal_conv1d_inputs<float>{.x = x.x, .weight = x.weight, .bias = x.bias}, x.out.view(),
                     mix::causal_conv1d_options<Activation>{.axis = x.shape.axis}, on);
}
template <class Activation>
void tokenmix_step(conv_tensors& x, const executor& on) {
  mix::causal_conv1d(
      mix::causal_conv1d_inputs<float>{.x = x.x, .weight = x.weight, .bias = x.bias, .initial_state = x.state},
      x.out.view(), mix::causal_conv1d_options<Activation>{.axis = x.shape.axis, .final_state = x.state.view()}, on);
}

/// Token after token, tap after tap, as one would write it; the compiler vectorises the contiguous axis.
void plain_loop(conv_tensors& x, const executor& on) {
  const conv_shape& s = x.shape;
  on.for_each(s.B, [&](index_t b, index_t) {
    if (s.axis == 1) {
      for (index_t t = 0; t < s.T; ++t) {
        float* const out = x.out.row(b, t);
        for (index_t c = 0; c < s.C; ++c) out[c] = x.bias(c);
        for (index_t j = std::max<index_t>(0, s.k - 1 - t); j < s.k; ++j) {
          const float* const from = x.x.row(b, t - (s.k - 1 - j));
          for (index_t c = 0; c < s.C; ++c) out[c] += x.weight(c, j) * from[c];
        }
      }
    } else {
      for (index_t c = 0; c < s.C; ++c) {
        float* const out = x.out.row(b, c);
        for (index_t t = 0; t < s.T; ++t) {
          float sum = x.bias(c);
          for (index_t j = std::max<index_t>(0, s.k - 1 - t); j < s.k; ++j)
            sum += x.weight(c, j) * x.x(b, c, t - (s.k - 1 - j));
          out[t] = sum;
        }
      }
    }
  });
}

/// The same as expressions of whole rows or lines.
void eigen_rows(conv_tensors& x, const executor& on) {
  using matrix = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const conv_shape& s = x.shape;
  const Eigen::Map<const matrix> weight(x.weight.data(), s.C, s.k);
  const Eigen::Map<const Eigen::Array<float, 1, Eigen::Dynamic>> bias(x.bias.data(), s.C);
  const matrix turned = weight.transpose();
  on.for_each(s.B, [&](index_t b, index_t) {
    if (s.axis == 1) {
      const Eigen::Map<const matrix> in(x.x.row(b), s.T, s.C);
      Eigen::Map<matrix> out(x.out.row(b), s.T, s.C);
      for (index_t t = 0; t < s.T; ++t) {
        if (t < 3 || s.k != 4) {
          out.row(t) = bias;
          for (index_t j = std::max<index_t>(0, s.k - 1 - t); j < s.k; ++j)
            out.row(t) += turned.row(j) * in.row(t - (s.k - 1 - j));
        } else {
          out.row(t) = bias + turned.row(0) * in.row(t - 3) + turned.row(1) * in.row(t - 2) +
                       turned.row(2) * in.row(t - 1) + turned.row(3) * in.row(t);
        }
      }
    } else {
      const Eigen::Map<const matrix> in(x.x.row(b), s.C, s.T);
      Eigen::Map<matrix> out(x.out.row(b), s.C, s.T);
      for (index_t c = 0; c < s.C; ++c) {
        out.row(c).setConstant(x.bias(c));
        for (index_t j = 0; j < s.k; ++j) {
          const index_t back = s.k - 1 - j;
          if (back < s.T) out.row(c).tail(s.T - back) += weight(c, j) * in.row(c).head(s.T - back);
        }
      }
    }
  });
}

using call_of = void (*)(conv_tensors&, const executor&);

void add_line(const options& chosen, const std::string& who, const conv_shape& s, index_t threads, call_of call,
              int verified) {
  const std::string name = (s.T == 1 ? "conv_step/" : "conv/") + who;
  const std::string key = name + std::to_string(s.B) + '/' + std::to_string(s.T) + '/' + std::to_string(s.C) + '/' +
                          std::to_string(s.axis) + '/' + std::to_string(threads);
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [=](benchmark::State& state) {
                      auto& data = tensors_of(s);
                      const executor on = executor_of(threads);
                      // Useful work: x read and out written, 4 bytes each; a step also reads and writes its state.
                      const double elements =
                          static_cast<double>(s.B * s.C) * static_cast<double>(s.T + (s.T == 1 ? s.k - 1 : 0));
                      const auto limit = [&] { return copy_bandwidth(on, static_cast<std::size_t>(elements * 8.0)); };
                      const auto verify = [&] { return verified < 0 ? 0.0 : largest_error(data, verified == 1); };
                      measure(state, key, on, {"byte", elements * 8.0}, [&] { call(data, on); }, verify, 1e-5, limit);
                    })
                    ->ArgNames({"B", "T", "C", "k", "axis", "threads"})
                    ->Args({s.B, s.T, s.C, s.k, s.axis, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t axis : {1, 2}) {
      for (const conv_shape& s : {conv_shape{1, 2048, 2048, 4, axis}, conv_shape{1, 256, 512, 4, axis}}) {
        if (chosen.brief && s.T < 2048) continue;
        add_line(chosen, "tokenmix", s, n, tokenmix_conv<mix::as_given>, 0);
        add_line(chosen, "tokenmix_silu", s, n, tokenmix_conv<mix::silu>, 1);
        add_line(chosen, "plain_loop", s, n, plain_loop, 0);
        add_line(chosen, "eigen", s, n, eigen_rows, 0);
      }
      const conv_shape step{16, 1, 2048, 4, axis};
      add_line(chosen, "tokenmix", step, n, tokenmix_step<mix::as_given>, -1);
      add_line(chosen, "tokenmix_silu", step, n, tokenmix_step<mix::silu>, -1);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "short causal convolutions", add_all); }
