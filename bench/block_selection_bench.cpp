// SPDX-License-Identifier: Apache-2.0
// Attention whose queries choose blocks of keys: native sparse attention and its selected branch, and what choosing takes of the time
// that it saves. Useful work is 4 D operations per visible pair, of all branches; where blocks are chosen, pairs of a query and an
// earlier block, and the limit is the rate at which choosing takes a tenth of what dense causal attention takes longer than the sparse one.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;
using tensors = attention_tensors<float>;
using rows = mix::tensor<float, 4>;

double number(float value) { return static_cast<double>(value); }

double dot(const float* a, const float* b, index_t n) {
  double sum = 0;
  for (index_t d = 0; d < n; ++d) sum += number(a[d]) * number(b[d]);
  return sum;
}

/// The n first of some scores: the largest, ties by index; ascending.
std::vector<index_t> best(const std::vector<double>& scores, index_t n) {
  std::vector<index_t> order(scores.size());
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<index_t>(j);
  std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    const double x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(n)));
  std::sort(order.begin(), order.end());
  return order;
}

/// The weights of a query over rows of keys, in float64.
std::vector<double> weights_of(const float* q, const rows& k, const std::vector<index_t>& keys, index_t D) {
  std::vector<double> weights;
  double sum = 0;
  for (const index_t s : keys) {
    weights.push_back(std::exp(dot(q, k.row(0, 0, s), D) / std::sqrt(static_cast<double>(D))));
    sum += weights.back();
  }
  for (double& w : weights) w /= sum;
  return weights;
}

void add_values(double gate, const std::vector<double>& weights, const rows& v, const std::vector<index_t>& keys,
                std::vector<double>& sum) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t d = 0; d < sum.size(); ++d) {
      sum[d] += gate * weights[i] * number(v(0, 0, keys[i], static_cast<index_t>(d)));
    }
  }
}

std::vector<index_t> range(index_t first, index_t last) {
  std::vector<index_t> keys;
  for (index_t s = std::max<index_t>(first, 0); s < last; ++s) keys.push_back(s);
  return keys;
}

/// Compressed keys and values, gates, and options.
struct native_case {
  mix::native_sparse_attention_options<> options{.length = 32, .stride = 16};
  rows ck, cv, gate;

  explicit native_case(const attention_shape& s)
      : ck({1, s.Hk, compressed(s.S), s.D}), cv({1, s.Hk, compressed(s.S), s.D}), gate({1, s.H, s.T, 3}, 0.5f) {
    normal_numbers next(7);
    for (float& x : ck) x = next();
    for (float& x : cv) x = next();
  }
  index_t compressed(index_t keys) const {
    return keys < *options.length ? 0 : (keys - *options.length) / *options.stride + 1;
  }

  void call(tensors& x, const executor& on) const {
    mix::native_sparse_attention(
        mix::native_sparse_attention_inputs<float, float>{
            .q = x.q, .k = x.k, .v = x.v, .compressed_k = ck, .compressed_v = cv, .gate = gate},
        x.out.view(), options, on);
  }

  /// Pairs of a head.
  double pairs(index_t T) const {
    double sum = 0;
    for (index_t t = 0; t < T; ++t) {
      sum += static_cast<double>(compressed(t + 1) + std::min(t + 1, options.window));
      sum +=
          static_cast<double>(std::min(options.blocks - 1, t / options.block) * options.block + t % options.block + 1);
    }
    return sum;
  }

  double error(const tensors& x) const {
    double largest = 0;
    const index_t D = x.shape.D, H = x.shape.H, block = options.block;
    for (index_t sample = 0; sample < 3; ++sample) {
      const index_t t = (x.shape.T - 1) * (sample + 1) / 3;
      const std::vector<index_t> seen = range(0, compressed(t + 1));
      std::vector<double> importance(static_cast<std::size_t>(t / block), 0.0);
      for (index_t h = 0; h < H; ++h) {
        const std::vector<double> weights = weights_of(x.q.row(0, h, t), ck, seen, D);
        for (const index_t i : seen) {
          for (index_t s = i * *options.stride; s < i * *options.stride + *options.length; s += *options.stride) {
            if (s / block < t / block)
              importance[static_cast<std::size_t>(s / block)] += weights[static_cast<std::size_t>(i)];
          }
        }
      }
      for (index_t j = 0; j < t / block; ++j) {
        if (j < options.first || j > t / block - options.local) importance[static_cast<std::size_t>(j)] = 1e9;
      }
      std::vector<index_t> selected;
      for (const index_t j : best(importance, options.blocks - 1)) {
        for (index_t s = j * block; s < (j + 1) * block; ++s) selected.push_back(s);
      }
      for (index_t s = t / block * block; s <= t; ++s) selected.push_back(s);
      const std::vector<index_t> near = range(t + 1 - options.window, t + 1);
      for (index_t h = 0; h < H; ++h) {
        const float* q = x.q.row(0, h, t);
        std::vector<double> sum(static_cast<std::size_t>(D), 0.0);
        add_values(0.5, weights_of(q, ck, seen, D), cv, seen, sum);
        add_values(0.5, weights_of(q, x.k, selected, D), x.v, selected, sum);
        add_values(0.5, weights_of(q, x.k, near, D), x.v, near, sum);
        for (index_t d = 0; d < D; ++d) {
          const double error = std::abs(number(x.out(0, h, t, d)) - sum[static_cast<std::size_t>(d)]);
          if (!(error <= largest)) largest = error;
        }
      }
    }
    return largest;
  }
};

/// Blocks of 64 chosen by pooled keys: by every query for itself, or by blocks of queries.
constexpr index_t block = 64;

mix::block_index index_of_means(const tensors& x, index_t blocks) {
  const index_t n = x.shape.T / block, D = x.shape.D;
  rows q({1, 1, n, D}), k({1, 1, n, D});
  mix::segment_pool(mix::tensor_view<const float, 4>(x.q), block, q.view());
  mix::segment_pool(mix::tensor_view<const float, 4>(x.k), block, k.view());
  rows scores({1, 1, n, n}, -std::numeric_limits<float>::infinity());
  for (index_t i = 0; i < n; ++i) {
    for (index_t j = 0; j < i; ++j) {
      float sum = 0;
      for (index_t d = 0; d < D; ++d) sum += q(0, 0, i, d) * k(0, 0, j, d);
      scores(0, 0, i, j) = sum;
    }
    scores(0, 0, i, i) = std::numeric_limits<float>::max();
  }
  return mix::block_index_of_scores(mix::tensor_view<const float, 4>(scores), blocks,
                                    {.queries = x.shape.T, .keys = x.shape.T});
}

void choose_of_each(
    const tensors& x, index_t blocks, const executor& on,
    const std::function<void(const mix::detail::query_panel&, const mix::detail::chosen_blocks&)>& use) {
  mix::scratch_frame frame;
  const mix::whole_sequences whole{};
  const mix::tensor_view<const float, 4> q = x.q, k = x.k;
  const mix::detail::block_means<float> means(k, whole, x.shape.T, block, frame, on);
  mix::detail::run_panels(
      whole, 1, x.shape.T, x.shape.T, 1, 1, on, [&](const mix::detail::query_panel& panel, index_t i) {
        mix::scratch_frame own;
        use(panel, mix::detail::choose_by_means(q, panel, means.of(i, 0, x.shape.T / block), block, blocks, own));
      });
}

struct line {
  std::string name;
  const char* unit;
  attention_shape shape;
  std::function<double(const tensors&)> work;
  std::function<void(tensors&, const executor&)> call;
  std::function<double(tensors&)> verify;
  std::function<double(tensors&, const executor&)> limit;
};

void add_line(const options& chosen, const line& l, index_t threads) {
  chosen.finish(benchmark::RegisterBenchmark(l.name.c_str(),
                                             [l, threads](benchmark::State& state) {
                                               auto& data = tensors_of<tensors>(l.shape);
                                               const executor on = executor_of(threads);
                                               measure(
                                                   state, l.name, on, {l.unit, l.work(data)}, [&] { l.call(data, on); },
                                                   [&] { return l.verify(data); }, tolerated_error<float>(),
                                                   [&] { return l.limit(data, on); });
                                             })
                    ->ArgNames({"H", "T", "D", "threads"})
                    ->Args({l.shape.H, l.shape.T, l.shape.D, threads}));
}

/// Pairs of a query and a block before its own.
double pairs_decided(index_t T) {
  double sum = 0;
  for (index_t t = 0; t < T; ++t) sum += static_cast<double>(t / block);
  return sum;
}

/// Pairs per second at which choosing takes a tenth of what `sparse` saves.
double tenth_of_saving(tensors& x, const executor& on, const std::function<void(tensors&, const executor&)>& sparse) {
  const double dense = quickest(
      [&] { mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mix::causal{}}, on); }, 2);
  return pairs_decided(x.shape.T) / (0.1 * (dense - quickest([&] { sparse(x, on); }, 2)));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  const auto peak = [](tensors&, const executor& on) { return fma_peak<float>(on); };
  for (const index_t n : chosen.threads) {
    const index_t T = chosen.brief ? 2048 : 8192, blocks = 8;
    const attention_shape shape{1, 4, 1, T, T, 64}, one{1, 1, 1, T, T, 64};
    const auto native = std::make_shared<native_case>(shape);
    add_line(chosen,
             {"native_sparse/float/tokenmix", "flop", shape,
              [native](const tensors& x) {
                return 4.0 * static_cast<double>(x.shape.H * x.shape.D) * native->pairs(x.shape.T);
              },
              [native](tensors& x, const executor& on) { native->call(x, on); },
              [native](tensors& x) { return native->error(x); }, peak},
             n);
    const auto decided = [](const tensors& x) { return pairs_decided(x.shape.T); };
    const auto mixture = [blocks](tensors& x, const executor& on) {
      mix::mixture_of_block_attention(x.q, x.k, x.v, x.out,
                                      mix::mixture_of_block_options<>{.block = block, .blocks = blocks}, on);
    };
    add_line(chosen,
             {"mixture_8_of_64_choice/float/tokenmix", "choice", one, decided,
              [](tensors& x, const executor& on) { choose_of_each(x, blocks, on, [](const auto&, const auto&) {}); },
              [](tensors& x) {
                // Blocks chosen of a few queries against those by float64 scores.
                double wrong = 0;
                choose_of_each(x, blocks, executor_of(1), [&](const auto& panel, const auto& lists) {
                  for (index_t i = 0; i < panel.count; i += 97) {
                    const index_t t = panel.first + i;
                    std::vector<double> scores;
                    for (index_t j = 0; j < t / block; ++j) {
                      double sum = 0;
                      for (index_t s = j * block; s < (j + 1) * block; ++s)
                        sum += dot(x.q.row(0, 0, t), x.k.row(0, 0, s), x.shape.D);
                      scores.push_back(sum);
                    }
                    const std::vector<index_t> expected = best(scores, blocks - 1);
                    if (!std::equal(expected.begin(), expected.end(), lists.list(i))) ++wrong;
                  }
                });
                return wrong;
              },
              [mixture](tensors& x, const executor& on) { return tenth_of_saving(x, on, mixture); }},
             n);
    add_line(chosen,
             {"block_sparse_8_of_64_choice/float/tokenmix", "choice", one, decided,
              [](tensors& x, const executor&) { benchmark::DoNotOptimize(index_of_means(x, blocks).columns.data()); },
              [](tensors& x) { return index_of_means(x, blocks).columns.empty() ? 1.0 : 0.0; },
              [](tensors& x, const executor& on) {
                const mix::block_index index = index_of_means(x, blocks);
                return tenth_of_saving(x, on, [&](tensors& y, const executor& with) {
                  mix::block_sparse_attention(y.q, y.k, y.v, index.pattern(), y.out,
                                              mix::softmax_options{.mask = mix::causal{}}, with);
                });
              }},
             n);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "attention over chosen blocks", add_all); }
