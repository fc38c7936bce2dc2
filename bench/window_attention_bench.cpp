// SPDX-License-Identifier: Apache-2.0
// The window family: useful work on visible pairs beside the FMA peak, and dense attention with the same mask where it ends in time.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/softmax.hpp>
#include <tokenmix/window.hpp>

#include <functional>
#include <string>

namespace {

using namespace bench;
namespace mix = tokenmix;

using sight = std::function<bool(index_t query, index_t key)>;
using attention_call = std::function<void(attention_tensors<float>&, const executor&)>;

/// One line of the table: who sees whom, how many pairs of a head that are, and the call.
struct window_case {
  std::string name;
  attention_shape shape;
  double pairs;
  sight sees;
  attention_call call;
};

/// The largest error of some rows against the formula in double.
double error_of(const attention_tensors<float>& x, const sight& sees) {
  const attention_shape& s = x.shape;
  const index_t b = s.B - 1, h = s.H - 1;
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.D));
  double largest = 0.0;
  for (index_t sample = 0; sample < 9; ++sample) {
    const index_t t = sample * (s.T - 1) / 8;
    std::vector<double> out(static_cast<std::size_t>(s.D));
    double most = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (index_t key = 0; key < s.S; ++key) {
      if (!sees(t, key)) continue;
      double score = 0.0;
      for (index_t d = 0; d < s.D; ++d)
        score += static_cast<double>(x.q(b, h, t, d)) * static_cast<double>(x.k(b, h, key, d));
      score *= scale;
      const double before = score > most ? std::exp(most - score) : 1.0,
                   weight = score > most ? 1.0 : std::exp(score - most);
      most = std::max(most, score);
      sum = sum * before + weight;
      for (index_t d = 0; d < s.D; ++d) {
        double& o = out[static_cast<std::size_t>(d)];
        o = o * before + weight * static_cast<double>(x.v(b, h, key, d));
      }
    }
    for (index_t d = 0; d < s.D; ++d) {
      const double error = std::abs(static_cast<double>(x.out(b, h, t, d)) - out[static_cast<std::size_t>(d)] / sum);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

void add(const options& chosen, const window_case& c, index_t threads) {
  const attention_shape& s = c.shape;
  chosen.finish(benchmark::RegisterBenchmark(
                    c.name.c_str(),
                    [c, threads](benchmark::State& state) {
                      auto& data = tensors_of<attention_tensors<float>>(c.shape);
                      const executor on = executor_of(threads);
                      const double flops = 4.0 * static_cast<double>(c.shape.B * c.shape.H * c.shape.D) * c.pairs;
                      measure(
                          state, c.name + std::to_string(c.shape.T) + '/' + std::to_string(c.shape.D), on,
                          {"flop", flops}, [&] { c.call(data, on); }, [&] { return error_of(data, c.sees); },
                          tolerated_error<float>(), [&] { return fma_peak<float>(on); });
                    })
                    ->ArgNames({"B", "H", "T", "D", "threads"})
                    ->Args({s.B, s.H, s.T, s.D, threads}));
}

double causal_pairs(index_t T, index_t window) {
  const double full = static_cast<double>(window), start = static_cast<double>(std::min(T, window));
  return start * (start + 1) / 2 + full * std::max(0.0, static_cast<double>(T) - full);
}

void add_sliding(const options& chosen, index_t T, index_t window, index_t dilation, index_t threads) {
  const attention_shape shape{1, 8, 8, T, T, 64};
  double pairs = 0.0;
  for (index_t residue = 0; residue < dilation; ++residue)
    pairs += causal_pairs((T - residue + dilation - 1) / dilation, window);
  const sight sees = [=](index_t q, index_t k) {
    return k <= q && (q - k) % dilation == 0 && q - k < window * dilation;
  };
  const std::string name = "sliding_" + std::to_string(window) + (dilation > 1 ? "_dilated" : "") + "/float/";
  add(chosen,
      {name + "tokenmix", shape, pairs, sees,
       [=](attention_tensors<float>& x, const executor& on) {
         mix::sliding_window_attention(x.q, x.k, x.v, x.out.view(),
                                       mix::sliding_window_options<>{.left = window - 1, .dilation = dilation}, on);
       }},
      threads);
  if (T > 8192 || dilation > 1) return;
  add(chosen,
      {name + "dense", shape, pairs, sees,
       [=](attention_tensors<float>& x, const executor& on) {
         const auto mask = [=](const auto& w) { return w.key <= w.query && w.key > w.query - window; };
         mix::softmax_attention(x.q, x.k, x.v, x.out.view(), mix::softmax_options<decltype(mask)>{.mask = mask}, on);
       }},
      threads);
}

void add_neighborhood(const options& chosen, index_t side, index_t window, index_t D, index_t threads) {
  const attention_shape shape{1, 4, 4, side * side, side * side, D};
  const auto near = [=](index_t q, index_t k) {
    const index_t start = std::clamp<index_t>(q - window / 2, 0, side - window);
    return k >= start && k < start + window;
  };
  add(chosen,
      {"neighborhood_" + std::to_string(window) + "/float/tokenmix", shape,
       static_cast<double>(side * side * window * window),
       [=](index_t q, index_t k) { return near(q / side, k / side) && near(q % side, k % side); },
       [=](attention_tensors<float>& x, const executor& on) {
         mix::neighborhood_attention(x.q, x.k, x.v, x.out.view(),
                                     mix::neighborhood_options<>{.grid = {side, side}, .window = {window, window}}, on);
       }},
      threads);
}

void add_swin(const options& chosen, index_t threads) {
  const attention_shape shape{4, 3, 3, 56 * 56, 56 * 56, 32};
  add(chosen,
      {"swin_7/float/tokenmix", shape, 56.0 * 56 * 49,
       [](index_t q, index_t k) { return q / 56 / 7 == k / 56 / 7 && q % 56 / 7 == k % 56 / 7; },
       [](attention_tensors<float>& x, const executor& on) {
         mix::shifted_window_attention(x.q, x.k, x.v, x.out.view(),
                                       mix::shifted_window_options<>{.grid = {56, 56}, .window = {7, 7}}, on);
       }},
      threads);
}

void add_chunked(const options& chosen, index_t size, index_t threads) {
  const attention_shape shape{1, 8, 8, 8192, 8192, 64};
  add(chosen,
      {"chunked_" + std::to_string(size) + "/float/tokenmix", shape, 8192.0 * static_cast<double>(size),
       [=](index_t q, index_t k) { return q / size == k / size; },
       [=](attention_tensors<float>& x, const executor& on) {
         mix::chunked_attention(x.q, x.k, x.v, x.out.view(), mix::chunked_options<>{.size = size}, on);
       }},
      threads);
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t window : {128, 512})
      for (const index_t T : {8192, 65536})
        if (!chosen.brief || T == 8192) add_sliding(chosen, T, window, 1, n);
    add_sliding(chosen, 8192, 128, 4, n);
    for (const index_t D : {32, 64}) {
      add_neighborhood(chosen, 56, 7, D, n);
      if (!chosen.brief) add_neighborhood(chosen, 112, 13, D, n);
    }
    add_swin(chosen, n);
    add_chunked(chosen, 256, n);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "window attention", add_all); }
