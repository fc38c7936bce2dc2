// SPDX-License-Identifier: Apache-2.0
// Long convolutions: numbers per second beside those of the library's transforms alone (two complex ones of half the length per channel,
// which is what has to be computed); the direct sum beside the FMA peak.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>
#if defined(TOKENMIX_BENCH_WITH_FFTW)
#include <tokenmix/interop/fft_fftw.hpp>
#endif

#include <complex>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

struct convolution_tensors {
  attention_shape shape;          // S: taps
  mix::tensor<float, 3> x, out;   // (B, T, D)
  mix::tensor<float, 3> a, b;     // (B, T, D)
  mix::tensor<float, 2> filters;  // (D, L)

  explicit convolution_tensors(const attention_shape& s)
      : shape(s), x({s.B, s.T, s.D}), out(x.shape()), a(x.shape()), b(x.shape()), filters({s.D, s.S}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.S * 17 + s.D));
    for (auto* t : {&x, &a, &b})
      for (float& e : *t) e = next();
    for (index_t d = 0; d < s.D; ++d)
      for (index_t l = 0; l < s.S; ++l)
        filters(d, l) = next() * std::exp(-4 * static_cast<float>(l) / static_cast<float>(s.S));
  }
};

/// The largest error of some results, relative to the norms.
double error_of(const convolution_tensors& x, bool gates) {
  double largest = 0;
  const attention_shape& s = x.shape;
  for (index_t i = 0; i < 7; ++i) {
    const index_t b = s.B - 1, d = (s.D - 1) * i / 6, t = (s.T - 1) * (i * 3 % 7) / 6;
    double want = 0, taps = 0, tokens = 0;
    const auto u = [&](index_t at) {
      return static_cast<double>(x.x(b, at, d)) * (gates ? static_cast<double>(x.a(b, at, d)) : 1.0);
    };
    const auto h = [&](index_t l) { return static_cast<double>(x.filters(d, l)); };
    for (index_t l = 0; l < std::min(s.S, t + 1); ++l) want += u(t - l) * h(l);
    for (index_t l = 0; l < s.S; ++l) taps += h(l) * h(l);
    for (index_t at = 0; at < s.T; ++at) tokens += u(at) * u(at);
    const double gate = gates ? static_cast<double>(x.b(b, t, d)) : 1.0;
    const double error = std::abs(static_cast<double>(x.out(b, t, d)) - want * gate);
    const double relative = error / (std::sqrt(taps * tokens) * std::max(1.0, std::abs(gate)) + 1e-3);
    if (!(relative <= largest)) largest = relative;
  }
  return largest;
}

/// Numbers per second of the transforms alone, forward and inverse for every channel, from one place in memory to another.
template <class Library>
double transforms_alone(const executor& on, const attention_shape& s, index_t numbers) {
  using number = std::complex<float>;
  const index_t m = numbers / 2, lead = s.S / 2 * 2, blocks = (s.T + numbers - lead - 1) / (numbers - lead);
  const index_t tasks = on.concurrency() * 2, each = 16;
  const auto pass = [&] {
    on.for_each(tasks, [&](index_t, index_t) {
      thread_local std::vector<number> from, to;
      from.assign(static_cast<std::size_t>(m), number(0.5f, 0.25f));
      to.assign(static_cast<std::size_t>(m), number());
      auto& plan = mix::detail::plan_of_this_thread<typename Library::template plan<float>>(m);
      for (index_t i = 0; i < each * blocks; ++i) {
        plan.forward(from.data(), to.data());
        plan.inverse(to.data(), from.data());
        for (number& e : from) e = {e.real() / static_cast<float>(m), e.imag() / static_cast<float>(m)};
      }
    });
  };
  pass();
  return static_cast<double>(tasks * each * s.T) / quickest(pass, 3);
}

template <class Library>
void add_transforms(const options& chosen, const char* library, const attention_shape& s, index_t threads, bool gates) {
  const std::string name = std::string(gates ? "hyena_" : "convolution_") + library + "/float/tokenmix";
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [name, s, threads, gates](benchmark::State& state) {
                      auto& x = tensors_of<convolution_tensors>(s);
                      const executor on = executor_of(threads);
                      const mix::long_filters<float, Library> filters(x.filters, s.T, Library{}, on);
                      mix::long_convolution_inputs<float, float, Library> in{.x = x.x, .spectra = filters.view()};
                      if (gates) in.pre_gate = x.a, in.post_gate = x.b;
                      measure(
                          state, name + std::to_string(s.T) + '/' + std::to_string(s.S), on,
                          {"number", static_cast<double>(s.B * s.T * s.D)},
                          [&] { mix::long_convolution(in, x.out.view(), {}, on); }, [&] { return error_of(x, gates); },
                          3e-6, [&] { return transforms_alone<Library>(on, s, filters.view().numbers); });
                    })
                    ->ArgNames({"B", "T", "D", "L", "threads"})
                    ->Args({s.B, s.T, s.D, s.S, threads}));
}

void add_direct(const options& chosen, const attention_shape& s, index_t threads) {
  const std::string name = "convolution_direct/float/tokenmix";
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [name, s, threads](benchmark::State& state) {
                      auto& x = tensors_of<convolution_tensors>(s);
                      const executor on = executor_of(threads);
                      measure(
                          state, name + std::to_string(s.T) + '/' + std::to_string(s.S), on,
                          {"flop", 2 * static_cast<double>(s.B * s.T * s.D) * static_cast<double>(s.S)},
                          [&] {
                            mix::long_convolution(mix::long_convolution_inputs<float>{.x = x.x, .filters = x.filters},
                                                  x.out.view(), {}, on);
                          },
                          [&] { return error_of(x, false); }, 3e-6, [&] { return fma_peak<float>(on); });
                    })
                    ->ArgNames({"B", "T", "D", "L", "threads"})
                    ->Args({s.B, s.T, s.D, s.S, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const auto& [T, L] : std::vector<std::pair<index_t, index_t>>{{8192, 8192}, {1024, 1024}, {32768, 1024}}) {
      if (chosen.brief && T != 1024) continue;
      const attention_shape s{1, 1, 1, T, L, T > 8192 ? 128 : 512};
      for (const bool gates : {false, true}) add_transforms<mix::eigen_fft>(chosen, "eigen", s, n, gates);
#if defined(TOKENMIX_BENCH_WITH_FFTW)
      for (const bool gates : {false, true}) add_transforms<mix::fftw_fft>(chosen, "fftw", s, n, gates);
#endif
    }
    for (const index_t L : {4, 32, 128, 1024}) add_direct(chosen, {1, 1, 1, 1024, L, 512}, n);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "long convolutions", add_all); }
