// SPDX-License-Identifier: Apache-2.0
// Diagonal state-space models: the recurrence in useful work beside the FMA peak, beside it the same token by token and, for whole
// sequences, as a convolution by transforms; steps in bytes of state and parameters beside the bandwidth.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>

#include <array>
#include <complex>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;
using complex = std::complex<float>;

struct ssm_tensors {
  attention_shape shape;                       // S: states
  mix::tensor<float, 3> x, out;                // (B, T, D)
  mix::discrete_parameters<complex> discrete;  // (D, N)
  mix::tensor<complex, 2> output, input;       // (D, N), (N, D)
  mix::tensor<complex, 1> shared;              // (N)
  mix::damped_ema_parameters<float> ema;       // (D, N)
  mix::tensor<complex, 3> state;               // (B, D, N)
  mix::tensor<float, 3> real_state;            // (B, D, N)
  mix::tensor<complex, 2> shared_state;        // (B, N)

  explicit ssm_tensors(const attention_shape& s)
      : shape(s),
        x({s.B, s.T, s.D}),
        out(x.shape()),
        output({s.D, s.S}),
        input({s.S, s.D}),
        shared({s.S}),
        state({s.B, s.D, s.S}),
        real_state({s.B, s.D, s.S}),
        shared_state({s.B, s.S}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.D));
    for (float& e : x) e = next();
    mix::tensor<float, 1> log_step({s.D});
    for (index_t d = 0; d < s.D; ++d)
      log_step(d) = std::log(1e-3f) + std::log(100.0f) * static_cast<float>(d) / static_cast<float>(s.D);
    const auto A = mix::s4d_lin(s.S);
    discrete = mix::discretize(mix::zoh{}, mix::tensor_view<const complex, 2>(A.data(), {1, s.S}), log_step);
    for (complex& c : output) c = {next(), next()};
    for (complex& c : input) c = {next(), next()};
    for (index_t n = 0; n < s.S; ++n) shared(n) = discrete.transition(s.D / 2, n);
    mix::tensor<float, 2> logits({s.D, s.S});
    for (float& e : logits) e = next();
    ema = mix::damped_ema(logits, logits, logits, logits);
  }
};

double number(float x) { return static_cast<double>(x); }

/// The last tokens of some channels by the recurrence in double; relative to the largest result.
double error_of_scan(const ssm_tensors& x, bool has_input) {
  const attention_shape& s = x.shape;
  double largest = 0, size = 0;
  for (const index_t d : {index_t{0}, s.D / 2, s.D - 1}) {
    std::vector<std::complex<double>> h(static_cast<std::size_t>(s.S));
    double y = 0;
    for (index_t t = 0; t < s.T; ++t) {
      y = 0;
      for (index_t n = 0; n < s.S; ++n) {
        auto& state = h[static_cast<std::size_t>(n)];
        const std::complex<double> b = has_input ? std::complex<double>(x.discrete.input(d, n)) : 1.0;
        state = std::complex<double>(x.discrete.transition(d, n)) * state + b * number(x.x(s.B - 1, t, d));
        y += 2 * (std::complex<double>(x.output(d, n)) * state).real();
      }
      size = std::max(size, std::abs(y));
    }
    const double error = std::abs(number(x.out(s.B - 1, s.T - 1, d)) - y) / size;
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

/// Token by token, the states of a channel side by side in memory, in sixteens that the compiler can put in registers.
void scan_by_token(ssm_tensors& x) {
  const attention_shape& s = x.shape;
  const auto N = static_cast<std::size_t>(s.S), D = static_cast<std::size_t>(s.D);
  // Real and imaginary parts apart: interleaved ones would not be vectorised.
  std::vector<float> a(2 * N * D), c(2 * N * D), h;
  for (std::size_t i = 0; i < N * D; ++i) {
    const std::size_t to = i / N * 2 * N + i % N;
    a[to] = x.discrete.transition.data()[i].real(), a[to + N] = x.discrete.transition.data()[i].imag();
    c[to] = 2 * x.output.data()[i].real(), c[to + N] = -2 * x.output.data()[i].imag();
  }
  for (index_t b = 0; b < s.B; ++b) {
    h.assign(2 * N * D, 0.0f);
    for (index_t t = 0; t < s.T; ++t) {
      for (std::size_t d = 0; d < D; ++d) {
        float* TOKENMIX_RESTRICT const re = h.data() + d * 2 * N;
        float* TOKENMIX_RESTRICT const im = re + N;
        const float* const ar = a.data() + d * 2 * N;
        const float* const cr = c.data() + d * 2 * N;
        const float u = x.x(b, t, static_cast<index_t>(d));
        float sums[16] = {};
        for (std::size_t n = 0; n < N; n += 16) {
          for (std::size_t k = n; k < n + 16; ++k) {
            const float r = ar[k] * re[k] - ar[k + N] * im[k] + u, i = ar[k] * im[k] + ar[k + N] * re[k];
            re[k] = r, im[k] = i;
            sums[k - n] += cr[k] * r + cr[k + N] * i;
          }
        }
        float y = 0;
        for (const float e : sums) y += e;
        x.out(b, t, static_cast<index_t>(d)) = y;
      }
    }
  }
}

using call_of = void (*)(ssm_tensors&, const executor&);
using verify_of = double (*)(ssm_tensors&);

double not_verified(ssm_tensors&) { return 0; }

struct line_of_model {
  const char* name;
  call_of call;
  verify_of verify;
  double flops;   ///< per number and state
  double shared;  ///< per token, channel and state
};

const line_of_model lines[] = {
    {"s4d/float/tokenmix",
     [](ssm_tensors& x, const executor& on) {
       mix::diagonal_ssm(
           mix::diagonal_ssm_inputs<float, complex>{.x = x.x, .transition = x.discrete.transition, .output = x.output},
           x.out.view(), mix::diagonal_ssm_options<complex>{}, on);
     },
     [](ssm_tensors& x) { return error_of_scan(x, false); }, 12, 0},
    {"s4d/float/by_token", [](ssm_tensors& x, const executor&) { scan_by_token(x); },
     [](ssm_tensors& x) { return error_of_scan(x, false); }, 12, 0},
    {"s4d/float/transforms",
     [](ssm_tensors& x, const executor& on) {
       // The filter is made once, as in a model whose weights stay.
       static const ssm_tensors* made_for = nullptr;
       static mix::long_filters<float, mix::default_fft> filters;
       if (made_for != &x) {
         mix::tensor<float, 2> kernel({x.shape.D, x.shape.T});
         mix::diagonal_ssm_kernel(
             mix::diagonal_ssm_kernel_inputs<complex>{.transition = x.discrete.transition, .output = x.output},
             kernel.view(), {}, on);
         filters = mix::long_filters<float, mix::default_fft>(kernel, x.shape.T, mix::default_fft{}, on);
         made_for = &x;
       }
       mix::long_convolution(
           mix::long_convolution_inputs<float, float, mix::default_fft>{.x = x.x, .spectra = filters.view()},
           x.out.view(), {}, on);
     },
     [](ssm_tensors& x) { return error_of_scan(x, false); }, 12, 0},
    {"s4d_input/float/tokenmix",
     [](ssm_tensors& x, const executor& on) {
       mix::diagonal_ssm(
           mix::diagonal_ssm_inputs<float, complex>{
               .x = x.x, .transition = x.discrete.transition, .input = x.discrete.input, .output = x.output},
           x.out.view(), mix::diagonal_ssm_options<complex>{}, on);
     },
     [](ssm_tensors& x) { return error_of_scan(x, true); }, 16, 0},
    {"damped_ema/float/tokenmix",
     [](ssm_tensors& x, const executor& on) {
       mix::diagonal_ssm(
           mix::diagonal_ssm_inputs<float, float>{
               .x = x.x, .transition = x.ema.transition, .input = x.ema.input, .output = x.ema.output},
           x.out.view(), mix::diagonal_ssm_options<float>{.readout = mix::readout::real}, on);
     },
     not_verified, 6, 0},
    {"s4d_kernel/float/tokenmix",
     [](ssm_tensors& x, const executor& on) {
       static mix::tensor<float, 2> kernel;
       if (kernel.extent(0) != x.shape.D || kernel.extent(1) != x.shape.T)
         kernel = mix::tensor<float, 2>({x.shape.D, x.shape.T});
       mix::diagonal_ssm_kernel(
           mix::diagonal_ssm_kernel_inputs<complex>{.transition = x.discrete.transition, .output = x.output},
           kernel.view(), {}, on);
     },
     not_verified, 4, 0},
    {"s5/float/tokenmix",
     [](ssm_tensors& x, const executor& on) {
       mix::shared_diagonal_ssm(
           mix::shared_diagonal_ssm_inputs<float>{
               .x = x.x, .transition = x.shared, .input = x.input, .output = x.output},
           x.out.view(), mix::shared_diagonal_ssm_options<>{}, on);
     },
     not_verified, 0, 8},
};

void add_line(const options& chosen, const line_of_model& line, const attention_shape& s, index_t threads) {
  chosen.finish(benchmark::RegisterBenchmark(
                    line.name,
                    [line, s, threads](benchmark::State& state) {
                      auto& data = tensors_of<ssm_tensors>(s);
                      const executor on = executor_of(threads);
                      const double work = static_cast<double>(s.B * s.T * s.D * s.S) * (line.flops + line.shared);
                      measure(
                          state, line.name + std::to_string(s.T) + '/' + std::to_string(s.S), on, {"flop", work},
                          [&] { line.call(data, on); }, [&] { return line.verify(data); }, 1e-4,
                          [&] { return fma_peak<float>(on); });
                    })
                    ->ArgNames({"B", "T", "D", "N", "threads"})
                    ->Args({s.B, s.T, s.D, s.S, threads}));
}

/// One token of every sequence: states are read and written, parameters read. Channels of all of them contiguous, or states.
void add_steps(const options& chosen, index_t B, index_t D, index_t N, index_t threads, bool channels) {
  const std::string name = channels ? "step_channels/float/tokenmix" : "step_states/float/tokenmix";
  chosen.finish(
      benchmark::RegisterBenchmark(
          name.c_str(),
          [=](benchmark::State& state) {
            auto& x = tensors_of<ssm_tensors>({B, 1, 1, 1, N, D});
            const executor on = executor_of(threads);
            const double bytes = 8 * static_cast<double>(D * N) * (2 * static_cast<double>(B) + 2);
            const auto view = [&]<class View>(View v) {
              constexpr std::size_t R = View::rank;
              auto e = v.shape();
              std::swap(e[R - 2], e[R - 1]);
              auto order = R == 2 ? std::array<std::size_t, R>{1, 0} : std::array<std::size_t, R>{0};
              if constexpr (R == 3) order = {0, 2, 1};
              return channels ? View(v.data(), e).permuted(order) : v;
            };
            measure(
                state, name + std::to_string(B), on, {"byte", bytes},
                [&] {
                  mix::diagonal_ssm(
                      mix::diagonal_ssm_inputs<float, complex>{.x = x.x,
                                                               .transition = view(x.discrete.transition.view()),
                                                               .output = view(x.output.view()),
                                                               .initial_state = view(x.state.view())},
                      x.out.view(), mix::diagonal_ssm_options<complex>{.final_state = view(x.state.view())}, on);
                },
                [] { return 0.0; }, 1, [&] { return read_bandwidth(on, static_cast<std::size_t>(bytes)); });
          })
          ->ArgNames({"B", "T", "D", "N", "threads"})
          ->Args({B, 1, D, N, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t T : {1024, 8192}) {
      if (chosen.brief && T > 1024) continue;
      for (const index_t N : {16, 32, 64})
        for (const line_of_model& line : lines) add_line(chosen, line, {1, 1, 1, T, N, 512}, n);
    }
    for (const index_t B : {1, 16})
      for (const bool channels : {true, false}) add_steps(chosen, B, 1024, 32, n, channels);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "diagonal state-space models", add_all); }
