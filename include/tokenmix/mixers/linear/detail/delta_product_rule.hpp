// SPDX-License-Identifier: Apache-2.0
/// @file The rule whose tokens replace what the state holds under several keys, one after the other.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/gate_rows.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The checked arguments, n steps per token. The heads of log_decay and beta divide Hv.
template <class Q, class E, class G, class W, class Feature, class Gate>
struct delta_product_problem {
  using T = accumulator_t<Q>;
  tensor_view<const Q, 4> q;          // (B, H, T, D), H a multiple of Hk
  tensor_view<const E, 5> k;          // (B, Hk, T, n, D)
  tensor_view<const E, 5> v;          // (B, Hv, T, n, Dv)
  tensor_view<const W, 4> beta;       // (B, Hb, T, n)
  tensor_view<const G, 4> log_decay;  // (B, Hg, T, 1) or empty
  tensor_view<const T, 1> rate;       // (Hg) or empty
  tensor_view<const T, 2> bias;       // (Hg, 1) or empty
  const Feature& feature;
  const Gate& gate;
  T scale;
  tokenmix::order order;

  bool reversed() const { return order == tokenmix::order::reverse; }
  index_t steps() const { return k.extent(3); }
};

/// The rows of one step of all tokens.
template <class E>
tensor_view<const E, 4> rows_of_step(const tensor_view<const E, 5>& view, index_t step) {
  return {view.size() == 0 ? view.data() : view.data() + step * view.stride(3),
          {view.extent(0), view.extent(1), view.extent(2), view.extent(4)},
          {view.stride(0), view.stride(1), view.stride(2), view.stride(4)}};
}
template <class E>
tensor_view<const E, 4> rows_of_step(const tensor_view<const E, 4>& view, index_t step) {
  return {view.size() == 0 ? view.data() : view.data() + step * view.stride(3),
          {view.extent(0), view.extent(1), view.extent(2), 1},
          {view.stride(0), view.stride(1), view.stride(2), 1}};
}

/// See chunk.hpp for what a rule is. What is solved together are the steps of few enough tokens.
template <class Problem, bool Decays>
class delta_product_rule {
 public:
  using T = typename Problem::T;
  static constexpr index_t chunk_tokens = 16;
  static constexpr index_t step_writes = 0;
  static constexpr bool by_token = false;
  static constexpr bool solves = true;
  static constexpr bool adds = false;
  static constexpr bool reads_together = false;
  static constexpr bool reads_before = false;
  static constexpr bool reads_after = false;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = Decays ? factor::lanes : factor::none;
  static constexpr factor erase = factor::number;

  delta_product_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        tokens_(problem, feature_width(key_feature(problem.feature), problem.k.extent(4))),
        steps_(problem.steps()),
        together_(std::clamp<index_t>(solved_together / steps_, 1, C)),
        keys_(frame.take<T>(C * steps_ * tokens_.stride)),
        queries_(frame.take<T>(tokens_.query_heads * C * tokens_.stride)),
        transposed_(tokens_.features, together_ * steps_, frame),
        lines_(transposed_.lines()),
        raw_scores_(frame.take<T>(tokens_.query_heads * C * lines_ + L)),
        raw_overlaps_(frame.take<T>(C * steps_ * lines_ + L)),
        beta_(frame.take<T>(together_ * steps_)) {
    if constexpr (Decays) {
      gates_ = {1, C, true, frame};
      scores_ = frame.take<T>(tokens_.query_heads * C * lines_);
      overlaps_ = frame.take<T>(together_ * steps_ * lines_);
      for (T** x : {&log_decay_, &sums_, &from_start_, &to_end_}) *x = frame.take<T>(lines_);
      query_scale_ = frame.take<T>(C);
      keep_ = frame.take<T>(most_panel_width<T>);
    }
  }

  index_t features() const { return tokens_.features; }
  index_t writes_per_token() const { return steps_; }
  static constexpr T* sum() { return nullptr; }

  void go_to(const sequence& seq, index_t key_head) { tokens_.go_to(seq, key_head); }

  void load(index_t first, index_t count, bool keys, bool queries) {
    tokens_.begin(first, count, keys, queries);
    gates_.begin(tokens_.seq, first, count);
    for (index_t i = 0; i < steps_; ++i) {
      const auto rows = tokens_.rows_of_keys(rows_of_step(problem_.k, i));
      for (index_t t = 0; t < count; ++t)
        load_features<T>(key_feature(problem_.feature), rows, first + t, 1, problem_.k.extent(4), T(1),
                         key(t) + i * tokens_.stride, tokens_.stride, {tokens_.key_head, problem_.k.extent(1)});
    }
    tokens_.load_queries(query_feature(problem_.feature), queries_);
    for (index_t from = 0; from < count; from += together_) products(from, std::min(together_, count - from));
  }

  void ahead(index_t first, index_t count, bool, bool queries, simd::lines_ahead& list) const {
    for (index_t i = 0; i < steps_; ++i) {
      tokens_.ask_for(tokens_.rows_of_keys(rows_of_step(problem_.k, i)), 0, problem_.k.extent(4), first, count, list);
    }
    if (queries) tokens_.ask_for_queries(first, count, list);
  }
  void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    for (index_t i = 0; i < steps_; ++i) {
      tokens_.ask_for(tokens_.rows_of_values(rows_of_step(problem_.v, i), value_head), channel, width, first, count,
                      list);
    }
  }

  const chunk<T>& head(index_t value_head, index_t from) {
    head_ = value_head;
    const index_t border = from / together_ * together_;
    const index_t column = (from - border) * steps_;  // where the tokens' own columns begin
    chunk_ = tokens_.chunk_from(from, std::min(tokens_.count, border + together_) - from, steps_, lines_);
    chunk_.read_keys = chunk_.write_keys = key(from);
    chunk_.queries = queries_ + from * tokens_.stride;
    chunk_.scores = raw_scores_ + from * lines_ + column;
    chunk_.overlaps = raw_overlaps_ + from * steps_ * lines_ + column;
    if constexpr (Decays) decay(from);
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    const index_t Dv = problem_.v.extent(4);
    for (index_t i = 0; i < steps_; ++i) {
      const auto beta = tokens_.rows_of_values(rows_of_step(problem_.beta, i), head_);
      const auto v = tokens_.rows_of_values(rows_of_step(problem_.v, i), head_);
      for (index_t t = 0; t < chunk_.tokens; ++t) {
        T* to = rows.values + (t * steps_ + i) * width;
        load_channels(v, chunk_.first + t, 1, Dv, channel, to, width);
        const T b = beta_[t * steps_ + i] = static_cast<T>(*beta[chunk_.first + t]);
        for (index_t c = 0; c < width; c += L) simd::store(to + c, simd::load(to + c) * simd::batch<T>(b));
      }
    }
    rows.erase = beta_;
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t solved_together =
      16;  // writes: more make larger triangles, fewer more passes over the state

  T* key(index_t t) const { return keys_ + t * steps_ * tokens_.stride; }

  // Of the steps of n tokens among themselves, decay aside; columns count from the first of them.
  void products(index_t from, index_t n) {
    const index_t writes = n * steps_, stride = tokens_.stride;
    const auto row = [&](index_t g) { return queries_ + (g * C + from) * stride; };
    const auto scores = [&](index_t g) { return raw_scores_ + (g * C + from) * lines_; };
    if (writes == 1) {
      for (index_t g = 0; g < tokens_.readers(); ++g) *scores(g) = dot_of_rows(row(g), key(from), stride);
      return;
    }
    transposed_.take(key(from), stride, writes);
    for (index_t g = 0; g < tokens_.readers(); ++g) transposed_.multiply(row(g), stride, n, scores(g));
    transposed_.multiply(key(from), stride, writes, raw_overlaps_ + from * steps_ * lines_);
  }

  void decay(index_t from) {
    const bool another = gates_.come_to(problem_, head_, from);
    const T* gate = gates_.row(from);
    index_t n = 1;
    while (n < chunk_.tokens && gate[n] != minus_infinity<T>) ++n;
    chunk_.tokens = n;
    if (*gate == minus_infinity<T>) chunk_.forget = reset::all;
    const T* raw_scores = chunk_.scores;
    const T* raw_overlaps = chunk_.overlaps;
    chunk_.keep = keep_;
    chunk_.read_scale = from_start_;
    chunk_.query_scale = query_scale_;
    chunk_.write_scale = n > 1 ? to_end_ : nullptr;
    chunk_.scores = scores_;
    chunk_.overlaps = overlaps_;
    if (!another) return;
    const index_t writes = n * steps_;
    for (index_t j = 0; j < writes; ++j) log_decay_[j] = j % steps_ == 0 ? gate[j / steps_] : T(0);
    decays_of_tokens(log_decay_, writes, sums_, from_start_, to_end_,
                     [&](index_t j, index_t s, const simd::batch<T>& e) TOKENMIX_LAMBDA_INLINE {
                       simd::store(overlaps_ + j * lines_ + s, simd::load(raw_overlaps + j * lines_ + s) * e);
                       if ((j + 1) % steps_ != 0) return;
                       const index_t t = j / steps_;
                       for (index_t g = 0; g < chunk_.query_heads; ++g) {
                         const simd::batch<T> x = simd::load(raw_scores + (g * C + t) * lines_ + s);
                         simd::store(scores_ + (g * C + t) * lines_ + s, x * e);
                       }
                     });
    for (index_t t = 0; t < n; ++t) query_scale_[t] = from_start_[t * steps_];
    std::fill_n(keep_, most_panel_width<T>, from_start_[writes - 1]);
  }

  const Problem& problem_;
  chunk_rows<Problem, C> tokens_;
  index_t steps_;                // n
  index_t together_;             // tokens whose writes are solved for together
  T* keys_;                      // (C, n, stride)
  T* queries_;                   // (H / Hk, C, stride)
  keys_in_lanes<T> transposed_;  // the writes of tokens that are solved for together
  index_t lines_;                // their lanes
  T* raw_scores_;                // (H / Hk, C, lines)
  T* raw_overlaps_;              // (C, n, lines)
  T* beta_;                      // (together, n)
  T* scores_ = nullptr;
  T* overlaps_ = nullptr;
  T* log_decay_ = nullptr;  // (together, n)
  T* sums_ = nullptr;
  T* from_start_ = nullptr;
  T* to_end_ = nullptr;
  T* query_scale_ = nullptr;
  T* keep_ = nullptr;

  index_t head_ = -1;
  gate_rows<Problem> gates_;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
