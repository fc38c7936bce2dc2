// SPDX-License-Identifier: Apache-2.0
/// @file A chunk of keys and queries: the rows that all value heads of a key head share, and what keys are weighed with.
#pragma once

#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The rows that a value head has of a view whose heads divide the value heads.
template <class Problem, class X>
token_rows<const X> rows_of_value_head(const Problem& problem, const tensor_view<const X, 4>& view, const sequence& seq,
                                       index_t value_head) {
  const index_t head = value_head / (problem.v.extent(1) / view.extent(1));
  return rows_of_tokens(view, seq.batch, head, seq.key_row, seq.keys, problem.reversed());
}

/// Where a rule's chunk is: a key head of a sequence, some of its tokens, and the query heads that read its states.
///
/// A problem has q (B, H, T, D), k (B, Hk, T, ...), v (B, Hv, T, ...) and knows whether it is reversed. Rows of queries are
/// kept as (query head, Tokens, stride), stride the features in whole registers.
template <class Problem, index_t Tokens>
class chunk_rows {
 public:
  using T = typename Problem::T;

  const index_t features;     ///< D of the state
  const index_t stride;       ///< of rows of features
  const index_t query_heads;  ///< of this key head
  sequence seq{};
  index_t key_head = 0;
  index_t first = 0;  ///< token of the sequence
  index_t count = 0;
  bool wants_keys = true;
  bool wants_queries = true;

  chunk_rows(const Problem& problem, index_t width)
      : features(width),
        stride(whole_registers<T>(width)),
        query_heads(problem.k.extent(1) == 0 ? 1 : problem.q.extent(1) / problem.k.extent(1)),
        problem_(problem) {}

  void go_to(const sequence& s, index_t head) {
    seq = s;
    key_head = head;
  }
  void begin(index_t from, index_t tokens, bool keys, bool queries) {
    first = from;
    count = tokens;
    wants_keys = keys;
    wants_queries = queries;
  }
  index_t readers() const { return wants_queries ? query_heads : 0; }

  auto rows_of_queries(index_t g) const {
    return rows_of_tokens(problem_.q, seq.batch, key_head * query_heads + g, seq.query_row, seq.queries,
                          problem_.reversed());
  }
  template <class X, std::size_t R>
  token_rows<const X> rows_of_keys(const tensor_view<const X, R>& view) const {
    return rows_of_tokens(view, seq.batch, key_head, seq.key_row, seq.keys, problem_.reversed());
  }
  template <class X>
  token_rows<const X> rows_of_values(const tensor_view<const X, 4>& view, index_t value_head) const {
    return rows_of_value_head(problem_, view, seq, value_head);
  }

  /// to (count, stride) = the features of keys.
  template <class Feature>
  void load_keys(const Feature& feature, T* to) const {
    load_features<T>(feature, rows_of_keys(problem_.k), first, count, problem_.k.extent(3), T(1), to, stride,
                     {key_head, problem_.k.extent(1)});
  }
  /// to (query heads, Tokens, stride) = the features of queries times the scale, if they are wanted.
  template <class Feature>
  void load_queries(const Feature& feature, T* to) const {
    for (index_t g = 0; g < readers(); ++g) {
      load_features<T>(feature, rows_of_queries(g), first, count, problem_.q.extent(3), problem_.scale,
                       to + g * Tokens * stride, stride, {key_head * query_heads + g, problem_.q.extent(1)});
    }
  }

  /// Names rows of `tokens` tokens from `from` on that will be loaded.
  template <class X>
  static void ask_for(token_rows<const X> rows, index_t channel, index_t width, index_t from, index_t tokens,
                      simd::lines_ahead& list) {
    if (tokens > 0) list.add(rows[from] + channel, rows.step, tokens, width);
  }
  void ask_for_keys(index_t from, index_t tokens, simd::lines_ahead& list) const {
    ask_for(rows_of_keys(problem_.k), 0, problem_.k.extent(3), from, tokens, list);
  }
  void ask_for_queries(index_t from, index_t tokens, simd::lines_ahead& list) const {
    for (index_t g = 0; g < query_heads; ++g) ask_for(rows_of_queries(g), 0, problem_.q.extent(3), from, tokens, list);
  }

  /// What every chunk of these rows has, from token `from` of them on; `lines` is the stride of scores and overlaps.
  chunk<T> chunk_from(index_t from, index_t tokens, index_t writes, index_t lines) const {
    chunk<T> c;
    c.first = first + from;
    c.tokens = tokens;
    c.writes = writes;
    c.key_stride = stride;
    c.query_heads = readers();
    c.query_head_stride = Tokens * stride;
    c.score_stride = c.overlap_stride = lines;
    c.score_head_stride = Tokens * lines;
    c.row_factor_stride = Tokens;
    return c;
  }

 private:
  const Problem& problem_;
};

/// Keys of a chunk in lanes, to be multiplied with rows of queries.
template <class T>
class keys_in_lanes {
 public:
  keys_in_lanes(index_t features, index_t most_keys, scratch_frame& frame)
      : features_(features), lines_(whole_registers<T>(most_keys)), data_(frame.take<T>(features * lines_)) {}

  index_t features() const { return features_; }
  T* data() const { return data_; }         ///< (features, lines)
  index_t lines() const { return lines_; }  ///< keys in whole registers

  void take(const T* keys, index_t stride, index_t count) {
    count_ = count;
    simd::transpose_in(keys, stride, count, features_, data_, lines_);
  }
  /// out (count, lines) = rows keys'. Lanes behind the keys hold anything.
  void multiply(const T* rows, index_t stride, index_t count, T* out) const {
    simd::with_tile_vectors(even_vectors(lines_ / simd::lanes<T>), [&](auto vectors) {
      for (index_t s = 0; s < count_; s += vectors * simd::lanes<T>)
        simd::tile_product<T, vectors>({rows, stride, 1}, count, data_ + s, lines_, features_, out + s, lines_, false);
    });
  }

 private:
  index_t features_;
  index_t lines_;
  T* data_;
  index_t count_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
