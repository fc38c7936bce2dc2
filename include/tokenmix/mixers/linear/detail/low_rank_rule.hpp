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
  static constexpr index_t together = group_tokens / 2;  // tokens of a group: with two writes each
  static constexpr index_t chunk_tokens = 16;
  static constexpr index_t step_writes = 2;
  static constexpr bool solves = true;
  static constexpr bool adds = true;
  static constexpr bool reads_before = true;
  using group_reads = std::integer_sequence<index_t, 2 * together>;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = Decays ? factor::number : factor::none;
  static constexpr factor erase = factor::none;

  low_rank_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(problem.k.extent(3)),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        writes_(frame.take<T>(2 * C * stride_)),
        reads_(frame.take<T>(2 * C * stride_ * std::max<index_t>(1, query_heads_))),
        pairs_(frame.take<T>(2 * (1 + query_heads_) * table)) {
    if constexpr (Decays) {
      gates_ = {features_, C, false, frame};
      keep_ = frame.take<T>(C * stride_);
      decayed_reads_ = frame.take<T>(2 * C * stride_ * std::max<index_t>(1, query_heads_));
      decayed_writes_ = frame.take<T>(2 * C * stride_);
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
    for (index_t from = 0; from < count; from += together) {
      const index_t n = tokens_of_group(from);
      T* writes = writes_ + 2 * from * stride_;
      T* reads = reads_ + 2 * from * stride_;
      load_channels(key_rows(problem_.k), first + from, n, features_, 0, writes, stride_);
      load_channels(key_rows(problem_.a), first + from, n, features_, 0, writes + n * stride_, stride_);
      load_channels(key_rows(problem_.b), first + from, n, features_, 0, reads, stride_);
      for (index_t g = 0; queries && g < query_heads_; ++g) {
        load_features<T>(as_given(), query_rows(g), first + from, n, features_, problem_.scale,
                         reads + (2 * g * C + n) * stride_, stride_);
      }
      if constexpr (!Decays) products(from, n);
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
    const index_t group = from / together * together;
    chunk_.tokens = group + tokens_of_group(group) - from;
    chunk_.writes = 1;
    chunk_.key_stride = stride_;
    chunk_.query_heads = wants_queries_ ? query_heads_ : 0;
    chunk_.query_head_stride = 2 * C * stride_;
    chunk_.score_stride = chunk_.overlap_stride = together;
    chunk_.score_head_stride = 2 * table;
    chunk_.forget = reset::none;
    chunk_.write_keys = writes_ + 2 * from * stride_;
    chunk_.read_keys = reads_ + 2 * from * stride_;
    if constexpr (Decays) decay(from);
    chunk_.queries = chunk_.read_keys + chunk_.tokens * stride_;
    chunk_.added_overlaps = overlaps(0, from);
    chunk_.overlaps = overlaps(1, from);
    chunk_.added_scores = scores(0, 0, from);
    chunk_.scores = scores(0, 1, from);
    return chunk_;
  }

  void panel(const chunk<T>& c, index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(rows_of_value_head(problem_, problem_.v, seq_, head_), c.first, c.tokens, problem_.v.extent(3),
                  channel, rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t table = (C + together) * together;  // pairs of a token and one of its group

  index_t tokens_of_group(index_t from) const { return std::min(together, count_ - from); }
  // Of the tokens from one on: what b and the queries weigh the keys with; set 0 is k, 1 is a.
  T* overlaps(index_t set, index_t from) const { return pairs_ + set * table + from * together; }
  T* scores(index_t g, index_t set, index_t from) const { return pairs_ + (2 * g + 2 + set) * table + from * together; }

  token_rows<const typename decltype(Problem::q)::value_type> query_rows(index_t g) const {
    return rows_of_tokens(problem_.q, seq_.batch, key_head_ * query_heads_ + g, seq_.query_row, seq_.queries,
                          problem_.reversed());
  }
  token_rows<const typename decltype(Problem::k)::value_type> key_rows(
      const tensor_view<const typename decltype(Problem::k)::value_type, 4>& view) const {
    return rows_of_tokens(view, seq_.batch, key_head_, seq_.key_row, seq_.keys, problem_.reversed());
  }
  void products(index_t from, index_t n) {
    const T* b = reads_ + 2 * from * stride_;
    each_head_of_queries<reads::decayed, reads::before>(
        wants_queries_ ? query_heads_ : 0, [&](index_t g, auto first, auto second) {
          group_products<T, together, 2, false, first.value, second.value>(
              {n, stride_, stride_, b + (2 * g * C + n) * stride_, b, writes_ + 2 * from * stride_, n * stride_},
              {{scores(g, 0, from), scores(g, 1, from)}, {overlaps(0, from), overlaps(1, from)}, together});
        });
  }

  void decay(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t until = from + chunk_.tokens;
    const index_t first_reset = next_reset(gates_.row(0), stride_, from, until, features_);
    if (first_reset == from) {
      chunk_.forget = reset::rows;
      chunk_.forgotten = gates_.row(from);
    }
    // b sees once more what a reset forgets: such a token stands alone.
    const index_t n = chunk_.tokens = std::max(first_reset, from + 1) - from;
    chunk_.keep = keep_ + from * stride_;
    chunk_.read_keys = decayed_reads_ + 2 * from * stride_;
    chunk_.write_keys = decayed_writes_ + 2 * from * stride_;
    if (!another) return;
    const index_t group = from / together * together;
    const index_t loaded = tokens_of_group(group);
    const T* b = reads_ + (group + from) * stride_;
    T* decayed_b = decayed_reads_ + 2 * from * stride_;
    each_head_of_queries<reads::decayed, reads::before>(
        wants_queries_ ? query_heads_ : 0, [&](index_t g, auto first, auto second) {
          group_products<T, together, 2, true, first.value, second.value>(
              {n, stride_, stride_, b + (2 * g * C + loaded) * stride_, b, writes_ + (group + from) * stride_,
               loaded * stride_, gates_.row(from)},
              {{scores(g, 0, from), scores(g, 1, from)},
               {overlaps(0, from), overlaps(1, from)},
               together,
               decayed_b + (2 * g * C + n) * stride_,
               decayed_b,
               decayed_writes_ + 2 * from * stride_,
               keep_ + from * stride_});
        });
  }

  const Problem& problem_;
  index_t features_;     // D
  index_t stride_;       // of rows of D
  index_t query_heads_;  // of this key head
  T* writes_;            // (2 C, stride): of every group, n rows of k, n rows of a
  T* reads_;             // (H / Hk, 2 C, stride): of every group, n rows of b (with the first head), n rows of queries
  T* pairs_;             // (1 + H / Hk, 2, table): of b and the queries with k and a
  T* keep_ = nullptr;    // (C, stride): a group's at its first token
  T* decayed_reads_ = nullptr;   // as reads
  T* decayed_writes_ = nullptr;  // as writes

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
