// SPDX-License-Identifier: Apache-2.0
/// @file The rule of most mixers: one write per token, the key itself; a diagonal decay; values given or solved for.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/diagonal_problem.hpp>
#include <tokenmix/mixers/linear/detail/gate_rows.hpp>

#include <numeric>

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
  static constexpr bool reads_together = false;
  static constexpr bool decays_lanes = Decay == decay::value_channel;
  static constexpr factor keep = Decay == decay::none          ? factor::none
                                 : Decay == decay::key_channel ? factor::number
                                                               : factor::lanes;
  static constexpr factor erase = BetaLanes ? factor::lanes : factor::number;
  static constexpr bool reads_before = Reads == reads::before;
  static_assert(!(Solves && decays_lanes), "a delta rule does not decay per value channel");
  static_assert(!reads_before || (Decay == decay::key_channel && !Solves), "a bonus is of a gate per key channel");

  diagonal_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(feature_width(key_feature(problem.feature), problem.k.extent(3))),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        keys_(frame.take<T>(C * stride_)),
        queries_(frame.take<T>(query_heads_ * C * stride_)),
        transposed_(frame.take<T>(features_ * lines)),
        raw_scores_(frame.take<T>(query_heads_ * C * lines + L)),
        raw_overlaps_(Solves ? frame.take<T>(C * lines + L) : nullptr) {
    if constexpr (Decay == decay::head) {
      scores_ = frame.take<T>(query_heads_ * C * lines);
      if constexpr (Solves) overlaps_ = frame.take<T>(C * lines);
      gates_ = {1, C, true, frame};
      keep_ = frame.take<T>(most_panel_width<T>);
    } else if constexpr (Decay == decay::key_channel) {
      gates_ = {features_, C, false, frame};
      factors_ = frame.take<T>(C * stride_);
      keep_ = frame.take<T>(stride_);
      decayed_queries_ = frame.take<T>(query_heads_ * C * stride_);
      decayed_keys_ = frame.take<T>(C * stride_);
      if constexpr (Solves) decayed_reads_ = frame.take<T>(C * stride_);
      if constexpr (reads_before) bonus_ = frame.take<T>(stride_);
      token_of_lane_ = frame.take<T>(lines);
      std::iota(token_of_lane_, token_of_lane_ + lines, T(0));
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
    if (keys && (queries || Solves) && Decay != decay::key_channel) raw_products(queries);
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
    from_ = from;
    chunk_.first = first_ + from;
    chunk_.writes = 1;
    chunk_.key_stride = stride_;
    chunk_.query_heads = wants_queries_ ? query_heads_ : 0;
    chunk_.query_head_stride = C * stride_;
    chunk_.score_stride = lines;
    chunk_.score_head_stride = C * lines;
    chunk_.overlap_stride = lines;
    chunk_.row_factor = Problem_sums ? row_factor_ + from : nullptr;
    chunk_.row_factor_stride = C;
    chunk_.forget = reset::none;
    chunk_.write_keys = keys_ + from * stride_;
    chunk_.read_keys = keys_ + from * stride_;
    chunk_.queries = queries_ + from * stride_;
    chunk_.later_queries = reads_before ? nullptr : chunk_.queries;
    if constexpr (Decay == decay::none) {
      chunk_.tokens = count_ - from;
      chunk_.scores = wants_keys_ ? raw_scores_ : nullptr;
      chunk_.overlaps = raw_overlaps_;
    } else if constexpr (Decay == decay::head) {
      decay_of_head(from);
    } else if constexpr (Decay == decay::key_channel) {
      decay_of_key_channels(from);
    } else {
      decay_of_value_channels(from);
    }
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    const index_t n = chunk_.tokens;
    const index_t at = chunk_.first;
    const index_t Dv = problem_.v.extent(3);
    const auto v = value_rows(problem_.v, head_);
    load_channels(v, at, n, Dv, channel, rows.values, width);
    if constexpr (Solves) {
      // Values times what is written of them: what is erased of the state, if nothing else is said.
      const bool apart = problem_.write.data() != nullptr;
      take_beta(value_rows(apart ? problem_.write : problem_.beta, head_), channel, width, rows);
      for (index_t t = 0; t < n; ++t) {
        for (index_t c = 0; c < width; c += L) {
          T* value = rows.values + t * width + c;
          if constexpr (BetaLanes) {
            simd::store(value, simd::load(value) * simd::load(rows.erase + t * width + c));
          } else {
            simd::store(value, simd::load(value) * simd::batch<T>(rows.erase[t]));
          }
        }
      }
      if (apart) take_beta(value_rows(problem_.beta, head_), channel, width, rows);
    }
    if constexpr (decays_lanes) {
      for (index_t t = 0; t < n; ++t) std::copy_n(gates_.row(from_ + t) + channel, width, rows.decay + t * width);
      rows.forgotten = chunk_.forget == reset::lanes ? gates_.row(from_) + channel : nullptr;
      decays_of_channels(
          rows.decay, width, n, width, rows.keep,
          [&](index_t t, index_t c, const simd::batch<T>&, const simd::batch<T>& x)
              TOKENMIX_LAMBDA_INLINE { simd::store(rows.from_start + t * width + c, x); },
          [&](index_t t, index_t c, const simd::batch<T>& x)
              TOKENMIX_LAMBDA_INLINE { simd::store(rows.to_end + t * width + c, x); });
    }
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (C + L - 1) / L * L;  // tokens in lanes
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
  void take_beta(const Rows& beta, index_t channel, index_t width, panel_rows<T>& rows) {
    if constexpr (BetaLanes) {
      load_channels(beta, chunk_.first, chunk_.tokens, problem_.v.extent(3), channel, rows.erase_lanes, width);
      rows.erase = rows.erase_lanes;
    } else {
      for (index_t t = 0; t < chunk_.tokens; ++t) beta_[t] = static_cast<T>(*beta[chunk_.first + t]);
      rows.erase = beta_;
    }
  }

  // out (count, lines) = rows keys', decay aside.
  void product_with_keys(const T* rows, T* out) const {
    constexpr index_t V = even_vectors(lines / L);
    for (index_t s = 0; s < count_; s += V * L)
      simd::tile_product<T, V>({rows, stride_, 1}, count_, transposed_ + s, lines, features_, out + s, lines, false);
  }

  void raw_products(bool queries) {
    if (count_ == 1) {
      for (index_t g = 0; queries && g < query_heads_; ++g)
        raw_scores_[g * C * lines] = dot_of_rows(queries_ + g * C * stride_, keys_, stride_);
      return;
    }
    simd::transpose_in(keys_, stride_, count_, features_, transposed_, lines);
    for (index_t g = 0; queries && g < query_heads_; ++g)
      product_with_keys(queries_ + g * C * stride_, raw_scores_ + g * C * lines);
    if constexpr (Solves) product_with_keys(keys_, raw_overlaps_);
  }

  // Factors of the outputs, and the sum of keys after the chunk.
  void take_sums() {
    if (wants_queries_) {
      for (index_t g = 0; g < query_heads_; ++g) {
        for (index_t t = 0; t < count_; ++t) {
          T sum = dot_of_rows(queries_ + (g * C + t) * stride_, sum_, stride_);
          const T* scores = raw_scores_ + (g * C + t) * lines;
          for (index_t s = 0; wants_keys_ && s <= t; ++s) sum += scores[s];
          const index_t seen = wants_keys_ ? first_ + t + 1 : tokens_seen_;
          row_factor_[g * C + t] = problem_.normalizer.factor(sum, seen);
        }
      }
    }
    if (!wants_keys_) return;
    tokens_seen_ += count_;
    for (index_t i = 0; i < stride_; i += L) {
      simd::batch<T> sum = simd::load(sum_ + i);
      for (index_t t = 0; t < count_; ++t) sum = sum + simd::load(keys_ + t * stride_ + i);
      simd::store(sum_ + i, sum);
    }
  }

  void decay_of_head(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const T* log_decay = gates_.row(0);
    index_t until = from + 1;
    while (until < count_ && log_decay[until] != minus_infinity<T>) ++until;
    const index_t n = chunk_.tokens = until - from;
    if (log_decay[from] == minus_infinity<T>) chunk_.forget = reset::all;
    chunk_.keep = keep_;
    chunk_.read_scale = chunk_.query_scale = from_start_;
    chunk_.write_scale = n > 1 ? to_end_ : nullptr;
    chunk_.scores = scores_;
    chunk_.overlaps = overlaps_;
    if (!another) return;
    decays_of_tokens(log_decay + from, n, sums_, from_start_, to_end_, chunk_.query_heads > 0 || Solves,
                     [&](index_t t, index_t s, const simd::batch<T>& e) TOKENMIX_LAMBDA_INLINE {
                       const index_t raw = (from + t) * lines + from + s;
                       for (index_t g = 0; g < chunk_.query_heads; ++g) {
                         const simd::batch<T> x = simd::load(raw_scores_ + g * C * lines + raw);
                         simd::store(scores_ + (g * C + t) * lines + s, x * e);
                       }
                       if constexpr (Solves)
                         simd::store(overlaps_ + t * lines + s, simd::load(raw_overlaps_ + raw) * e);
                     });
    std::fill(keep_, keep_ + most_panel_width<T>, from_start_[n - 1]);
  }

  void decay_of_key_channels(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t first_reset = next_reset_of_keys(from);
    if (first_reset == from) {
      chunk_.forget = reset::rows;
      chunk_.forgotten = gates_.row(from);
    }
    // What reads before a reset sees what the reset forgets: it stands alone.
    chunk_.tokens = (first_reset > from ? first_reset : reads_before ? from + 1 : next_reset_of_keys(from + 1)) - from;
    const index_t n = chunk_.tokens;
    chunk_.keep = keep_;
    chunk_.read_keys = decayed_reads_;
    chunk_.write_keys = n > 1 ? decayed_keys_ : keys_ + from * stride_;
    chunk_.queries = decayed_queries_;
    chunk_.scores = raw_scores_;
    chunk_.overlaps = raw_overlaps_;
    if (!another) return;
    std::copy_n(gates_.row(from), n * stride_, factors_);
    decays_of_channels(
        factors_, stride_, n, stride_, keep_,
        [&](index_t t, index_t c, const simd::batch<T>& before, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          const index_t row = (from + t) * stride_ + c;
          for (index_t g = 0; g < chunk_.query_heads; ++g) {
            simd::store(decayed_queries_ + (g * C + t) * stride_ + c,
                        simd::load(queries_ + g * C * stride_ + row) * (reads_before ? before : x));
          }
          if constexpr (Solves) simd::store(decayed_reads_ + t * stride_ + c, simd::load(keys_ + row) * x);
        },
        [&](index_t t, index_t c, const simd::batch<T>& x) TOKENMIX_LAMBDA_INLINE {
          simd::store(decayed_keys_ + t * stride_ + c, simd::load(keys_ + (from + t) * stride_ + c) * x);
        });
    decayed_products(from, n);
  }

  // The first token of the chunk, from this one on, that resets any key channel; count_ if there is none.
  index_t next_reset_of_keys(index_t from) const {
    if (problem_.resets.data() == nullptr) return next_reset(gates_.row(0), stride_, from, count_, features_);
    const unsigned char* resets = problem_.resets.row(head_ / (problem_.v.extent(1) / problem_.resets.extent(0))) +
                                  first_ - problem_.first_of_resets;
    return std::find_if(resets + from, resets + count_, [](unsigned char reset) { return reset != 0; }) - resets;
  }

  void decayed_products(index_t from, index_t n) {
    const index_t heads = chunk_.query_heads;
    const T* queries = queries_ + from * stride_;
    const T* keys = keys_ + from * stride_;
    const transposed_keys<T> lanes{transposed_, lines, token_of_lane_, n};
    const auto transpose = [&] { simd::transpose_in(keys, stride_, n, features_, transposed_, lines); };
    if (heads == 0 && Solves && n > 1) {
      transpose();
      decayed_scores<T, reads::decayed, reads::nothing>(keys, nullptr, factors_, stride_, n, features_, lanes,
                                                        raw_overlaps_, nullptr, lines);
    }
    for (index_t g = 0; g < heads; ++g) {
      const T* q = queries + g * C * stride_;
      T* scores = raw_scores_ + g * C * lines;
      if (n > 1) {
        transpose();
        if (Solves && g == 0) {
          decayed_scores<T, reads::decayed, reads::decayed>(q, keys, factors_, stride_, n, features_, lanes, scores,
                                                            raw_overlaps_, lines);
        } else {
          decayed_scores<T, Reads, reads::nothing>(q, nullptr, factors_, stride_, n, features_, lanes, scores, nullptr,
                                                   lines);
        }
      } else if constexpr (!reads_before) {
        scores[0] = dot_of_rows(q, keys, stride_);
      }
      for (index_t t = 0; reads_before && t < n; ++t)
        scores[t * lines + t] = weighted_dot_of_rows(q + t * stride_, bonus_, keys + t * stride_, stride_);
    }
  }

  void decay_of_value_channels(index_t from) {
    const index_t Dv = problem_.v.extent(3);
    gates_.come_to(problem_, head_, from);
    chunk_.tokens = next_reset(gates_.row(0), gates_.stride(), from + 1, count_, Dv) - from;
    if (next_reset(gates_.row(0), gates_.stride(), from, from + 1, Dv) == from) chunk_.forget = reset::lanes;
    chunk_.scores = raw_scores_ + from * lines + from;
  }

  const Problem& problem_;
  index_t features_;     // D of the state
  index_t stride_;       // of rows of features
  index_t query_heads_;  // of this key head
  T* keys_;              // (C, stride)
  T* queries_;           // (H / Hk, C, stride)
  T* transposed_;        // (D, lines)
  T* raw_scores_;        // (H / Hk, C, lines)
  T* raw_overlaps_;      // (C, lines)
  T* scores_ = nullptr;
  T* overlaps_ = nullptr;
  T* factors_ = nullptr;  // (C, stride)
  T* bonus_ = nullptr;    // (stride)
  T* token_of_lane_ = nullptr;
  T* keep_ = nullptr;
  T* decayed_queries_ = nullptr;  // (H / Hk, C, stride)
  T* decayed_keys_ = nullptr;     // (C, stride)
  T* decayed_reads_ = nullptr;    // (C, stride)
  T* row_factor_ = nullptr;       // (H / Hk, C)
  T* sum_ = nullptr;              // (stride)
  T beta_[static_cast<std::size_t>(C)];
  alignas(64) T sums_[static_cast<std::size_t>(lines)];
  alignas(64) T from_start_[static_cast<std::size_t>(lines)];
  alignas(64) T to_end_[static_cast<std::size_t>(lines)];

  sequence seq_;
  index_t key_head_ = 0;
  token_rows<const typename decltype(Problem::k)::value_type> k_;
  index_t first_ = 0;
  index_t count_ = 0;
  index_t tokens_seen_ = 0;
  bool wants_keys_ = true;
  bool wants_queries_ = true;
  index_t head_ = -1;
  index_t from_ = 0;
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
