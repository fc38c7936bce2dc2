// SPDX-License-Identifier: Apache-2.0
/// @file The rule of most mixers: one write per token, the key itself; a diagonal decay; values given or solved for.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk_rows.hpp>
#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/diagonal_problem.hpp>
#include <tokenmix/mixers/linear/detail/gate_rows.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Tokens that rows of a state go through at a time.
inline constexpr index_t tokens_in_registers = 16;

/// See chunk.hpp for what a rule is. A token reads the state after its own decay and write; or, with Reads = before, that
/// before them, and itself with the weight that the bonus gives it.
template <class Problem, decay Decay, bool Solves, bool BetaLanes, reads Reads>
class token_rule {
 public:
  using T = typename Problem::T;
  static constexpr index_t chunk_tokens = tokens_in_registers;
  static constexpr index_t step_writes = 1;
  static constexpr bool by_token = true;
  static constexpr bool solves = Solves;
  static constexpr bool adds = false;
  static constexpr bool reads_before = Reads == reads::before;
  static constexpr bool reads_after = !reads_before;
  static constexpr bool decays_lanes = Decay == decay::value_channel;
  static constexpr factor keep = Decay == decay::none          ? factor::none
                                 : Decay == decay::key_channel ? factor::number
                                                               : factor::lanes;
  static constexpr factor erase = BetaLanes ? factor::lanes : factor::number;
  static_assert(!Solves || !(reads_before || decays_lanes), "a delta rule decays per head or per key channel");
  static_assert(!reads_before || Decay == decay::key_channel, "a bonus is of a gate per key channel");

  token_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        tokens_(problem, feature_width(key_feature(problem.feature), problem.k.extent(3))),
        keys_(frame.take<T>(C * tokens_.stride)),
        queries_(frame.take<T>(tokens_.query_heads * C * tokens_.stride)) {
    if constexpr (Decay == decay::head) {
      gates_ = {1, C, true, frame};
      keep_ = frame.take<T>(most_panel_width<T>);
      keep_after_ = frame.take<T>(most_panel_width<T>);
    } else if constexpr (Decay == decay::key_channel) {
      gates_ = {tokens_.features, C, false, frame};
      keep_ = frame.take<T>(tokens_.stride);
      keep_after_ = frame.take<T>(tokens_.stride);
      written_ = frame.take<T>(C * tokens_.stride);
      if constexpr (Solves) erasing_ = frame.take<T>(C * tokens_.stride);
      reading_ = frame.take<T>(tokens_.query_heads * C * tokens_.stride);
    } else if constexpr (Decay == decay::value_channel) {
      gates_ = {problem.v.extent(3), C, false, frame};
    }
    if constexpr (reads_before) {
      bonus_ = frame.take<T>(tokens_.stride);
      own_ = frame.take<T>(tokens_.query_heads * C);
    }
    if constexpr (takes_sums) {
      row_factor_ = frame.take<T>(tokens_.query_heads * C);
      sum_ = frame.take<T>(tokens_.stride);
    }
  }

  index_t features() const { return tokens_.features; }
  static constexpr index_t writes_per_token() { return 1; }

  void go_to(const sequence& seq, index_t key_head) {
    tokens_.go_to(seq, key_head);
    tokens_seen_ = 0;
    if constexpr (reads_before) {
      std::fill_n(bonus_, tokens_.stride, T(0));
      std::copy_n(problem_.bonus.row(key_head), tokens_.features, bonus_);
    }
  }

  /// The running sum of keys, for normalisers: (D), as it is before the next token.
  T* sum() { return sum_; }

  void load(index_t first, index_t count, bool keys, bool queries) {
    tokens_.begin(first, count, keys, queries);
    head_ = -1;
    gates_.begin(tokens_.seq, first, count);
    if (keys) tokens_.load_keys(key_feature(problem_.feature), keys_);
    tokens_.load_queries(query_feature(problem_.feature), queries_);
    for (index_t g = 0; reads_before && g < tokens_.readers(); ++g) {
      for (index_t t = 0; t < count; ++t) {
        own_[g * C + t] = weighted_dot_of_rows(queries_ + (g * C + t) * tokens_.stride, bonus_,
                                               keys_ + t * tokens_.stride, tokens_.stride);
      }
    }
    if constexpr (takes_sums) take_sums();
  }

  void ahead(index_t first, index_t count, bool keys, bool queries, simd::lines_ahead& list) const {
    if (keys) tokens_.ask_for_keys(first, count, list);
    if (queries) tokens_.ask_for_queries(first, count, list);
  }
  void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    tokens_.ask_for(tokens_.rows_of_values(problem_.v, value_head), channel, width, first, count, list);
    if constexpr (Decay == decay::key_channel || Decay == decay::value_channel) {
      tokens_.ask_for(tokens_.rows_of_values(problem_.log_decay, value_head), 0, problem_.log_decay.extent(3), first,
                      count, list);
    }
  }

  const chunk<T>& head(index_t value_head, index_t from) {
    const index_t count = tokens_.count;
    head_ = value_head;
    from_ = from;
    chunk_ = tokens_.chunk_from(from, count - from, 1, 0);
    chunk_.write_keys = chunk_.read_keys = keys_ + from * tokens_.stride;
    chunk_.overlaps = nothing_;
    chunk_.queries = queries_ + from * tokens_.stride;
    if constexpr (takes_sums) chunk_.row_factor = row_factor_ + from;
    if constexpr (reads_before) {
      chunk_.own = own_ + from;
      chunk_.own_stride = C;
    }
    if constexpr (Decay == decay::head) {
      decay_of_head(from);
    } else if constexpr (Decay == decay::key_channel) {
      decay_of_key_channels(from);
    } else if constexpr (Decay == decay::value_channel) {
      decay_of_value_channels(from);
    }
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(tokens_.rows_of_values(problem_.v, head_), chunk_.first, chunk_.tokens, problem_.v.extent(3), channel,
                  rows.values, width);
    if constexpr (Solves) multiply_by_beta(channel, width, rows);
    if constexpr (decays_lanes) {
      const index_t n = chunk_.tokens;
      const T* log_decay = gates_.row(from_) + channel;
      rows.forgotten = log_decay;
      decays_since_first<reads::decayed>(log_decay, gates_.stride(), n, width, rows.keep, rows.keep_after,
                                         [&](index_t t, index_t c, const simd::batch<T>&, const simd::batch<T>& since,
                                             const simd::batch<T>& undo) TOKENMIX_LAMBDA_INLINE {
                                           T* value = rows.values + t * width + c;
                                           simd::store(value, simd::load(value) * undo);
                                           simd::store(rows.query_scale + t * width + c, since);
                                         });
    }
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;

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

  // Values times what is written of them: what is erased of the state, if nothing else is said.
  void multiply_by_beta(index_t channel, index_t width, panel_rows<T>& rows) {
    const bool apart = problem_.write.data() != nullptr;
    take_beta(tokens_.rows_of_values(apart ? problem_.write : problem_.beta, head_), channel, width, rows);
    for (index_t t = 0; t < chunk_.tokens; ++t) {
      for (index_t c = 0; c < width; c += L) {
        T* value = rows.values + t * width + c;
        const simd::batch<T> b = BetaLanes ? simd::load(rows.erase + t * width + c) : simd::batch<T>(rows.erase[t]);
        simd::store(value, simd::load(value) * b);
      }
    }
    if (apart) take_beta(tokens_.rows_of_values(problem_.beta, head_), channel, width, rows);
  }

  static constexpr bool takes_sums = std::remove_cvref_t<decltype(Problem::normalizer)>::takes_sum;
  static_assert(!takes_sums || Decay == decay::none, "sums do not decay");

  void decay_of_head(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const T* log_decay = gates_.row(from);
    const index_t n = chunk_.tokens = next_steep(log_decay + 1, 1, chunk_.tokens - 1, 1) + 1;
    if (*log_decay == minus_infinity<T>) chunk_.forget = reset::all;
    chunk_.keep = keep_;
    chunk_.keep_after = keep_after_;
    chunk_.write_scale = n > 1 ? undo_ : nullptr;
    chunk_.query_scale = n > 1 ? since_ : nullptr;
    chunk_.read_scale = decay_of_read_;
    if (!another) return;
    for (index_t t = 0; t < n; t += L)
      simd::store(since_ + t, simd::exp(simd::load_n(log_decay + t, std::min(L, n - t))));
    std::fill_n(keep_, most_panel_width<T>, since_[0]);
    decay_of_read_[0] = since_[0];
    since_[0] = T(1);
    for (index_t t = 1; t < n; ++t) decay_of_read_[t] = since_[t] = since_[t - 1] * since_[t];
    for (index_t t = 0; t < n; t += L) simd::store(undo_ + t, simd::batch<T>(T(1)) / simd::load(since_ + t));
    std::fill_n(keep_after_, most_panel_width<T>, since_[n - 1]);
  }

  index_t tokens_together(index_t from) const {
    const index_t count = tokens_.count;
    if (problem_.cuts.data() == nullptr)
      return gentle_tokens<Reads>(gates_.row(from), tokens_.stride, count - from, tokens_.features);
    const unsigned char* cuts = problem_.cuts.row(head_ / (problem_.v.extent(1) / problem_.cuts.extent(0))) +
                                tokens_.first - problem_.first_of_cuts;
    return std::find_if(cuts + from + 1, cuts + count, [](unsigned char cut) { return cut != 0; }) - cuts - from;
  }

  void decay_of_key_channels(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const index_t stride = tokens_.stride;
    const T* log_decay = gates_.row(from);
    if (next_reset(log_decay, stride, 0, 1, tokens_.features) == 0) {
      chunk_.forget = reset::rows;
      chunk_.forgotten = log_decay;
    }
    const index_t n = chunk_.tokens = tokens_together(from);
    chunk_.keep = reads_before && n > 1 ? nullptr : keep_;
    chunk_.keep_after = keep_after_;
    if constexpr (Solves) chunk_.read_keys = erasing_;
    if (n > 1) {
      chunk_.write_keys = written_;
      chunk_.queries = reading_;
    }
    if (!another) return;
    decays_since_first<Reads>(
        log_decay, stride, n, stride, keep_, keep_after_,
        [&](index_t t, index_t c, const simd::batch<T>& before, const simd::batch<T>& since, const simd::batch<T>& undo)
            TOKENMIX_LAMBDA_INLINE {
              const index_t row = (from + t) * stride + c;
              simd::store(written_ + t * stride + c, simd::load(keys_ + row) * undo);
              if constexpr (Solves) simd::store(erasing_ + t * stride + c, simd::load(keys_ + row) * since);
              for (index_t g = 0; g < chunk_.query_heads; ++g) {
                simd::store(reading_ + (g * C + t) * stride + c,
                            simd::load(queries_ + g * C * stride + row) * (reads_before ? before : since));
              }
            });
    // The first token reads the state as it was.
    for (index_t c = 0; Solves && c < stride; c += L)
      simd::store(erasing_ + c, simd::load(keys_ + from * stride + c) * simd::load(keep_ + c));
  }

  void decay_of_value_channels(index_t from) {
    gates_.come_to(problem_, head_, from);
    const index_t Dv = problem_.v.extent(3), stride = gates_.stride();
    if (next_reset(gates_.row(from), stride, 0, 1, Dv) == 0) chunk_.forget = reset::lanes;
    chunk_.tokens = gentle_tokens<Reads>(gates_.row(from), stride, chunk_.tokens, Dv);
  }

  // Factors of the outputs, and the sum of keys after the tokens.
  void take_sums() {
    for (index_t t = 0; t < tokens_.count; ++t) {
      if (tokens_.wants_keys) {
        for (index_t i = 0; i < tokens_.stride; i += L)
          simd::store(sum_ + i, simd::load(sum_ + i) + simd::load(keys_ + t * tokens_.stride + i));
      }
      for (index_t g = 0; g < tokens_.readers(); ++g) {
        const T sum = dot_of_rows(queries_ + (g * C + t) * tokens_.stride, sum_, tokens_.stride);
        row_factor_[g * C + t] =
            problem_.normalizer.factor(sum, tokens_.wants_keys ? tokens_.first + t + 1 : tokens_seen_);
      }
    }
    if (tokens_.wants_keys) tokens_seen_ += tokens_.count;
  }

  const Problem& problem_;
  chunk_rows<Problem, C> tokens_;
  T* keys_;                  // (C, stride)
  T* queries_;               // (H / Hk, C, stride)
  T* keep_ = nullptr;        // (stride), or a panel's width
  T* keep_after_ = nullptr;  // as keep
  T* written_ = nullptr;     // (C, stride)
  T* reading_ = nullptr;     // (H / Hk, C, stride)
  T* erasing_ = nullptr;     // (C, stride)
  T* bonus_ = nullptr;       // (stride)
  T* own_ = nullptr;         // (H / Hk, C)
  T* row_factor_ = nullptr;  // (H / Hk, C)
  T* sum_ = nullptr;         // (stride)
  T nothing_[1] = {};
  T beta_[static_cast<std::size_t>(C)];
  T decay_of_read_[static_cast<std::size_t>(C)];
  alignas(64) T since_[static_cast<std::size_t>(C + L)];
  alignas(64) T undo_[static_cast<std::size_t>(C + L)];
  index_t tokens_seen_ = 0;
  index_t head_ = -1;
  index_t from_ = 0;
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
