// SPDX-License-Identifier: Apache-2.0
/// @file Decay between a key and a query as a score modifier: the sum of the log gates of the tokens in between.
#pragma once

#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/primitives/score/lookup.hpp>
#include <tokenmix/primitives/score/score.hpp>

#include <algorithm>
#include <bit>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The sum of two log gates. A reset forgets whatever stands before it, NaN included.
inline double sum_of_gates(double a, double b) {
  constexpr double reset = minus_infinity<double>;
  return a == reset || b == reset ? reset : a + b;
}

/// Sums of the log gates of one head over any run of tokens.
///
/// There is room for a number of tokens; those so far are taken. Tokens are cut into blocks by their positions. A run that leaves the block of its key is the key's rest of the block, whole
/// blocks by a binary tree, and the query's part of its own block: all of them sums of numbers <= 0 in double, so nothing
/// cancels, -infinity needs no care, and the result depends on positions alone.
template <class T>
class gate_sums {
 public:
  static constexpr index_t block = 64;  ///< keys of one tile lie in one block: they are cut at the same positions

  static constexpr index_t blocks(index_t tokens) { return (tokens + block - 1) / block; }
  /// Room for `tokens` tokens, in doubles.
  static constexpr index_t size(index_t tokens) { return 3 * padded(tokens) + 2 * leaves(tokens); }

  gate_sums() = default;
  gate_sums(double* memory, index_t tokens)
      : log_(memory),
        from_start_(memory + padded(tokens)),
        to_end_(reinterpret_cast<T*>(memory + 2 * padded(tokens))),
        tree_(memory + 3 * padded(tokens)),
        tokens_(tokens) {}

  /// Where the log gates go before they are taken: (tokens).
  double* log_gates() { return log_; }

  /// Takes the log gates of tokens [first, last), after those before them. Amortised over tokens, four additions each, and what
  /// the last block costs: the result is that of any other cut into calls.
  void take(index_t first, index_t last) {
    for (index_t t = first; t < last; ++t)
      from_start_[t] = sum_of_gates(t % block == 0 ? 0.0 : from_start_[t - 1], log_[t]);
    const index_t n = leaves(tokens_);
    for (index_t b = first / block; b < last / block; ++b) {
      double to_end = 0;
      for (index_t s = (b + 1) * block; s-- > b * block;) {
        to_end_[s] = static_cast<T>(to_end);
        to_end = sum_of_gates(to_end, log_[s]);
      }
      tree_[n + b] = to_end;
      for (index_t i = n + b; i > 1 && i % 2 != 0; i /= 2) tree_[i / 2] = sum_of_gates(tree_[i - 1], tree_[i]);
    }
    // Of a block that is not whole nothing is asked, but padding lanes read it.
    const index_t rest = last / block * block;
    std::fill(to_end_ + rest, to_end_ + std::min(rest + 2 * block, padded(tokens_)), T(0));
  }

  /// The sums from the end of a key's block to a query of a later block.
  T to_query(index_t key_block, index_t query) const {
    return static_cast<T>(sum_of_gates(between(key_block + 1, query / block), from_start_[query]));
  }
  /// The sums from the keys of one block to its end.
  const T* to_end(index_t key) const { return to_end_ + key; }

  /// f(key, sum) for the keys of a query's own block, from itself down.
  template <class F>
  void each_of_own_block(index_t query, F&& f) const {
    double sum = 0;
    for (index_t s = query; s >= query / block * block; --s) {
      f(s, static_cast<T>(sum));
      sum = sum_of_gates(sum, log_[s]);
    }
  }

 private:
  static constexpr index_t leaves(index_t tokens) {
    return static_cast<index_t>(std::bit_ceil(static_cast<std::size_t>(std::max<index_t>(blocks(tokens), 1))));
  }
  static constexpr index_t padded(index_t tokens) { return (blocks(tokens) + 1) * block; }

  // Blocks [first, last).
  double between(index_t first, index_t last) const {
    double sum = 0;
    index_t a = first + leaves(tokens_), b = last + leaves(tokens_);
    for (; a < b; a /= 2, b /= 2) {
      if (a % 2 != 0) sum = sum_of_gates(sum, tree_[a++]);
      if (b % 2 != 0) sum = sum_of_gates(sum, tree_[--b]);
    }
    return sum;
  }

  double* log_ = nullptr;         // (tokens)
  double* from_start_ = nullptr;  // (tokens) from the block's first token on, both included
  T* to_end_ = nullptr;           // (tokens) of the tokens behind, to the block's last
  double* tree_ = nullptr;        // (2 leaves): node i is the sum of 2 i and 2 i + 1, once the blocks below are whole
  index_t tokens_ = 0;
};

/// score + a + b, or hidden where a or b is -infinity, whatever the others are.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> decayed_score(const simd::batch<T>& score, const simd::batch<T>& a,
                                                    const simd::batch<T>& b) {
  const simd::batch<T> hidden(minus_infinity<T>);
  return simd::select((a == hidden) | (b == hidden), hidden, sum(score, a + b));
}

/// The decays of one tile: all of them laid out, or a number per query and one per key.
template <class T>
struct tile_gates {
  using is_score = void;
  const T* pairs;     // (keys, width) or null
  const T* of_query;  // (width)
  const T* of_key;    // (keys)
  index_t width;
  index_t query_first;
  index_t key_first;

  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& score,
                                                   const query_lanes_index<T>& where) const {
    const index_t lane = where.query.base - query_first;
    const index_t key = where.key - key_first;
    const T* const first = pairs != nullptr ? pairs + key * width : of_query;
    return decayed_score(score, simd::load(first + lane), simd::batch<T>(pairs != nullptr ? T(0) : of_key[key]));
  }
};

/// score -> score + sum of log_gate over the tokens after the key, to the query; for keys up to the query.
template <class T>
struct forget_gates {
  using is_score = void;
  const gate_sums<T>* sums;  // (sequences, gate heads)
  index_t gate_heads;
  index_t group;  ///< query heads of one gate

  const gate_sums<T>& of(index_t number, index_t head) const { return sums[number * gate_heads + head / group]; }

  // Keys in the lanes: they lie in one block, but for padding lanes.
  TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(const simd::batch<T>& score, const key_lanes_index<T>& where) const {
    const gate_sums<T>& gates = of(where.batch, where.head);
    const index_t key = where.key.base;
    if (const index_t block = key / gates.block; block < where.query / gates.block)
      return decayed_score(score, simd::batch<T>(gates.to_query(block, where.query)), simd::load(gates.to_end(key)));
    return decayed_score(score, of_own_block(gates, where.query, key), simd::batch<T>(T(0)));
  }

  tile_gates<T> prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    const gate_sums<T>& gates = of(tile.batch, tile.head);
    const index_t block = tile.key_first / gates.block;
    const index_t w = tile.width;
    T* of_query = frame.take<T>(w);
    bool one_block_apart = true;
    for (index_t i = 0; i < w; ++i) {
      // Padding lanes do what the last query does.
      const index_t query = query_of(tile, i);
      const bool later = query / gates.block > block;
      one_block_apart = one_block_apart && later;
      of_query[i] = later ? gates.to_query(block, query) : T(0);
    }
    tile_gates<T> result{nullptr, of_query, gates.to_end(tile.key_first), w, tile.query_first, tile.key_first};
    if (one_block_apart) return result;
    T* pairs = frame.take<T>(tile.key_count * w);
    for (index_t j = 0; j < tile.key_count; ++j) {
      for (index_t i = 0; i < w; ++i) {
        const T a = of_query[i], b = result.of_key[j];
        pairs[j * w + i] = a == minus_infinity<T> ? a : a + b;
      }
    }
    for (index_t i = 0; i < w; ++i) {
      const index_t query = query_of(tile, i);
      if (query < 0 || query / gates.block != block) continue;  // keys behind the query are hidden by the mask
      gates.each_of_own_block(query, [&](index_t s, T sum) {
        const index_t j = s - tile.key_first;
        if (j >= 0 && j < tile.key_count) pairs[j * w + i] = sum;
      });
    }
    result.pairs = pairs;
    return result;
  }

 private:
  static index_t query_of(const score_tile<T>& tile, index_t lane) {
    return tile.query_first + std::min(lane, tile.query_count - 1);
  }

  static TOKENMIX_NOINLINE simd::batch<T> of_own_block(const gate_sums<T>& gates, index_t query, index_t key) {
    constexpr index_t L = simd::lanes<T>;
    alignas(64) T decays[static_cast<std::size_t>(L)] = {};
    if (query >= 0) {
      gates.each_of_own_block(query, [&](index_t s, T sum) {
        if (s >= key && s < key + L) decays[s - key] = sum;
      });
    }
    return simd::load(decays);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
