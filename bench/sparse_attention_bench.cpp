// SPDX-License-Identifier: Apache-2.0
// Sparse attention: time against density and, at a fixed window, against length; beside dense attention, plain and with the same
// mask asked pair by pair. Useful work is 4 D operations per visible pair, of the keys that are chosen where keys are chosen.
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;
using tensors = attention_tensors<float>;

constexpr index_t block = 64;

/// The largest error of sampled rows against float64; sees(row) lists the keys of a query of head 0.
double error_of_rows(const tensors& x, const std::function<std::vector<index_t>(index_t)>& sees) {
  double largest = 0;
  const auto number = [](float value) { return static_cast<double>(value); };
  for (index_t sample = 0; sample < 5; ++sample) {
    const index_t t = (x.shape.T - 1) * sample / 4;
    std::vector<double> sum(static_cast<std::size_t>(x.shape.D), 0.0);
    double total = 0;
    for (const index_t s : sees(t)) {
      double score = 0;
      for (index_t d = 0; d < x.shape.D; ++d) score += number(x.q(0, 0, t, d)) * number(x.k(0, 0, s, d));
      const double weight = std::exp(score / std::sqrt(static_cast<double>(x.shape.D)));
      total += weight;
      for (index_t d = 0; d < x.shape.D; ++d) sum[static_cast<std::size_t>(d)] += weight * number(x.v(0, 0, s, d));
    }
    for (index_t d = 0; d < x.shape.D; ++d) {
      const double error = std::abs(number(x.out(0, 0, t, d)) - sum[static_cast<std::size_t>(d)] / total);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

template <class Mask>
std::vector<index_t> keys_of(const Mask& mask, const tensors& x, index_t t) {
  std::vector<index_t> keys;
  for (index_t s = 0; s < x.shape.S; ++s)
    if (mix::mask_at(mask, mix::index{0, 0, t, s, x.shape.T, x.shape.S})) keys.push_back(s);
  return keys;
}

/// The `count` best of n by score(j) in float64, the best first.
std::vector<index_t> best(index_t n, index_t count, const std::function<double(index_t)>& score) {
  std::vector<std::pair<double, index_t>> scores;
  for (index_t j = 0; j < n; ++j) scores.emplace_back(-score(j), j);
  std::sort(scores.begin(), scores.end());
  std::vector<index_t> chosen;
  for (index_t i = 0; i < std::min(n, count); ++i) chosen.push_back(scores[static_cast<std::size_t>(i)].second);
  return chosen;
}

/// q[t].key over channels [first, first + count) of q in float64.
double product(const tensors& x, index_t t, index_t first, index_t count, const std::function<double(index_t)>& key) {
  double sum = 0;
  for (index_t d = 0; d < count; ++d) sum += static_cast<double>(x.q(0, 0, t, first + d)) * key(d);
  return sum;
}

/// An indexer whose heads are runs of `channels` channels of q, and whose keys are the first channels of k.
struct few_channels {
  index_t heads, channels, k;
  std::shared_ptr<mix::tensor<index_t, 4>> indices = std::make_shared<mix::tensor<index_t, 4>>();
  std::shared_ptr<mix::tensor<index_t, 3>> counts = std::make_shared<mix::tensor<index_t, 3>>();
  std::shared_ptr<mix::tensor<float, 3>> weights = std::make_shared<mix::tensor<float, 3>>();

  few_channels(index_t h, index_t c, index_t chosen, index_t T) : heads(h), channels(c), k(chosen) {
    *indices = mix::tensor<index_t, 4>({1, 1, T, k});
    *counts = mix::tensor<index_t, 3>({1, 1, T});
    *weights = mix::tensor<float, 3>({1, heads, T}, 1.0f);
  }
  std::string name() const { return std::to_string(heads) + "x" + std::to_string(channels); }
  double score(const tensors& x, index_t t, index_t s) const {
    double sum = 0;
    for (index_t h = 0; h < heads; ++h) {
      sum += std::max(
          0.0, product(x, t, h * channels, channels, [&](index_t d) { return static_cast<double>(x.k(0, 0, s, d)); }));
    }
    return sum;
  }
  void choose(const tensors& x, const executor& on) const {
    const index_t T = x.shape.T, D = x.shape.D;
    mix::top_k_indexer(mix::indexer_inputs<float>{.q = {x.q.data(), {1, heads, T, channels}, {T * D, channels, D, 1}},
                                                  .k = {x.k.data(), {1, x.shape.S, channels}, {x.shape.S * D, D, 1}},
                                                  .weights = *weights},
                       indices->view(), counts->view(), mix::top_k_indexer_options<>{}, on);
  }
  void attend(tensors& x, const executor& on) const {
    choose(x, on);
    mix::gathered_attention(
        mix::gathered_attention_inputs<float, float>{.q = x.q, .k = x.k, .v = x.v, .indices = *indices}, x.out.view(),
        mix::gathered_attention_options<>{}, on);
  }
  /// By how much the worst key of a list falls short of the worst that it should have, in sampled rows.
  double shortfall(const tensors& x) const {
    double largest = 0;
    for (index_t sample = 0; sample < 5; ++sample) {
      const index_t t = (x.shape.T - 1) * sample / 4;
      const double least = score(x, t, best(x.shape.S, k, [&](index_t s) { return score(x, t, s); }).back());
      for (index_t i = 0; i < k; ++i) largest = std::max(largest, least - score(x, t, (*indices)(0, 0, t, i)));
    }
    return largest;
  }
};

/// The keys that a query sees on average in so many blocks of `size` keys, its own up to itself.
double mixture_pairs(index_t T, index_t blocks, index_t size) {
  double sum = 0;
  for (index_t t = 0; t < T; ++t) sum += static_cast<double>(std::min(blocks - 1, t / size) * size + t % size + 1);
  return sum / static_cast<double>(T);
}

struct line {
  std::string name;
  double pairs_per_query;
  std::function<void(tensors&, const executor&)> call;
  std::function<double(const tensors&)> verify;
};

void add_line(const options& chosen, const line& l, index_t T, index_t threads) {
  const attention_shape shape{1, 1, 1, T, T, 64};
  chosen.finish(benchmark::RegisterBenchmark(l.name.c_str(),
                                             [l, shape, threads](benchmark::State& state) {
                                               auto& data = tensors_of<tensors>(shape);
                                               const executor on = executor_of(threads);
                                               const double work =
                                                   4.0 * static_cast<double>(shape.T * shape.D) * l.pairs_per_query;
                                               measure(
                                                   state, l.name + std::to_string(shape.T), on, {"flop", work},
                                                   [&] { l.call(data, on); }, [&] { return l.verify(data); },
                                                   tolerated_error<float>(), [&] { return fma_peak<float>(on); });
                                             })
                    ->ArgNames({"T", "D", "threads"})
                    ->Args({T, shape.D, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    const index_t T = chosen.brief ? 2048 : 8192;
    const index_t columns = T / block;
    add_line(
        chosen,
        {"dense/float/tokenmix", static_cast<double>(T),
         [](tensors& x, const executor& on) {
           mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{}, on);
         },
         [](const tensors& x) { return error_of_rows(x, [&](index_t t) { return keys_of(mix::all_keys{}, x, t); }); }},
        T, n);
    for (const index_t part : {64, 16, 4, 1}) {
      if (columns < part || (columns / part > mix::random_blocks::most && part != 1)) continue;
      const mix::random_blocks mask{.count = part == 1 ? mix::random_blocks::most : columns / part, .seed = 1};
      // A density of 1 is the list of all.
      auto index =
          std::make_shared<mix::block_index>(part == 1 ? mix::block_index_of(mix::all_keys{}, {.queries = T, .keys = T})
                                                       : mix::block_index_of(mask, {.queries = T, .keys = T}));
      const auto sees = [index](const tensors& x) {
        return error_of_rows(x, [&](index_t t) { return keys_of(index->pattern(), x, t); });
      };
      add_line(chosen,
               {"block_sparse_1_" + std::to_string(part) + "/float/tokenmix",
                static_cast<double>(T) / static_cast<double>(part),
                [index](tensors& x, const executor& on) {
                  mix::block_sparse_attention(x.q, x.k, x.v, index->pattern(), x.out, mix::softmax_options{}, on);
                },
                sees},
               T, n);
      if (part != 16) continue;
      add_line(chosen,
               {"block_sparse_1_16/float/dense", static_cast<double>(T) / 16,
                [index](tensors& x, const executor& on) {
                  const mix::block_pattern pattern = index->pattern();
                  const auto hides = [&](const mix::index& where) { return pattern(where); };
                  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = hides}, on);
                },
                sees},
               T, n);
    }
    for (const index_t length : {2048, 8192, 32768}) {
      if (chosen.brief && length > 2048) continue;
      const auto mask = mix::causal{} & mix::window{.left = 511};
      auto index = std::make_shared<mix::block_index>(mix::block_index_of(mask, {.queries = length, .keys = length}));
      add_line(chosen,
               {"block_sparse_window_512/float/tokenmix", 512.0,
                [index, mask](tensors& x, const executor& on) {
                  mix::block_sparse_attention(x.q, x.k, x.v, index->pattern(), x.out,
                                              mix::softmax_options{.mask = mask}, on);
                },
                [mask](const tensors& x) { return error_of_rows(x, [&](index_t t) { return keys_of(mask, x, t); }); }},
               length, n);
    }
    for (const index_t k : {T / 128, T / 32}) {
      add_line(chosen,
               {"top_k_1_" + std::to_string(T / k) + "/float/tokenmix", static_cast<double>(k),
                [k](tensors& x, const executor& on) {
                  mix::top_k_attention(x.q, x.k, x.v, x.out, mix::top_k_options{.k = k}, on);
                },
                [k](const tensors& x) {
                  return error_of_rows(x, [&](index_t t) {
                    return best(x.shape.S, k, [&](index_t s) {
                      return product(x, t, 0, x.shape.D,
                                     [&](index_t d) { return static_cast<double>(x.k(0, 0, s, d)); });
                    });
                  });
                }},
               T, n);
    }
    // Scores of one channel cost next to nothing: what is left is choosing.
    const index_t k = T / 128;
    for (const few_channels& indexer :
         {few_channels(1, 1, k, T), few_channels(1, 16, k, T), few_channels(4, 16, k, T)}) {
      const bool alone = indexer.channels == 1;
      add_line(chosen,
               {(alone ? "selection" : "indexer_" + indexer.name()) + "_1_128/float/tokenmix", static_cast<double>(k),
                [indexer](tensors& x, const executor& on) { indexer.choose(x, on); },
                [indexer](const tensors& x) { return indexer.shortfall(x); }},
               T, n);
      if (alone) continue;
      add_line(chosen,
               {"indexed_" + indexer.name() + "_1_128/float/tokenmix", static_cast<double>(k),
                [indexer](tensors& x, const executor& on) { indexer.attend(x, on); },
                [indexer](const tensors& x) {
                  return error_of_rows(x, [&](index_t t) {
                    return best(x.shape.S, indexer.k, [&](index_t s) { return indexer.score(x, t, s); });
                  });
                }},
               T, n);
    }
    // With one block nothing is chosen: the difference is what choosing and attending to the other seven takes.
    for (const auto& [blocks, size] : {std::pair<index_t, index_t>{1, 64}, {8, 64}, {8, 128}}) {
      add_line(chosen,
               {"mixture_" + std::to_string(blocks) + "_of_" + std::to_string(size) + "/float/tokenmix",
                mixture_pairs(T, blocks, size),
                [blocks = blocks, size = size](tensors& x, const executor& on) {
                  mix::mixture_of_block_attention(x.q, x.k, x.v, x.out,
                                                  mix::mixture_of_block_options<>{.block = size, .blocks = blocks}, on);
                },
                [blocks = blocks, size = size](const tensors& x) {
                  return error_of_rows(x, [&](index_t t) {
                    std::vector<index_t> keys;
                    for (const index_t j : best(t / size, blocks - 1, [&](index_t of) {
                           return product(x, t, 0, x.shape.D, [&](index_t d) {
                             double sum = 0;
                             for (index_t s = of * size; s < (of + 1) * size; ++s)
                               sum += static_cast<double>(x.k(0, 0, s, d));
                             return sum;
                           });
                         }))
                      for (index_t s = j * size; s < (j + 1) * size; ++s) keys.push_back(s);
                    for (index_t s = t / size * size; s <= t; ++s) keys.push_back(s);
                    return keys;
                  });
                }},
               T, n);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "sparse attention", add_all); }
