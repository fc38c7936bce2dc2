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
  static constexpr bool solves = true;
  static constexpr bool adds = true;
  static constexpr bool reads_before = true;
  static constexpr bool reads_together = true;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = Decays ? factor::number : factor::none;
  static constexpr factor erase = factor::none;

  low_rank_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(problem.k.extent(3)),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        writes_(frame.take<T>(2 * C * stride_)),
        reads_(frame.take<T>((1 + query_heads_) * C * stride_)),
        transposed_(frame.take<T>(features_ * lines)),
        pairs_(frame.take<T>((1 + query_heads_) * C * lines + L)) {
    if constexpr (Decays) {
      gates_ = {features_, C, false, frame};
      factors_ = frame.take<T>(C * stride_);
      keep_ = frame.take<T>(stride_);
      decayed_reads_ = frame.take<T>((1 + query_heads_) * C * stride_);
      decayed_writes_ = frame.take<T>(2 * C * stride_);
      packed_ = frame.take<T>(2 * C * stride_);
    }
  }

  index_t features() const { return features_; }
  static constexpr index_t writes_per_token() { return 1; }
  static constexpr T* sum() { return nullptr; }

  void go_to(const sequence& seq, index_t key_head) {
    seq_ = seq;
    key_head_ = key_head;
  }

  void load(index_t first, index_t count, bool, bool queries) {
    first_ = first;
    count_ = count;
    wants_queries_ = queries;
    gates_.begin(seq_, first, count);
    load_channels(key_rows(problem_.k), first, count, features_, 0, writes_, stride_);
    load_channels(key_rows(problem_.a), first, count, features_, 0, writes_ + count * stride_, stride_);
    load_channels(key_rows(problem_.b), first, count, features_, 0, reads_, stride_);
    for (index_t g = 0; queries && g < query_heads_; ++g) {
      load_features<T>(as_given(), query_rows(g), first, count, features_, problem_.scale,
                       reads_ + (count + g * C) * stride_, stride_);
    }
    if constexpr (!Decays) products();
  }

  void ahead(index_t first, index_t count, bool, bool queries, simd::lines_ahead& list) const {
    if (count <= 0) return;
    for (const auto* x : {&problem_.k, &problem_.a, &problem_.b}) {
      const auto rows = key_rows(*x);
      list.add(rows[first], rows.step, count, features_);
    }
    for (index_t g = 0; queries && g < query_heads_; ++g) {
      const auto rows = query_rows(g);
      list.add(rows[first], rows.step, count, features_);
    }
  }
  void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    if (count <= 0) return;
    const auto v = rows_of_value_head(problem_, problem_.v, seq_, value_head);
    list.add(v[first] + channel, v.step, count, width);
    if constexpr (Decays) {
      const auto gate = rows_of_value_head(problem_, problem_.log_decay, seq_, value_head);
      list.add(gate[first], gate.step, count, features_);
    }
  }

  const chunk<T>& head(index_t value_head, index_t from) {
    head_ = value_head;
    chunk_.first = first_ + from;
    chunk_.tokens = count_;
    chunk_.writes = 1;
    chunk_.key_stride = stride_;
    chunk_.query_heads = wants_queries_ ? query_heads_ : 0;
    chunk_.query_head_stride = C * stride_;
    chunk_.score_stride = chunk_.overlap_stride = lines;
    chunk_.score_head_stride = C * lines;
    chunk_.forget = reset::none;
    chunk_.write_keys = writes_;
    chunk_.read_keys = reads_;
    if constexpr (Decays) decay(from);
    const index_t n = chunk_.tokens;
    chunk_.queries = chunk_.read_keys + n * stride_;
    chunk_.added_overlaps = pairs_;
    chunk_.overlaps = pairs_ + n;
    chunk_.added_scores = pairs_ + n * lines;
    chunk_.scores = pairs_ + n * lines + n;
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(rows_of_value_head(problem_, problem_.v, seq_, head_), chunk_.first, chunk_.tokens,
                  problem_.v.extent(3), channel, rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (2 * C + L - 1) / L * L;  // keys in lanes: those of k, then those of a

  token_rows<const typename decltype(Problem::q)::value_type> query_rows(index_t g) const {
    return rows_of_tokens(problem_.q, seq_.batch, key_head_ * query_heads_ + g, seq_.query_row, seq_.queries,
                          problem_.reversed());
  }
  token_rows<const typename decltype(Problem::k)::value_type> key_rows(
      const tensor_view<const typename decltype(Problem::k)::value_type, 4>& view) const {
    return rows_of_tokens(view, seq_.batch, key_head_, seq_.key_row, seq_.keys, problem_.reversed());
  }
  // What b and the queries weigh the keys with, no decay between.
  void products() {
    const index_t n = count_;
    const index_t heads = wants_queries_ ? query_heads_ : 0;
    if (n == 1) return products_of_one(heads, writes_);
    simd::transpose_in(writes_, stride_, 2 * n, features_, transposed_, lines);
    constexpr index_t V = even_vectors(lines / L);
    const auto product = [&](index_t row, index_t rows) {
      for (index_t s = 0; s < 2 * n; s += V * L) {
        simd::tile_product<T, V>({reads_ + row * stride_, stride_, 1}, rows, transposed_ + s, lines, features_,
                                 pairs_ + row * lines + s, lines, false);
      }
    };
    product(0, heads > 0 ? 2 * n : n);
    for (index_t g = 1; g < heads; ++g) product(n + g * C, n);
  }

  // A token by itself: its b reads nothing of it.
  void products_of_one(index_t heads, const T* keys, index_t from = 0) {
    for (index_t g = 0; g < heads; ++g) {
      const T* q = reads_ + (count_ + g * C + from) * stride_;
      for (index_t i = 0; i < 2; ++i) pairs_[(1 + g * C) * lines + i] = dot_of_rows(q, keys + i * stride_, stride_);
    }
  }

  void decay(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t first_reset = next_reset(gates_.row(0), stride_, from, count_, features_);
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
    std::copy_n(gates_.row(from), n * stride_, factors_);
    decays_of_channels(
        factors_, stride_, n, stride_, keep_,
        [&](index_t t, index_t c, const simd::batch<T>& before, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const index_t row = (from + t) * stride_ + c;
          T* to = decayed_reads_ + t * stride_ + c;
          simd::store(to, simd::load(reads_ + row) * before);
          for (index_t g = 0; g < chunk_.query_heads; ++g)
            simd::store(to + (n + g * C) * stride_, simd::load(reads_ + row + (count_ + g * C) * stride_) * x);
        },
        [&](index_t t, index_t c, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const T* key = writes_ + (from + t) * stride_ + c;
          T* to = decayed_writes_ + t * stride_ + c;
          simd::store(to, simd::load(key) * x);
          simd::store(to + n * stride_, simd::load(key + count_ * stride_) * x);
        });
    decayed_products(from, n);
  }

  // The same with the decay between.
  void decayed_products(index_t from, index_t n) {
    const T* keys = writes_;
    if (n != count_) {
      std::copy_n(writes_ + from * stride_, n * stride_, packed_);
      std::copy_n(writes_ + (count_ + from) * stride_, n * stride_, packed_ + n * stride_);
      keys = packed_;
    }
    const index_t heads = chunk_.query_heads;
    if (n == 1) return products_of_one(heads, keys, from);
    for (index_t i = 0; i < lines; ++i) token_of_lane_[i] = static_cast<T>(i % n);
    const transposed_keys<T> lanes{transposed_, lines, token_of_lane_, 2 * n};
    const T* b = reads_ + from * stride_;
    for (index_t g = 0; g == 0 || g < heads; ++g) {
      simd::transpose_in(keys, stride_, 2 * n, features_, transposed_, lines);
      const T* q = b + (count_ + g * C) * stride_;
      T* scores = pairs_ + (n + g * C) * lines;
      if (heads == 0) {
        decayed_scores<T, reads::before, reads::nothing>(b, nullptr, factors_, stride_, n, features_, lanes, pairs_,
                                                         nullptr, lines);
      } else if (g == 0) {
        decayed_scores<T, reads::decayed, reads::before>(q, b, factors_, stride_, n, features_, lanes, scores, pairs_,
                                                         lines);
      } else {
        decayed_scores<T, reads::decayed, reads::nothing>(q, nullptr, factors_, stride_, n, features_, lanes, scores,
                                                          nullptr, lines);
      }
    }
  }

  const Problem& problem_;
  index_t features_;      // D
  index_t stride_;        // of rows of D
  index_t query_heads_;   // of this key head
  T* writes_;             // (2 C, stride): n rows of k, n rows of a
  T* reads_;              // (1 + H / Hk, C, stride): n rows of b, and the queries right behind; more heads C rows apart
  T* transposed_;         // (D, lines)
  T* pairs_;              // rows as reads, (., lines)
  T* factors_ = nullptr;  // (C, stride)
  T* keep_ = nullptr;     // (stride)
  T* decayed_reads_ = nullptr;   // as reads
  T* decayed_writes_ = nullptr;  // as writes
  T* packed_ = nullptr;          // as writes, of some of the tokens
  alignas(64) T token_of_lane_[static_cast<std::size_t>(lines)];

  sequence seq_;
  index_t key_head_ = 0;
  index_t first_ = 0;
  index_t count_ = 0;
  bool wants_queries_ = true;
  index_t head_ = -1;
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
