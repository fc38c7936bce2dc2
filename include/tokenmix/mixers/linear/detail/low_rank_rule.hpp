// SPDX-License-Identifier: Apache-2.0
/// @file The rule whose tokens read the state with one vector, write that with another, and add a key and a value.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/gate_rows.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The checked arguments. The heads of log_decay divide Hv.
template <class Q, class E, class G, class Gate>
struct low_rank_problem {
  using T = accumulator_t<Q>;
  tensor_view<const Q, 4> q;          // (B, H, T, D), H a multiple of Hk
  tensor_view<const E, 4> k;          // (B, Hk, T, D)
  tensor_view<const E, 4> v;          // (B, Hv, T, Dv)
  tensor_view<const E, 4> a;          // (B, Hk, T, D)
  tensor_view<const E, 4> b;          // (B, Hk, T, D)
  tensor_view<const G, 4> log_decay;  // (B, Hg, T, D) or empty
  tensor_view<const T, 1> rate;       // (Hg) or empty
  tensor_view<const T, 2> bias;       // (Hg, D) or empty
  const Gate& gate;
  T scale;
  tokenmix::order order;

  bool reversed() const { return order == tokenmix::order::reverse; }
};

/// S = (diag(decay) + a b') S + k v'. See chunk.hpp for what a rule is: x are the values, u what b reads.
template <class Problem, bool Decays>
class low_rank_rule {
 public:
  using T = typename Problem::T;
  static constexpr index_t chunk_tokens = 8;  // with two writes and two reads per token
  static constexpr index_t step_writes = 2;
  static constexpr bool by_token = false;
  static constexpr bool solves = true;
  static constexpr bool adds = true;
  static constexpr bool reads_before = true;
  static constexpr bool reads_after = false;
  static constexpr bool reads_together = true;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = Decays ? factor::number : factor::none;
  static constexpr factor erase = factor::none;

  low_rank_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        tokens_(problem, problem.k.extent(3)),
        writes_(frame.take<T>(2 * C * tokens_.stride)),
        reads_(frame.take<T>((1 + tokens_.query_heads) * C * tokens_.stride)),
        transposed_(tokens_.features, 2 * C, frame),
        pairs_(frame.take<T>((1 + tokens_.query_heads) * C * lines + L)) {
    if constexpr (Decays) {
      const index_t stride = tokens_.stride;
      gates_ = {tokens_.features, C, false, frame};
      factors_ = frame.take<T>(C * stride);
      keep_ = frame.take<T>(stride);
      decayed_reads_ = frame.take<T>((1 + tokens_.query_heads) * C * stride);
      decayed_writes_ = frame.take<T>(2 * C * stride);
      packed_ = frame.take<T>(2 * C * stride);
    }
  }

  index_t features() const { return tokens_.features; }
  static constexpr index_t writes_per_token() { return 1; }
  static constexpr T* sum() { return nullptr; }

  void go_to(const sequence& seq, index_t key_head) { tokens_.go_to(seq, key_head); }

  void load(index_t first, index_t count, bool keys, bool queries) {
    tokens_.begin(first, count, keys, queries);
    gates_.begin(tokens_.seq, first, count);
    const index_t D = tokens_.features, stride = tokens_.stride;
    load_channels(tokens_.rows_of_keys(problem_.k), first, count, D, 0, writes_, stride);
    load_channels(tokens_.rows_of_keys(problem_.a), first, count, D, 0, writes_ + count * stride, stride);
    load_channels(tokens_.rows_of_keys(problem_.b), first, count, D, 0, reads_, stride);
    tokens_.load_queries(as_given(), reads_ + count * stride);
    if constexpr (!Decays) products();
  }

  void ahead(index_t first, index_t count, bool, bool queries, simd::lines_ahead& list) const {
    for (const auto* x : {&problem_.k, &problem_.a, &problem_.b})
      tokens_.ask_for(tokens_.rows_of_keys(*x), 0, tokens_.features, first, count, list);
    if (queries) tokens_.ask_for_queries(first, count, list);
  }
  void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    tokens_.ask_for(tokens_.rows_of_values(problem_.v, value_head), channel, width, first, count, list);
    if constexpr (Decays) {
      tokens_.ask_for(tokens_.rows_of_values(problem_.log_decay, value_head), 0, tokens_.features, first, count, list);
    }
  }

  const chunk<T>& head(index_t value_head, index_t from) {
    head_ = value_head;
    chunk_ = tokens_.chunk_from(from, tokens_.count, 1, lines);
    chunk_.write_keys = writes_;
    chunk_.read_keys = reads_;
    if constexpr (Decays) decay(from);
    const index_t n = chunk_.tokens;
    chunk_.queries = chunk_.read_keys + n * tokens_.stride;
    chunk_.added_overlaps = pairs_;
    chunk_.overlaps = pairs_ + n;
    chunk_.added_scores = pairs_ + n * lines;
    chunk_.scores = pairs_ + n * lines + n;
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(tokens_.rows_of_values(problem_.v, head_), chunk_.first, chunk_.tokens, problem_.v.extent(3), channel,
                  rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (2 * C + L - 1) / L * L;  // keys in lanes: those of k, then those of a

  // What b and the queries weigh the keys with, no decay between.
  void products() {
    const index_t n = tokens_.count, stride = tokens_.stride, heads = tokens_.readers();
    if (n == 1) return products_of_one(heads, writes_);
    transposed_.take(writes_, stride, 2 * n);
    transposed_.multiply(reads_, stride, heads > 0 ? 2 * n : n, pairs_);
    for (index_t g = 1; g < heads; ++g) {
      const index_t row = n + g * C;
      transposed_.multiply(reads_ + row * stride, stride, n, pairs_ + row * lines);
    }
  }

  // A token by itself: its b reads nothing of it.
  void products_of_one(index_t heads, const T* keys, index_t from = 0) {
    const index_t stride = tokens_.stride;
    for (index_t g = 0; g < heads; ++g) {
      const T* q = reads_ + (tokens_.count + g * C + from) * stride;
      for (index_t i = 0; i < 2; ++i) pairs_[(1 + g * C) * lines + i] = dot_of_rows(q, keys + i * stride, stride);
    }
  }

  void decay(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t stride = tokens_.stride, count = tokens_.count;
    const index_t first_reset = next_reset(gates_.row(0), stride, from, count, tokens_.features);
    if (first_reset == from) {
      chunk_.forget = reset::rows;
      chunk_.forgotten = gates_.row(from);
    }
    // b sees once more what a reset forgets: such a token stands alone.
    const index_t n = chunk_.tokens = std::max(first_reset, from + 1) - from;
    chunk_.keep = keep_;
    chunk_.read_keys = decayed_reads_;
    chunk_.write_keys = decayed_writes_;
    if (!another) return;
    std::copy_n(gates_.row(from), n * stride, factors_);
    decays_of_channels(
        factors_, stride, n, stride, keep_,
        [&](index_t t, index_t c, const simd::batch<T>& before, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const index_t row = (from + t) * stride + c;
          T* to = decayed_reads_ + t * stride + c;
          simd::store(to, simd::load(reads_ + row) * before);
          for (index_t g = 0; g < chunk_.query_heads; ++g)
            simd::store(to + (n + g * C) * stride, simd::load(reads_ + row + (count + g * C) * stride) * x);
        },
        [&](index_t t, index_t c, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const T* key = writes_ + (from + t) * stride + c;
          T* to = decayed_writes_ + t * stride + c;
          simd::store(to, simd::load(key) * x);
          simd::store(to + n * stride, simd::load(key + count * stride) * x);
        });
    decayed_products(from, n);
  }

  // The same with the decay between.
  void decayed_products(index_t from, index_t n) {
    const index_t stride = tokens_.stride, count = tokens_.count;
    const T* keys = writes_;
    if (n != count) {
      std::copy_n(writes_ + from * stride, n * stride, packed_);
      std::copy_n(writes_ + (count + from) * stride, n * stride, packed_ + n * stride);
      keys = packed_;
    }
    const index_t heads = chunk_.query_heads;
    if (n == 1) return products_of_one(heads, keys, from);
    for (index_t i = 0; i < lines; ++i) token_of_lane_[i] = static_cast<T>(i % n);
    const lanes_of_tokens<T> lanes{token_of_lane_, 2 * n};
    const T* b = reads_ + from * stride;
    for (index_t g = 0; g == 0 || g < heads; ++g) {
      transposed_.take(keys, stride, 2 * n);
      const T* q = b + (count + g * C) * stride;
      T* scores = pairs_ + (n + g * C) * lines;
      if (heads == 0) {
        decayed_scores<T, reads::before, reads::nothing>(b, nullptr, factors_, stride, n, transposed_, lanes, pairs_,
                                                         nullptr);
      } else if (g == 0) {
        decayed_scores<T, reads::decayed, reads::before>(q, b, factors_, stride, n, transposed_, lanes, scores, pairs_);
      } else {
        decayed_scores<T, reads::decayed, reads::nothing>(q, nullptr, factors_, stride, n, transposed_, lanes, scores,
                                                          nullptr);
      }
    }
  }

  const Problem& problem_;
  chunk_rows<Problem, C> tokens_;
  T* writes_;  // (2 C, stride): n rows of k, n rows of a
  T* reads_;   // (1 + H / Hk, C, stride): n rows of b, and the queries right behind; more heads C rows apart
  keys_in_lanes<T> transposed_;
  T* pairs_;                     // rows as reads, (., lines)
  T* factors_ = nullptr;         // (C, stride)
  T* keep_ = nullptr;            // (stride)
  T* decayed_reads_ = nullptr;   // as reads
  T* decayed_writes_ = nullptr;  // as writes
  T* packed_ = nullptr;          // as writes, of some of the tokens
  alignas(64) T token_of_lane_[static_cast<std::size_t>(lines)];

  index_t head_ = -1;
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
