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
  static constexpr index_t chunk_tokens = 16;
  static constexpr index_t step_writes = 2;
  static constexpr bool solves = true;
  static constexpr bool adds = true;
  static constexpr bool reads_before = true;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = Decays ? factor::number : factor::none;
  static constexpr factor erase = factor::none;

  low_rank_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(problem.k.extent(3)),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        writes_(frame.take<T>(2 * C * stride_)),
        reads_(frame.take<T>(C * stride_)),
        queries_(frame.take<T>(query_heads_ * C * stride_)),
        transposed_(frame.take<T>(features_ * lines)),
        scores_(frame.take<T>(query_heads_ * C * lines)),
        added_scores_(frame.take<T>(query_heads_ * C * lines)),
        overlaps_(frame.take<T>(C * lines)),
        added_overlaps_(frame.take<T>(C * lines)) {
    if constexpr (Decays) {
      gates_ = {features_, C, false, frame};
      factors_ = frame.take<T>(C * stride_);
      keep_ = frame.take<T>(stride_);
      decayed_queries_ = frame.take<T>(query_heads_ * C * stride_);
      decayed_writes_ = frame.take<T>(2 * C * stride_);
      decayed_reads_ = frame.take<T>(C * stride_);
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
    for (index_t g = 0; queries && g < query_heads_; ++g)
      load_features<T>(as_given(), query_rows(g), first, count, features_, problem_.scale, queries_ + g * C * stride_, stride_);
    if constexpr (!Decays) {
      products(count, writes_, scores_rows(added_scores_), added_overlaps_);
      products(count, writes_ + count * stride_, scores_rows(scores_), overlaps_);
    }
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
    chunk_.queries = queries_;
    chunk_.scores = scores_;
    chunk_.added_scores = added_scores_;
    chunk_.overlaps = overlaps_;
    chunk_.added_overlaps = added_overlaps_;
    if constexpr (Decays) decay(from);
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(rows_of_value_head(problem_, problem_.v, seq_, head_), chunk_.first, chunk_.tokens,
                  problem_.v.extent(3), channel, rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (C + L - 1) / L * L;  // tokens in lanes

  token_rows<const typename decltype(Problem::q)::value_type> query_rows(index_t g) const {
    return rows_of_tokens(problem_.q, seq_.batch, key_head_ * query_heads_ + g, seq_.query_row, seq_.queries,
                          problem_.reversed());
  }
  token_rows<const typename decltype(Problem::k)::value_type> key_rows(
      const tensor_view<const typename decltype(Problem::k)::value_type, 4>& view) const {
    return rows_of_tokens(view, seq_.batch, key_head_, seq_.key_row, seq_.keys, problem_.reversed());
  }
  T* scores_rows(T* scores) const { return wants_queries_ ? scores : nullptr; }

  // What queries and reads weigh n tokens' keys with, no decay between.
  void products(index_t n, const T* keys, T* scores, T* overlaps) {
    simd::transpose_in(keys, stride_, n, features_, transposed_, lines);
    constexpr index_t V = std::min(lines / L, simd::max_tile_vectors);
    for (index_t s = 0; s < n; s += V * L) {
      for (index_t g = 0; scores != nullptr && g < query_heads_; ++g) {
        simd::tile_product<T, V>({queries_ + g * C * stride_, stride_, 1}, n, transposed_ + s, lines, features_,
                                 scores + g * C * lines + s, lines, false);
      }
      if (n > 1) {
        simd::tile_product<T, V>({reads_, stride_, 1}, n, transposed_ + s, lines, features_, overlaps + s, lines, false);
      }
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
    chunk_.queries = decayed_queries_;
    if (!another) return;
    std::copy_n(gates_.row(from), n * stride_, factors_);
    decays_of_channels(
        factors_, stride_, n, stride_, keep_,
        [&](index_t t, index_t c, const simd::batch<T>& before, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const index_t row = (from + t) * stride_ + c;
          for (index_t g = 0; g < chunk_.query_heads; ++g) {
            simd::store(decayed_queries_ + (g * C + t) * stride_ + c, simd::load(queries_ + g * C * stride_ + row) * x);
          }
          simd::store(decayed_reads_ + t * stride_ + c, simd::load(reads_ + row) * before);
        },
        [&](index_t t, index_t c, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const T* key = writes_ + (from + t) * stride_ + c;
          T* to = decayed_writes_ + t * stride_ + c;
          simd::store(to, simd::load(key) * x);
          simd::store(to + n * stride_, simd::load(key + count_ * stride_) * x);
        });
    decayed_products(from, n, writes_ + from * stride_, added_scores_, added_overlaps_);
    decayed_products(from, n, writes_ + (count_ + from) * stride_, scores_, overlaps_);
  }

  // The same with the decay between.
  void decayed_products(index_t from, index_t n, const T* keys, T* scores, T* overlaps) {
    const T* queries = queries_ + from * stride_;
    const T* read = reads_ + from * stride_;
    const index_t heads = chunk_.query_heads;
    const auto transpose = [&] { simd::transpose_in(keys, stride_, n, features_, transposed_, lines); };
    if (n == 1) {
      for (index_t g = 0; g < heads; ++g)
        scores[g * C * lines] = dot_of_rows(queries + g * C * stride_, keys, stride_);
      return;
    }
    if (heads == 0) {
      transpose();
      decayed_scores<T, reads::before, reads::nothing>(read, nullptr, factors_, stride_, n, features_, transposed_,
                                                       lines, overlaps, nullptr, lines);
    }
    for (index_t g = 0; g < heads; ++g) {
      transpose();
      const T* q = queries + g * C * stride_;
      if (g == 0) {
        decayed_scores<T, reads::decayed, reads::before>(q, read, factors_, stride_, n, features_, transposed_, lines,
                                                         scores, overlaps, lines);
      } else {
        decayed_scores<T, reads::decayed, reads::nothing>(q, nullptr, factors_, stride_, n, features_, transposed_,
                                                          lines, scores + g * C * lines, nullptr, lines);
      }
    }
  }

  const Problem& problem_;
  index_t features_;   // D
  index_t stride_;     // of rows of D
  index_t query_heads_;  // of this key head
  T* writes_;          // (C, stride) k, and as many rows of a right behind the chunk's
  T* reads_;           // (C, stride) b
  T* queries_;         // (H / Hk, C, stride)
  T* transposed_;      // (D, lines)
  T* scores_;          // (H / Hk, C, lines) q with a
  T* added_scores_;    // (H / Hk, C, lines) q with k
  T* overlaps_;        // (C, lines) b with a
  T* added_overlaps_;  // (C, lines) b with k
  T* factors_ = nullptr;          // (C, stride)
  T* keep_ = nullptr;             // (stride)
  T* decayed_queries_ = nullptr;  // (H / Hk, C, stride)
  T* decayed_writes_ = nullptr;   // as writes
  T* decayed_reads_ = nullptr;    // (C, stride)

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
