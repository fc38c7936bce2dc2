// SPDX-License-Identifier: Apache-2.0
// The duals of Mamba-2 and Mamba-3 at the published shape (32 heads of 64 channels, 128 states, one group): the operations that the
// chunk form needs beside the FMA peak, the bytes of a step beside the bandwidth. In the same program a decent token-by-token form,
// the linear family's engine with a gate per head, and softmax attention of as many channels.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/linear.hpp>
#include <tokenmix/softmax.hpp>
#include <tokenmix/state_space.hpp>

#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

constexpr index_t P = 64, N = 128, chunk = 64;

/// Operands; shape.Hk are the groups.
struct ssd_tensors {
  attention_shape shape;
  mix::tensor<float, 4> x, B, C, rotation, out, state, q;
  mix::tensor<float, 3> delta, log_decay, trapezoid, angle, key, value;
  mix::tensor<float, 1> A;

  explicit ssd_tensors(const attention_shape& s)
      : shape(s),
        x({s.B, s.T, s.H, P}),
        B({s.B, s.T, s.Hk, N}),
        C({s.B, s.T, s.Hk, N}),
        rotation({s.B, s.T, 1, N / 2}),
        out({s.B, s.T, s.H, P}),
        state({s.B, s.H, P, N}),
        q({s.B, s.T, s.H, P}),
        delta({s.B, s.T, s.H}),
        log_decay({s.B, s.T, s.H}),
        trapezoid({s.B, s.T, s.H}),
        angle({s.B, s.H, N / 2}),
        key({s.B, s.H, N}),
        value({s.B, s.H, P}),
        A({s.H}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.H));
    for (auto* t : {&x, &B, &C, &rotation, &q})
      for (float& e : *t) e = next();
    for (float& e : delta) e = 0.05f * std::abs(next());
    for (index_t h = 0; h < s.H; ++h) A(h) = -1 - static_cast<float>(h % 16);
    for (index_t i = 0; i < delta.size(); ++i) log_decay.data()[i] = delta.data()[i] * A(i % s.H);
    for (float& e : trapezoid) e = next();
  }
};

void dual(ssd_tensors& x, bool step, const executor& on) {
  const mix::tensor_view<float, 4> s = step ? x.state.view() : mix::tensor_view<float, 4>();
  mix::ssd(mix::ssd_inputs<float, float>{.x = x.x, .delta = x.delta, .A = x.A, .B = x.B, .C = x.C, .initial_state = s},
           x.out.view(), mix::ssd_options<>{.final_state = s}, on);
}

void dual_of_three(ssd_tensors& x, bool step, const executor& on) {
  const auto s = step ? mix::mamba3_state<float>{x.state.view(), x.angle.view(), x.key.view(), x.value.view()}
                      : mix::mamba3_state<float>{};
  mix::mamba3(mix::mamba3_inputs<float, float>{.x = x.x,
                                               .delta = x.delta,
                                               .log_decay = x.log_decay,
                                               .trapezoid = x.trapezoid,
                                               .B = x.B,
                                               .C = x.C,
                                               .rotation = x.rotation,
                                               .initial_state = {s.state, s.angle, s.key, s.value}},
              x.out.view(), mix::mamba3_options<>{.final_state = s}, on);
}

/// The linear family's engine: no factor delta at the values, so another result for the same work.
void gate_per_head(ssd_tensors& x, bool /*step*/, const executor& on) {
  const auto heads = [](const auto& view) { return view.permuted({0, 2, 1, 3}); };
  const mix::tensor_view<const float, 3> decay(x.log_decay.data(), {x.shape.B, x.shape.H, x.shape.T},
                                               {x.log_decay.stride(0), 1, x.log_decay.stride(1)});
  mix::gated_linear_attention(
      mix::gated_linear_inputs<float, float, float, 3>{
          .q = heads(x.C.view()), .k = heads(x.B.view()), .v = heads(x.x.view()), .log_decay = decay},
      heads(x.out.view()), mix::gated_linear_options<>{.scale = 1}, on);
}

void softmax(ssd_tensors& x, bool /*step*/, const executor& on) {
  const auto heads = [](const auto& view) { return view.permuted({0, 2, 1, 3}); };
  mix::softmax_attention(heads(x.q.view()), heads(x.x.view()), heads(x.x.view()), heads(x.out.view()),
                         mix::softmax_options{.mask = mix::causal{}}, on);
}

/// Token by token: the state of a head stays in the first cache, channels in the lanes.
void by_token(ssd_tensors& x, bool /*step*/, const executor& on) {
  using namespace tokenmix::simd;
  constexpr index_t L = lanes<float>, V = P / L;
  constexpr auto n = static_cast<std::size_t>(V);
  const attention_shape& s = x.shape;
  on.for_each(s.B * s.H, [&](index_t task, index_t) {
    const index_t b = task / s.H, h = task % s.H, g = h / (s.H / s.Hk);
    thread_local std::vector<float> S;
    S.assign(static_cast<std::size_t>(N * P), 0.0f);
    for (index_t t = 0; t < s.T; ++t) {
      const batch<float> keep(std::exp(x.delta(b, t, h) * x.A(h))), step(x.delta(b, t, h));
      batch<float> u[n], o[n];
      for (index_t v = 0; v < V; ++v) u[v] = load(x.x.row(b, t, h) + v * L) * step, o[v] = batch<float>(0.0f);
      const float* k = x.B.row(b, t, g);
      const float* q = x.C.row(b, t, g);
      for (index_t d = 0; d < N; ++d) {
        for (index_t v = 0; v < V; ++v) {
          float* at = S.data() + d * P + v * L;
          const batch<float> now = fma(batch<float>(k[d]), u[v], load(at) * keep);
          store(at, now);
          o[v] = fma(batch<float>(q[d]), now, o[v]);
        }
      }
      for (index_t v = 0; v < V; ++v) store(x.out.row(b, t, h) + v * L, o[v]);
    }
  });
}

/// The largest error of some channels of the last head of ssd against the recurrence in double, from an empty state.
double error_of(ssd_tensors& x) {
  const attention_shape& s = x.shape;
  const auto number = [](float e) { return static_cast<double>(e); };
  const index_t b = s.B - 1, h = s.H - 1, g = s.Hk - 1;
  double largest = 0;
  for (index_t p = 0; p < P; p += 9) {
    std::vector<double> S(static_cast<std::size_t>(N));
    for (index_t t = 0; t < s.T; ++t) {
      const double step = number(x.delta(b, t, h)), keep = std::exp(step * number(x.A(h)));
      double y = 0;
      for (index_t n = 0; n < N; ++n) {
        double& e = S[static_cast<std::size_t>(n)];
        e = keep * e + step * number(x.x(b, t, h, p)) * number(x.B(b, t, g, n));
        y += e * number(x.C(b, t, g, n));
      }
      const double error = std::abs(y - number(x.out(b, t, h, p)));
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

/// What chunks of 64 tokens need: the state read and written, half a square of tokens per head, and one per `keys` heads.
double operations(const attention_shape& s, index_t keys) {
  const double tokens = static_cast<double>(s.B * s.T);
  const double square = static_cast<double>(chunk + 1);
  return tokens * (static_cast<double>(s.H) * (4.0 * N * P + square * P) + static_cast<double>(keys) * square * N);
}

using call_of = void (*)(ssd_tensors&, bool, const executor&);

void add_prefill(const options& chosen, const char* which, const attention_shape& s, index_t threads, call_of call,
                 bool verified, bool keys_of_heads) {
  const std::string name = std::string("prefill_") + which;
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [=](benchmark::State& state) {
                      auto& data = tensors_of<ssd_tensors>(s);
                      const executor on = executor_of(threads);
                      measure(
                          state, name + std::to_string(s.T) + '/' + std::to_string(s.Hk), on,
                          {"flop", operations(s, keys_of_heads ? s.H : s.Hk)}, [&] { call(data, false, on); },
                          [&] { return verified ? error_of(data) : 0.0; }, 1e-4, [&] { return fma_peak<float>(on); });
                    })
                    ->ArgNames({"B", "H", "G", "T", "threads"})
                    ->Args({s.B, s.H, s.Hk, s.T, threads}));
}

void add_step(const options& chosen, const char* which, index_t heads, index_t threads, call_of call) {
  const attention_shape s{1, heads, 1, 1, 1, P};
  const std::string name = std::string("step_") + which;
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [=](benchmark::State& state) {
                      auto& data = tensors_of<ssd_tensors>(s);
                      for (float& e : data.state) e = 0.0f;
                      const executor on = executor_of(threads);
                      const double bytes = static_cast<double>(heads * P * N) * sizeof(float);
                      measure(
                          state, name + std::to_string(heads), on, {"byte", 2 * bytes}, [&] { call(data, true, on); },
                          [] { return 0.0; }, 1.0,
                          [&] { return read_bandwidth(on, static_cast<std::size_t>(bytes)); });
                    })
                    ->ArgNames({"H", "threads"})
                    ->Args({heads, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t T : {2048, 8192}) {
      if (chosen.brief && T > 2048) continue;
      for (const index_t G : {1, 8}) {
        const attention_shape s{1, 32, G, T, T, P};
        add_prefill(chosen, "ssd/float/tokenmix", s, n, dual, true, false);
        if (G == 1) {
          add_prefill(chosen, "ssd/float/gate_per_head", s, n, gate_per_head, false, false);
          add_prefill(chosen, "ssd/float/recurrence", s, n, by_token, true, false);
          add_prefill(chosen, "mamba3/float/tokenmix", s, n, dual_of_three, false, true);
          if (T == 2048) add_prefill(chosen, "softmax_causal/float/tokenmix", s, n, softmax, false, false);
        }
      }
    }
    for (const index_t heads : {32, 512}) {
      add_step(chosen, "ssd/float/tokenmix", heads, n, dual);
      add_step(chosen, "mamba3/float/tokenmix", heads, n, dual_of_three);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "state space duals", add_all); }
