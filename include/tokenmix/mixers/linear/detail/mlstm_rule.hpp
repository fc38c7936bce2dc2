// SPDX-License-Identifier: Apache-2.0
/// @file The rule of mLSTM: a write per token under an exponential gate, everything relative to a running maximum.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk_rows.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/primitives/online_softmax.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The checked arguments.
template <class Q, class E, class G, class Gate>
struct mlstm_problem {
  using T = accumulator_t<Q>;
  tensor_view<const Q, 4> q;           // (B, H, T, D), H a multiple of Hk
  tensor_view<const E, 4> k;           // (B, Hk, T, D)
  tensor_view<const E, 4> v;           // (B, Hk, T, Dv)
  tensor_view<const G, 3> input_gate;  // (B, Hk, T)
  tensor_view<const G, 3> log_decay;   // (B, Hk, T)
  const Gate& gate;
  T scale;
  T epsilon;
  tokenmix::order order;

  bool reversed() const { return order == tokenmix::order::reverse; }
};

/// The smallest T that is not below x: what exponents are taken relative to must not be exceeded.
template <class T>
T rounded_up(double x) {
  const T nearest = static_cast<T>(x);
  return static_cast<double>(nearest) < x ? std::nextafter(nearest, std::numeric_limits<T>::infinity()) : nearest;
}

/// See chunk.hpp for what a rule is. Its sums are the maximum m, then z.
///
/// The exponent of a token's part is a sum of log gates from that token on, in double: gates of a size of thousands
/// cost no digits of the weights. The maximum is rounded to T, upwards, before anything is taken relative to it.
template <class Problem>
class mlstm_rule {
 public:
  using T = typename Problem::T;
  static constexpr index_t chunk_tokens = 16;
  static constexpr index_t step_writes = 1;
  static constexpr bool by_token = false;
  static constexpr bool solves = false;
  static constexpr bool adds = false;
  static constexpr bool reads_together = false;
  static constexpr bool reads_before = false;
  static constexpr bool reads_after = true;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = factor::lanes;
  static constexpr factor erase = factor::number;

  mlstm_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        tokens_(problem, problem.k.extent(3)),
        keys_(frame.take<T>(C * tokens_.stride)),
        queries_(frame.take<T>(tokens_.query_heads * C * tokens_.stride)),
        transposed_(tokens_.features, C, frame),
        raw_scores_(frame.take<T>(tokens_.query_heads * C * lines + L)),
        scores_(frame.take<T>(tokens_.query_heads * C * lines)),
        row_factor_(frame.take<T>(tokens_.query_heads * C)),
        sum_(frame.take<T>(tokens_.stride + 1)) {}

  static constexpr index_t writes_per_token() { return 1; }
  index_t features() const { return tokens_.features; }
  index_t sum_width() const { return tokens_.features + 1; }
  T* sum() { return sum_; }

  void go_to(const sequence& seq, index_t key_head) {
    tokens_.go_to(seq, key_head);
    std::fill_n(sum_, tokens_.stride + 1, T(0));
  }

  void load(index_t first, index_t count, bool keys, bool queries) {
    tokens_.begin(first, count, keys, queries);
    tokens_.load_keys(as_given{}, keys_);
    tokens_.load_queries(as_given{}, queries_);
    load_gates();
    raw_products();
  }

  void ahead(index_t first, index_t count, bool /*keys*/, bool /*queries*/, simd::lines_ahead& list) const {
    tokens_.ask_for_keys(first, count, list);
    tokens_.ask_for_queries(first, count, list);
  }
  void ahead_of_values(index_t /*value_head*/, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    tokens_.ask_for(tokens_.rows_of_keys(problem_.v), channel, width, first, count, list);
  }

  const chunk<T>& head(index_t /*value_head*/, index_t from) {
    index_t until = from + 1;
    while (until < tokens_.count && log_decay_[until] != minus_infinity<T>) ++until;
    const index_t n = until - from;
    const index_t stride = tokens_.stride;
    chunk_ = tokens_.chunk_from(from, n, 1, lines);
    chunk_.write_keys = chunk_.read_keys = keys_ + from * stride;
    chunk_.queries = queries_ + from * stride;
    chunk_.scores = scores_;
    chunk_.query_scale = from_start_;
    chunk_.write_scale = to_end_;
    chunk_.row_factor = row_factor_;
    chunk_.keep = keep_;
    // What nothing has entered, or what is forgotten, is not read.
    if (log_decay_[from] == minus_infinity<T> || sum_[0] == minus_infinity<T>) {
      chunk_.forget = reset::all;
      std::fill_n(sum_ + 1, stride, T(0));
      sum_[0] = minus_infinity<T>;
    }
    weigh(from, n);
    divide(from, n);
    absorb(from, n);
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(tokens_.rows_of_keys(problem_.v), chunk_.first, chunk_.tokens, problem_.v.extent(3), channel,
                  rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (C + L - 1) / L * L;  // tokens in lanes

  void load_gates() {
    const auto input = tokens_.rows_of_keys(problem_.input_gate);
    const auto decay = tokens_.rows_of_keys(problem_.log_decay);
    const index_t count = tokens_.count;
    for (index_t t = 0; t < count; ++t) {
      input_[t] = static_cast<T>(*input[tokens_.first + t]);
      log_decay_[t] = static_cast<T>(*decay[tokens_.first + t]);
    }
    std::fill(log_decay_ + count, log_decay_ + lines, T(0));
    using gate_type = std::remove_cvref_t<decltype(problem_.gate)>;
    if constexpr (!std::is_same_v<gate_type, given_log_decay>) {
      const simd::batch<T> zero(T(0));
      for (index_t i = 0; i < lines; i += L)
        simd::store(log_decay_ + i, problem_.gate.log_decay(simd::load(log_decay_ + i), T(0), zero));
    }
    assert_log_decays(log_decay_, count);
  }

  void raw_products() {
    const index_t stride = tokens_.stride, count = tokens_.count;
    if (count > 1) transposed_.take(keys_, stride, count);
    for (index_t g = 0; g < tokens_.query_heads; ++g) {
      const T* queries = queries_ + g * C * stride;
      T* scores = raw_scores_ + g * C * lines;
      if (count > 1) {
        transposed_.multiply(queries, stride, count, scores);
      } else {
        *scores = dot_of_rows(queries, keys_, stride);
      }
    }
  }

  // Weights of the tokens and of the state before them in every output, relative to the output's maximum.
  void weigh(index_t from, index_t n) {
    double exponents[static_cast<std::size_t>(lines)];
    alignas(64) T line[static_cast<std::size_t>(lines)] = {};
    double before = static_cast<double>(sum_[0]);
    for (index_t t = 0; t < n; ++t) {
      const double log_decay = static_cast<double>(log_decay_[from + t]);
      double largest = before += log_decay;
      for (index_t s = 0; s < t; ++s) largest = std::max(largest, exponents[s] += log_decay);
      exponents[t] = static_cast<double>(input_[from + t]);
      largest = std::max(largest, exponents[t]);
      maximum_[t] = rounded_up<T>(largest);
      const double reference = maximum_[t] == minus_infinity<T> ? 0.0 : static_cast<double>(maximum_[t]);
      for (index_t s = 0; s <= t; ++s) line[s] = static_cast<T>(exponents[s] - reference);
      from_start_[t] = static_cast<T>(before - reference);
      for (index_t s = 0; s <= t; s += L) {
        const simd::batch<T> weight = simd::exp(simd::load(line + s));
        for (index_t g = 0; g < tokens_.query_heads; ++g) {
          const T* raw = raw_scores_ + (g * C + from + t) * lines + from + s;
          simd::store(scores_ + (g * C + t) * lines + s, simd::load(raw) * weight);
        }
        if (t + 1 == n) simd::store(to_end_ + s, weight);
      }
    }
    for (index_t t = 0; t < n; t += L) {
      const simd::batch<T> valid = simd::load_n(from_start_ + t, std::min(L, n - t));
      simd::store(from_start_ + t, simd::exp(valid));
    }
    std::fill(keep_, keep_ + most_panel_width<T>, from_start_[n - 1]);
  }

  void divide(index_t from, index_t n) {
    const index_t stride = tokens_.stride;
    for (index_t g = 0; g < tokens_.query_heads; ++g) {
      for (index_t t = 0; t < n; ++t) {
        T sum = from_start_[t] * dot_of_rows(queries_ + (g * C + from + t) * stride, sum_ + 1, stride);
        for (index_t s = 0; s <= t; ++s) sum += scores_[(g * C + t) * lines + s];
        const T size = std::abs(sum);
        const T least = std::exp(-maximum_[t]);
        row_factor_[g * C + t] = T(1) / ((size <= least ? least : size) + problem_.epsilon);  // NaN stays
      }
    }
  }

  // z and m after the tokens.
  void absorb(index_t from, index_t n) {
    const index_t stride = tokens_.stride;
    const simd::batch<T> kept(from_start_[n - 1]);
    for (index_t i = 0; i < stride; i += L) {
      simd::batch<T> sum = simd::load(sum_ + 1 + i) * kept;
      for (index_t s = 0; s < n; ++s)
        sum = simd::fma(simd::load(keys_ + (from + s) * stride + i), simd::batch<T>(to_end_[s]), sum);
      simd::store(sum_ + 1 + i, sum);
    }
    sum_[0] = maximum_[n - 1];
  }

  const Problem& problem_;
  chunk_rows<Problem, C> tokens_;
  T* keys_;     // (C, stride)
  T* queries_;  // (H / Hk, C, stride)
  keys_in_lanes<T> transposed_;
  T* raw_scores_;  // (H / Hk, C, lines)
  T* scores_;      // (H / Hk, C, lines)
  T* row_factor_;  // (H / Hk, C)
  T* sum_;         // (1 + stride): m, z
  T input_[static_cast<std::size_t>(C)];
  T maximum_[static_cast<std::size_t>(C)];
  alignas(64) T log_decay_[static_cast<std::size_t>(lines)];
  alignas(64) T from_start_[static_cast<std::size_t>(lines)];
  alignas(64) T to_end_[static_cast<std::size_t>(lines)];
  alignas(64) T keep_[static_cast<std::size_t>(most_panel_width<T>)];

  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
