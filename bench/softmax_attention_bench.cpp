// SPDX-License-Identifier: Apache-2.0
// Softmax attention of whole sequences: useful work per second beside the FMA peak and beside the unfused ways.
#include "peers/unfused_eigen.hpp"
#if defined(TOKENMIX_BENCH_WITH_ONEDNN)
#include "peers/onednn.hpp"
#endif
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/softmax.hpp>

#include <string>
#include <utility>

namespace {

using namespace bench;
namespace mix = tokenmix;

/// One row of the table: what is computed, by whomever.
struct attention_case {
  std::string family;  // with the mask: "prefill_causal"
  attention_shape shape;
  visible_keys sees;
  index_t threads;
};

// Useful work: two operations for each of the D + Dv channels of every pair of a query and a key that it sees. Not causal
// with D = Dv that is 4 B H T S D. The exponentials, the maxima and what is computed and masked away do not count.
useful_work work_of(const attention_case& c) {
  const attention_shape& s = c.shape;
  return {"flop", 4.0 * static_cast<double>(s.B * s.H * s.D) * c.sees.pairs(s.T, s.S)};
}

template <class E>
void attend(const attention_tensors<E>& in, mix::tensor_view<E, 4> out, const visible_keys& sees, const executor& on) {
  switch (sees.which) {
    case visible_keys::kind::all:
      mix::softmax_attention(in.q, in.k, in.v, out, mix::softmax_options{}, on);
      break;
    case visible_keys::kind::causal:
      mix::softmax_attention(in.q, in.k, in.v, out, mix::softmax_options{.mask = mix::causal{}}, on);
      break;
    case visible_keys::kind::window:
      mix::softmax_attention(in.q, in.k, in.v, out,
                             mix::softmax_options{.mask = mix::causal{} & mix::window{.left = sees.window - 1}}, on);
      break;
  }
}

template <class E, class Call>
void measure_case(benchmark::State& state, const attention_case& c, const std::string& name, attention_tensors<E>& data,
                  const executor& on, Call&& call, double workspace = -1.0) {
  const auto verify = [&] { return largest_error(data.q, data.k, data.v, data.out, c.sees); };
  measure(
      state, name + std::to_string(c.shape.T) + '/' + std::to_string(c.shape.D) + '/' + std::to_string(c.threads), on,
      work_of(c), std::forward<Call>(call), verify, tolerated_error<E>(), [&] { return fma_peak<float>(on); },
      workspace);
}

template <class E>
void tokenmix_line(benchmark::State& state, const attention_case& c, const std::string& name) {
  auto& data = tensors_of<attention_tensors<E>>(c.shape);
  const executor on = executor_of(c.threads);
  measure_case(state, c, name, data, on, [&] { attend<E>(data, data.out, c.sees, on); });
}

void eigen_line(benchmark::State& state, const attention_case& c, const std::string& name) {
  auto& data = tensors_of<attention_tensors<float>>(c.shape);
  const executor on = executor_of(c.threads);
  unfused_eigen peer(c.shape, on);
  const auto call = [&] { peer(data.q.data(), data.k.data(), data.v.data(), data.out.data(), c.sees); };
  call();  // takes its workspace
  measure_case(state, c, name, data, on, call, peer.workspace_bytes());
}

#if defined(TOKENMIX_BENCH_WITH_ONEDNN)
void onednn_line(benchmark::State& state, const attention_case& c, const std::string& name) {
  auto& data = tensors_of<attention_tensors<float>>(c.shape);
  const executor on = executor_of(c.threads);
  unfused_onednn peer(c.shape, c.sees, c.threads);
  const auto call = [&] { peer(data.q.data(), data.k.data(), data.v.data(), data.out.data()); };
  measure_case(state, c, name, data, on, call, peer.workspace_bytes());
}
#endif

template <class Line>
void add_line(const options& chosen, const attention_case& c, const std::string& type, const std::string& who,
              Line line) {
  const std::string name = c.family + '/' + type + '/' + who;
  const attention_shape& s = c.shape;
  chosen.finish(
      benchmark::RegisterBenchmark(name.c_str(), [c, name, line](benchmark::State& state) { line(state, c, name); })
          ->ArgNames({"B", "H", "T", "D", "threads"})
          ->Args({s.B, s.H, s.T, s.D, c.threads}));
}

void add_case(const options& chosen, const attention_case& c, bool bfloat16_too) {
  add_line(chosen, c, "float", "tokenmix", tokenmix_line<float>);
  add_line(chosen, c, "float", "unfused_eigen", eigen_line);
#if defined(TOKENMIX_BENCH_WITH_ONEDNN)
  add_line(chosen, c, "float", "onednn", onednn_line);
#endif
  if (bfloat16_too) add_line(chosen, c, "bfloat16", "tokenmix", tokenmix_line<mix::bfloat16>);
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  constexpr auto all = visible_keys::kind::all;
  constexpr auto causal = visible_keys::kind::causal;
  constexpr auto window = visible_keys::kind::window;
  for (const index_t n : chosen.threads) {
    for (const index_t D : {64, 128}) {
      if (chosen.brief && D != 64) continue;
      for (const index_t T : {512, 2048, 8192}) {
        if (chosen.brief && T > 2048) continue;
        const attention_shape shape{1, 8, 8, T, T, D};
        const bool bfloat16_too = !chosen.brief;
        add_case(chosen, {"prefill", shape, {all}, n}, bfloat16_too);
        add_case(chosen, {"prefill_causal", shape, {causal}, n}, bfloat16_too);
        if (T > 512) add_case(chosen, {"prefill_window512", shape, {window, 512}, n}, false);
      }
    }
    add_case(chosen, {"vit", {8, 12, 12, 197, 197, 64}, {all}, n}, false);
    add_case(chosen, {"swin", {256, 3, 3, 49, 49, 32}, {all}, n}, false);
    add_case(chosen, {"fields", {4096, 2, 2, 32, 32, 16}, {all}, n}, false);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "softmax attention, whole sequences", add_all); }
