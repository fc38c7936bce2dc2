// SPDX-License-Identifier: Apache-2.0
/// @file The rule of mLSTM: a write per token under an exponential gate, everything relative to a running maximum.
#pragma once

#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>

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
  static constexpr bool solves = false;
  static constexpr bool adds = false;
  static constexpr bool reads_together = false;
  static constexpr bool reads_before = false;
  static constexpr bool decays_lanes = false;
  static constexpr factor keep = factor::lanes;
  static constexpr factor erase = factor::number;

  mlstm_rule(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        features_(problem.k.extent(3)),
        stride_(whole_registers<T>(features_)),
        query_heads_(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        keys_(frame.take<T>(C * stride_)),
        queries_(frame.take<T>(query_heads_ * C * stride_)),
        transposed_(frame.take<T>(features_ * lines)),
        raw_scores_(frame.take<T>(query_heads_ * C * lines + L)),
        scores_(frame.take<T>(query_heads_ * C * lines)),
        row_factor_(frame.take<T>(query_heads_ * C)),
        sum_(frame.take<T>(stride_ + 1)) {}

  static constexpr index_t writes_per_token() { return 1; }
  index_t features() const { return features_; }
  index_t sum_width() const { return features_ + 1; }
  T* sum() { return sum_; }

  void go_to(const sequence& seq, index_t key_head) {
    seq_ = seq;
    key_head_ = key_head;
    k_ = rows_of_tokens(problem_.k, seq.batch, key_head, seq.key_row, seq.keys, problem_.reversed());
    v_ = rows_of_tokens(problem_.v, seq.batch, key_head, seq.key_row, seq.keys, problem_.reversed());
    std::fill_n(sum_, stride_ + 1, T(0));
  }

  void load(index_t first, index_t count, bool /*keys*/, bool /*queries*/) {
    first_ = first;
    count_ = count;
    load_features<T>(as_given{}, k_, first, count, features_, T(1), keys_, stride_);
    for (index_t g = 0; g < query_heads_; ++g) {
      load_features<T>(as_given{}, query_rows(g), first, count, features_, problem_.scale, queries_ + g * C * stride_,
                       stride_);
    }
    load_gates();
    raw_products();
  }

  void ahead(index_t first, index_t count, bool /*keys*/, bool /*queries*/, simd::lines_ahead& list) const {
    if (count <= 0) return;
    list.add(k_[first], k_.step, count, features_);
    for (index_t g = 0; g < query_heads_; ++g) {
      const auto rows = query_rows(g);
      list.add(rows[first], rows.step, count, features_);
    }
  }
  void ahead_of_values(index_t /*value_head*/, index_t channel, index_t width, index_t first, index_t count,
                       simd::lines_ahead& list) const {
    if (count > 0) list.add(v_[first] + channel, v_.step, count, width);
  }

  const chunk<T>& head(index_t /*value_head*/, index_t from) {
    index_t until = from + 1;
    while (until < count_ && log_decay_[until] != minus_infinity<T>) ++until;
    const index_t n = until - from;
    chunk_ = {};
    chunk_.first = first_ + from;
    chunk_.tokens = n;
    chunk_.writes = 1;
    chunk_.key_stride = stride_;
    chunk_.query_heads = query_heads_;
    chunk_.query_head_stride = C * stride_;
    chunk_.score_stride = lines;
    chunk_.score_head_stride = C * lines;
    chunk_.write_keys = chunk_.read_keys = keys_ + from * stride_;
    chunk_.queries = chunk_.later_queries = queries_ + from * stride_;
    chunk_.scores = scores_;
    chunk_.query_scale = from_start_;
    chunk_.write_scale = to_end_;
    chunk_.row_factor = row_factor_;
    chunk_.row_factor_stride = C;
    chunk_.keep = keep_;
    // What nothing has entered, or what is forgotten, is not read.
    if (log_decay_[from] == minus_infinity<T> || sum_[0] == minus_infinity<T>) {
      chunk_.forget = reset::all;
      std::fill_n(sum_ + 1, stride_, T(0));
      sum_[0] = minus_infinity<T>;
    }
    weigh(from, n);
    divide(from, n);
    absorb(from, n);
    return chunk_;
  }

  void panel(index_t channel, index_t width, panel_rows<T>& rows) {
    load_channels(v_, chunk_.first, chunk_.tokens, problem_.v.extent(3), channel, rows.values, width);
  }

 private:
  static constexpr index_t C = chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t lines = (C + L - 1) / L * L;  // tokens in lanes

  token_rows<const typename decltype(Problem::q)::value_type> query_rows(index_t g) const {
    return rows_of_tokens(problem_.q, seq_.batch, key_head_ * query_heads_ + g, seq_.query_row, seq_.queries,
                          problem_.reversed());
  }

  void load_gates() {
    const auto input =
        rows_of_tokens(problem_.input_gate, seq_.batch, key_head_, seq_.key_row, seq_.keys, problem_.reversed());
    const auto decay =
        rows_of_tokens(problem_.log_decay, seq_.batch, key_head_, seq_.key_row, seq_.keys, problem_.reversed());
    for (index_t t = 0; t < count_; ++t) {
      input_[t] = static_cast<T>(*input[first_ + t]);
      log_decay_[t] = static_cast<T>(*decay[first_ + t]);
    }
    std::fill(log_decay_ + count_, log_decay_ + lines, T(0));
    using gate_type = std::remove_cvref_t<decltype(problem_.gate)>;
    if constexpr (!std::is_same_v<gate_type, given_log_decay>) {
      const simd::batch<T> zero(T(0));
      for (index_t i = 0; i < lines; i += L)
        simd::store(log_decay_ + i, problem_.gate.log_decay(simd::load(log_decay_ + i), T(0), zero));
    }
    assert_log_decays(log_decay_, count_);
  }

  void raw_products() {
    constexpr index_t V = even_vectors(lines / L);
    if (count_ == 1) {
      for (index_t g = 0; g < query_heads_; ++g)
        raw_scores_[g * C * lines] = dot_of_rows(queries_ + g * C * stride_, keys_, stride_);
      return;
    }
    simd::transpose_in(keys_, stride_, count_, features_, transposed_, lines);
    for (index_t g = 0; g < query_heads_; ++g) {
      for (index_t s = 0; s < count_; s += V * L) {
        simd::tile_product<T, V>({queries_ + g * C * stride_, stride_, 1}, count_, transposed_ + s, lines, features_,
                                 raw_scores_ + g * C * lines + s, lines, false);
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
        for (index_t g = 0; g < query_heads_; ++g) {
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
    for (index_t g = 0; g < query_heads_; ++g) {
      for (index_t t = 0; t < n; ++t) {
        T sum = from_start_[t] * dot_of_rows(queries_ + (g * C + from + t) * stride_, sum_ + 1, stride_);
        for (index_t s = 0; s <= t; ++s) sum += scores_[(g * C + t) * lines + s];
        const T size = std::abs(sum);
        const T least = std::exp(-maximum_[t]);
        row_factor_[g * C + t] = T(1) / ((size <= least ? least : size) + problem_.epsilon);  // NaN stays
      }
    }
  }

  // z and m after the tokens.
  void absorb(index_t from, index_t n) {
    const simd::batch<T> kept(from_start_[n - 1]);
    for (index_t i = 0; i < stride_; i += L) {
      simd::batch<T> sum = simd::load(sum_ + 1 + i) * kept;
      for (index_t s = 0; s < n; ++s)
        sum = simd::fma(simd::load(keys_ + (from + s) * stride_ + i), simd::batch<T>(to_end_[s]), sum);
      simd::store(sum_ + 1 + i, sum);
    }
    sum_[0] = maximum_[n - 1];
  }

  const Problem& problem_;
  index_t features_;     // D
  index_t stride_;       // of rows of features
  index_t query_heads_;  // of this key head
  T* keys_;              // (C, stride)
  T* queries_;           // (H / Hk, C, stride)
  T* transposed_;        // (D, lines)
  T* raw_scores_;        // (H / Hk, C, lines)
  T* scores_;            // (H / Hk, C, lines)
  T* row_factor_;        // (H / Hk, C)
  T* sum_;               // (1 + stride): m, z
  T input_[static_cast<std::size_t>(C)];
  T maximum_[static_cast<std::size_t>(C)];
  alignas(64) T log_decay_[static_cast<std::size_t>(lines)];
  alignas(64) T from_start_[static_cast<std::size_t>(lines)];
  alignas(64) T to_end_[static_cast<std::size_t>(lines)];
  alignas(64) T keep_[static_cast<std::size_t>(most_panel_width<T>)];

  sequence seq_;
  index_t key_head_ = 0;
  token_rows<const typename decltype(Problem::k)::value_type> k_;
  token_rows<const typename decltype(Problem::v)::value_type> v_;
  index_t first_ = 0;
  index_t count_ = 0;
  chunk<T> chunk_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
