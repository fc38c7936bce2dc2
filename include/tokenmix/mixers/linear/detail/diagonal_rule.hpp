// SPDX-License-Identifier: Apache-2.0
/// @file The rule of most mixers: one write per token, the key itself; a diagonal decay; values given or solved for.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/diagonal_problem.hpp>
#include <tokenmix/mixers/linear/detail/gate_rows.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// See chunk.hpp for what a rule is. A token reads the state after its own decay and write; or, with Reads = before, that
/// before them, and itself with the weight that the bonus gives it.
template <class Problem, decay Decay, bool Solves, bool BetaLanes, reads Reads = reads::decayed>
class diagonal_rule {
 public:
  using T = typename Problem::T;
  static constexpr index_t chunk_tokens = 16;
  static constexpr index_t step_writes = 1;
  static constexpr bool solves = Solves;
  static constexpr bool adds = false;
  using group_reads = std::integer_sequence<index_t, (Solves ? 2 : 1) * group_tokens>;
  static constexpr bool decays_lanes = Decay == decay::value_channel;
  static constexpr factor keep = Decay == decay::none          ? factor::none
                                 : Decay == decay::key_channel ? factor::number
                                                               : factor::lanes;
  static constexpr factor erase = BetaLanes ? factor::lanes : factor::number;
  static constexpr bool reads_before = Reads == reads::before;
  static constexpr reads keys_read = Solves ? reads::decayed : reads::nothing;
  static_assert(!(Solves && decays_lanes), "a delta rule does not decay per value channel");
  static_assert(!reads_before || (Decay == decay::key_channel && !Solves), "a bonus is of a gate per key channel");

  diagonal_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(feature_width(key_feature(problem.feature), problem.k.extent(3))),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        keys_(frame.take<T>(C * stride_)),
        queries_(frame.take<T>(query_heads_ * C * stride_)),
        raw_scores_(frame.take<T>(query_heads_ * table)),
        raw_overlaps_(Solves ? frame.take<T>(table) : nullptr) {
    if constexpr (Decay == decay::head) {
      scores_ = frame.take<T>(query_heads_ * table);
      if constexpr (Solves) overlaps_ = frame.take<T>(table);
      decays_ = frame.take<group_decays<T>>(C);
      gates_ = {1, C, true, frame};
      keep_ = frame.take<T>(C * most_panel_width<T>);
    } else if constexpr (Decay == decay::key_channel) {
      gates_ = {features_, C, false, frame};
      keep_ = frame.take<T>(C * stride_);
      decayed_queries_ = frame.take<T>(query_heads_ * C * stride_);
      decayed_keys_ = frame.take<T>(C * stride_);
      if constexpr (Solves) decayed_reads_ = frame.take<T>(C * stride_);
      if constexpr (reads_before) bonus_ = frame.take<T>(stride_);
    } else if constexpr (Decay == decay::value_channel) {
      gates_ = {problem.v.extent(3), C, false, frame};
    }
    if constexpr (Problem_sums) {
      row_factor_ = frame.take<T>(query_heads_ * C);
      sum_ = frame.take<T>(stride_);
    }
  }

  index_t features() const { return features_; }
  static constexpr index_t writes_per_token() { return 1; }

  void go_to(const sequence& seq, index_t key_head) {
    seq_ = seq;
    key_head_ = key_head;
    tokens_seen_ = 0;
    k_ = rows_of_tokens(problem_.k, seq.batch, key_head, seq.key_row, seq.keys, problem_.reversed());
    if constexpr (reads_before) {
      std::fill_n(bonus_, stride_, T(0));
      std::copy_n(problem_.bonus.row(key_head), features_, bonus_);
    }
  }

  /// The running sum of keys, for normalisers: (D), as it is before the next token.
  T* sum() { return sum_; }

  void load(index_t first, index_t count, bool keys, bool queries) {
    first_ = first;
    count_ = count;
    head_ = -1;
    gates_.begin(seq_, first, count);
    wants_queries_ = queries;
    wants_keys_ = keys;
    const index_t D = problem_.k.extent(3);
    if (keys)
      load_features<T>(key_feature(problem_.feature), k_, first, count, D, T(1), keys_, stride_,
                       {key_head_, problem_.k.extent(1)});
    for (index_t g = 0; queries && g < query_heads_; ++g) {
      load_features<T>(query_feature(problem_.feature), query_rows(g), first, count, D, problem_.scale,
                       queries_ + g * C * stride_, stride_, {key_head_ * query_heads_ + g, problem_.q.extent(1)});
    }
    if (keys && (queries || Solves) && Decay != decay::key_channel) raw_products();
    if constexpr (Problem_sums) take_sums();
  }

  /// Names the rows of `count` tokens that will be loaded.
  void ahead(index_t first, index_t count, bool keys, bool queries, simd::lines_ahead& list) const {
    const index_t D = problem_.k.extent(3);
    if (count <= 0) return;
    if (keys) list.add(k_[first], k_.step, count, D);
    for (index_t g = 0; queries && g < query_heads_; ++g) {
      const auto rows = query_rows(g);
      list.add(rows[first], rows.step, count, D);
    }
  }
  void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    if (count <= 0) return;
    const auto v = value_rows(problem_.v, value_head);
    list.add(v[first] + channel, v.step, count, width);
    if constexpr (Decay == decay::key_channel || Decay == decay::value_channel) {
      const auto gate = value_rows(problem_.log_decay, value_head);
      list.add(gate[first], gate.step, count, problem_.log_decay.extent(3));
    }
  }

  const chunk<T>& head(index_t value_head, index_t from) {
    head_ = value_head;
    chunk_.first = first_ + from;
    chunk_.writes = 1;
    chunk_.key_stride = stride_;
    chunk_.query_heads = wants_queries_ ? query_heads_ : 0;
    chunk_.query_head_stride = C * stride_;
    chunk_.score_stride = chunk_.overlap_stride = group_tokens;
    chunk_.score_head_stride = table;
    chunk_.row_factor = Problem_sums ? row_factor_ + from : nullptr;
    chunk_.row_factor_stride = C;
    chunk_.forget = reset::none;
    chunk_.write_keys = keys_ + from * stride_;
    chunk_.read_keys = keys_ + from * stride_;
    chunk_.queries = queries_ + from * stride_;
    // Where nothing is solved for and nothing decays, the state alone knows no groups.
    const bool grouped = wants_keys_ && (Decay != decay::none || Solves || wants_queries_);
    group_ = from / group_tokens * group_tokens;
    until_ = grouped ? std::min(count_, group_ + group_tokens) : count_;
    if constexpr (Decay == decay::none) {
      chunk_.tokens = until_ - from;
      chunk_.scores = wants_keys_ ? raw_scores_ + from * group_tokens : nullptr;
      chunk_.overlaps = Solves ? raw_overlaps_ + from * group_tokens : nullptr;
    } else if constexpr (Decay == decay::head) {
      decay_of_head(from);
    } else if constexpr (Decay == decay::key_channel) {
      decay_of_key_channels(from);
    } else {
      decay_of_value_channels(from);
    }
    return chunk_;
  }

  void panel(const chunk<T>& c, index_t channel, index_t width, panel_rows<T>& rows) {
    const index_t n = c.tokens;
    const index_t at = c.first;
    const index_t Dv = problem_.v.extent(3);
    const auto v = value_rows(problem_.v, head_);
    load_channels(v, at, n, Dv, channel, rows.values, width);
    if constexpr (Solves) {
      // Values times what is written of them: what is erased of the state, if nothing else is said.
      const bool apart = problem_.write.data() != nullptr;
      take_beta(c, value_rows(apart ? problem_.write : problem_.beta, head_), channel, width, rows);
      for (index_t t = 0; t < n; ++t) {
        for (index_t i = 0; i < width; i += L) {
          T* value = rows.values + t * width + i;
          if constexpr (BetaLanes) {
            simd::store(value, simd::load(value) * simd::load(rows.erase + t * width + i));
          } else {
            simd::store(value, simd::load(value) * simd::batch<T>(rows.erase[t]));
          }
        }
      }
      if (apart) take_beta(c, value_rows(problem_.beta, head_), channel, width, rows);
    }
    if constexpr (decays_lanes) {
      const index_t from = at - first_;
      for (index_t t = 0; t < n; ++t) std::copy_n(gates_.row(from + t) + channel, width, rows.decay + t * width);
      rows.forgotten = c.forget == reset::lanes ? gates_.row(from) + channel : nullptr;
      decays_of_channels(rows.decay, n, width, rows.keep, rows.from_start, rows.to_end);
    }
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t table = (C + group_tokens) * group_tokens;  // pairs of a token and one of its group
  static constexpr bool Problem_sums = std::remove_cvref_t<decltype(Problem::normalizer)>::takes_sum;
  static_assert(!Problem_sums || Decay == decay::none, "sums do not decay");

  token_rows<const typename decltype(Problem::q)::value_type> query_rows(index_t g) const {
    return rows_of_tokens(problem_.q, seq_.batch, key_head_ * query_heads_ + g, seq_.query_row, seq_.queries,
                          problem_.reversed());
  }
  template <class X>
  token_rows<const X> value_rows(const tensor_view<const X, 4>& view, index_t value_head) const {
    return rows_of_value_head(problem_, view, seq_, value_head);
  }

  // Numbers or lanes of the chunk's tokens, as factors of a panel.
  template <class Rows>
  void take_beta(const chunk<T>& c, const Rows& beta, index_t channel, index_t width, panel_rows<T>& rows) {
    if constexpr (BetaLanes) {
      load_channels(beta, c.first, c.tokens, problem_.v.extent(3), channel, rows.erase_lanes, width);
      rows.erase = rows.erase_lanes;
    } else {
      for (index_t t = 0; t < c.tokens; ++t) beta_[t] = static_cast<T>(*beta[c.first + t]);
      rows.erase = beta_;
    }
  }

  // Of the tokens of every group, decay aside.
  void raw_products() {
    for (index_t from = 0; from < count_; from += group_tokens) {
      const index_t row = from * stride_;
      const auto product = [&](index_t g, auto first, auto second) {
        group_products<T, group_tokens, 1, false, first.value, second.value>(
            {std::min(group_tokens, count_ - from), stride_, stride_, queries_ + g * C * stride_ + row, keys_ + row,
             keys_ + row},
            {{raw_scores_ + g * table + from * group_tokens},
             {Solves ? raw_overlaps_ + from * group_tokens : nullptr},
             group_tokens});
      };
      each_head_of_queries<Reads, keys_read>(wants_queries_ ? query_heads_ : 0, product);
    }
  }

  // Factors of the outputs, and the sum of keys after the chunk.
  void take_sums() {
    for (index_t from = 0; from < count_; from += group_tokens) {
      const index_t until = std::min(count_, from + group_tokens);
      for (index_t g = 0; wants_queries_ && g < query_heads_; ++g) {
        for (index_t t = from; t < until; ++t) {
          T sum = dot_of_rows(queries_ + (g * C + t) * stride_, sum_, stride_);
          const T* scores = raw_scores_ + g * table + t * group_tokens;
          for (index_t s = 0; wants_keys_ && s <= t - from; ++s) sum += scores[s];
          const index_t seen = wants_keys_ ? first_ + t + 1 : tokens_seen_;
          row_factor_[g * C + t] = problem_.normalizer.factor(sum, seen);
        }
      }
      if (!wants_keys_) continue;
      tokens_seen_ += until - from;
      for (index_t i = 0; i < stride_; i += L) {
        simd::batch<T> sum = simd::load(sum_ + i);
        for (index_t t = from; t < until; ++t) sum = sum + simd::load(keys_ + t * stride_ + i);
        simd::store(sum_ + i, sum);
      }
    }
  }

  void decay_of_head(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const T* log_decay = gates_.row(0);
    index_t until = from + 1;
    while (until < until_ && log_decay[until] != minus_infinity<T>) ++until;
    const index_t n = chunk_.tokens = until - from;
    if (log_decay[from] == minus_infinity<T>) chunk_.forget = reset::all;
    group_decays<T>& decays = decays_[from];
    T* kept = keep_ + from * most_panel_width<T>;
    const index_t raw = from * group_tokens + from - group_;
    if (another) {
      decays.take(log_decay + from, n);
      for (index_t g = 0; g < chunk_.query_heads; ++g)
        decays.multiply(raw_scores_ + g * table + raw, scores_ + g * table + from * group_tokens);
      if constexpr (Solves) decays.multiply(raw_overlaps_ + raw, overlaps_ + from * group_tokens);
      std::fill(kept, kept + most_panel_width<T>, decays.from_start[n - 1]);
    }
    chunk_.keep = kept;
    chunk_.read_scale = chunk_.query_scale = decays.from_start;
    chunk_.write_scale = n > 1 ? decays.to_end(n) : nullptr;
    chunk_.scores = scores_ + from * group_tokens;
    if constexpr (Solves) chunk_.overlaps = overlaps_ + from * group_tokens;
  }

  void decay_of_key_channels(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t first_reset = next_reset(gates_.row(0), stride_, from, until_, features_);
    if (first_reset == from) {
      chunk_.forget = reset::rows;
      chunk_.forgotten = gates_.row(from);
    }
    // What reads before a reset sees what the reset forgets: it stands alone.
    const index_t until = first_reset > from ? first_reset
                          : reads_before     ? from + 1
                                             : next_reset(gates_.row(0), stride_, from + 1, until_, features_);
    const index_t n = chunk_.tokens = until - from;
    const index_t row = from * stride_;
    chunk_.keep = keep_ + row;
    if constexpr (Solves) chunk_.read_keys = decayed_reads_ + row;
    chunk_.write_keys = decayed_keys_ + row;
    chunk_.queries = decayed_queries_ + row;
    chunk_.scores = raw_scores_ + from * group_tokens;
    if constexpr (Solves) chunk_.overlaps = raw_overlaps_ + from * group_tokens;
    if (!another) return;
    const auto product = [&](index_t g, auto first, auto second) {
      const index_t head = g * C * stride_ + row;
      group_products<T, group_tokens, 1, true, first.value, second.value>(
          {n, stride_, stride_, queries_ + head, keys_ + row, keys_ + row, 0, gates_.row(from), bonus_},
          {{raw_scores_ + g * table + from * group_tokens},
           {Solves ? raw_overlaps_ + from * group_tokens : nullptr},
           group_tokens,
           decayed_queries_ + head,
           Solves ? decayed_reads_ + row : nullptr,
           decayed_keys_ + row,
           keep_ + row});
    };
    each_head_of_queries<Reads, keys_read>(wants_queries_ ? query_heads_ : 0, product);
  }

  void decay_of_value_channels(index_t from) {
    const index_t Dv = problem_.v.extent(3);
    gates_.come_to(problem_, head_, from);
    chunk_.tokens = next_reset(gates_.row(0), gates_.stride(), from + 1, until_, Dv) - from;
    if (next_reset(gates_.row(0), gates_.stride(), from, from + 1, Dv) == from) chunk_.forget = reset::lanes;
    chunk_.scores = raw_scores_ + from * group_tokens + from - group_;
  }

  const Problem& problem_;
  index_t features_;     // D of the state
  index_t stride_;       // of rows of features
  index_t query_heads_;  // of this key head
  T* keys_;              // (C, stride)
  T* queries_;           // (H / Hk, C, stride)
  T* raw_scores_;        // (H / Hk, table)
  T* raw_overlaps_;      // (table)
  T* scores_ = nullptr;
  T* overlaps_ = nullptr;
  T* bonus_ = nullptr;                 // (stride)
  T* keep_ = nullptr;                  // (C, stride) or (C, most panel width): a group's at its first token
  T* decayed_queries_ = nullptr;       // (H / Hk, C, stride)
  T* decayed_keys_ = nullptr;          // (C, stride)
  T* decayed_reads_ = nullptr;         // (C, stride)
  group_decays<T>* decays_ = nullptr;  // (C), a group's at its first token
  T* row_factor_ = nullptr;            // (H / Hk, C)
  T* sum_ = nullptr;                   // (stride)
  T beta_[static_cast<std::size_t>(C)];

  sequence seq_;
  index_t key_head_ = 0;
  token_rows<const typename decltype(Problem::k)::value_type> k_;
  index_t first_ = 0;
  index_t count_ = 0;
  index_t tokens_seen_ = 0;
  bool wants_keys_ = true;
  bool wants_queries_ = true;
  index_t head_ = -1;
  index_t group_ = 0;  // first token of the group that is being looked at
  index_t until_ = 0;  // its end
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
