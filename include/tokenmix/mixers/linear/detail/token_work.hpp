// SPDX-License-Identifier: Apache-2.0
/// @file What tokens that go by one by one do to one panel of a state.
#pragma once

#include <tokenmix/mixers/linear/detail/panel_work.hpp>
#include <tokenmix/mixers/linear/detail/token_panel.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What outputs are before the state is read: nothing, or what tokens give of themselves.
template <class T, index_t Vectors>
void begin_outputs(const chunk<T>& c, index_t query_head, const T* values, T* outputs) {
  constexpr index_t W = Vectors * simd::lanes<T>;
  if (c.own == nullptr) {
    std::fill_n(outputs, c.tokens * W, T(0));
  } else {
    std::copy_n(values, c.tokens * W, outputs);
    scale_rows<T, Vectors, factor::number>(outputs, c.tokens, {c.own + query_head * c.own_stride});
  }
}

/// Registers in the widest panel of a rule. One that solves by token passes over its panel once a token: with narrow panels the
/// next token's work begins before the last sums are in (Zen 4: 70 GFLOP/s with two registers, 53 with four).
template <class Rule>
inline constexpr index_t most_panel_vectors = Rule::by_token && Rule::solves ? 2 : simd::max_tile_vectors;

/// As panel_work, for rules by token.
template <class Rule, class O>
class token_work {
 public:
  using T = typename Rule::T;

  token_work(Rule& rule, scratch_frame& frame)
      : rule_(rule), rows_(take_panel_rows(rule, C, most_panel_width<T>, frame)) {}

  template <index_t V>
  void absorb(const chunk<T>& c, const output_rows<O>& out, index_t first_head, index_t channel, index_t width,
              T* state, bool keys, bool queries, simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    scratch_frame frame;
    const index_t D = rule_.features();
    const index_t readers = queries ? c.query_heads : 0;
    T* outputs = frame.take<T>(readers * c.tokens * W);
    if (keys) {
      rule_.panel(channel, W, rows_);
      if (!Rule::solves && c.write_scale != nullptr)
        scale_rows<T, V, factor::number>(rows_.values, c.tokens, {c.write_scale});
    }
    for (index_t g = 0; g < readers; ++g) begin_outputs<T, V>(c, g, rows_.values, outputs + g * c.tokens * W);
    panel_tokens<T, Rule::keep> tokens{c.tokens,         c.write_keys,
                                       c.queries,        c.key_stride,
                                       readers,          c.query_head_stride,
                                       rows_.values,     keep_of<Rule>(c, rows_),
                                       keep_after_of(c), outputs,
                                       c.tokens * W};
    // What is read before all of it decays, or is not written, is read at once.
    if (!keys || (Rule::reads_before && c.tokens == 1)) {
      for (index_t g = 0; g < readers; ++g) {
        simd::tile_product<T, V>({c.queries + g * c.query_head_stride, c.key_stride, 1}, c.tokens, state, W, D,
                                 outputs + g * c.tokens * W, W, true);
      }
      tokens.query_heads = 0;
    }
    if (keys) {
      forget_state(c, rows_, D, W, state);
      if constexpr (Rule::solves) {
        solve<V>(c, tokens, D, state, ahead);
      } else {
        advance_panel<T, V, Rule::keep, Rule::reads_before ? reads::before : reads::decayed>(tokens, D, state, ahead);
      }
    }
    for (index_t g = 0; g < readers; ++g) {
      T* o = outputs + g * c.tokens * W;
      if constexpr (Rule::decays_lanes) {
        if (c.tokens > 1) scale_rows<T, V, factor::lanes>(o, c.tokens, {rows_.query_scale});
      } else if (c.query_scale != nullptr) {
        scale_rows<T, V, factor::number>(o, c.tokens, {c.query_scale});
      }
      out.write(first_head + g, c.first, c.tokens, channel, width, o, W,
                c.row_factor == nullptr ? nullptr : c.row_factor + g * c.row_factor_stride);
    }
  }

 private:
  static constexpr index_t C = Rule::chunk_tokens;

  // A token is written while it is read and while the next one reads what it will be solved with: one pass a token.
  template <index_t V>
  void solve(const chunk<T>& c, const panel_tokens<T, Rule::keep>& tokens, index_t D, T* state,
             simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    alignas(64) T reads[static_cast<std::size_t>(W)], unread[static_cast<std::size_t>(W)] = {};
    const auto row = [&](const T* rows, index_t t) { return rows + t * c.key_stride; };
    const auto read = [&](const T* key, T* out) {
      simd::tile_product<T, V>({key, c.key_stride, 1}, 1, state, W, D, out, W, true);
    };
    std::fill_n(reads, W, T(0));
    read(c.read_keys, reads);
    for (index_t t = 0; t < c.tokens; ++t) {
      ahead.fetch(lines_per_block);
      T* value = rows_.values + t * W;
      solve_writes<T, V, Rule::erase>(c.overlaps, 1, 1, reads, c.read_scale == nullptr ? nullptr : c.read_scale + t,
                                      {rows_.erase + t * (Rule::erase == factor::lanes ? W : 1)}, value);
      if (c.write_scale != nullptr) scale_rows<T, V, factor::number>(value, 1, {c.write_scale + t});
      std::fill_n(reads, W, T(0));
      T* output = tokens.query_heads > 0 ? tokens.outputs + t * W : unread;
      const T* query = tokens.query_heads > 0 ? row(c.queries, t) : row(c.write_keys, t);
      const auto pass = [&](auto keep, auto next) {
        write_and_read<T, V, keep, next>(row(c.write_keys, t), value, {tokens.keep.data}, D, state, query, output,
                                         row(c.read_keys, t + 1), reads);
      };
      using none = std::integral_constant<factor, factor::none>;
      using first = std::integral_constant<factor, Rule::keep>;
      const bool last = t + 1 == c.tokens;
      if (t == 0 && last) {
        pass(first(), std::false_type());
      } else if (t == 0) {
        pass(first(), std::true_type());
      } else if (last) {
        pass(none(), std::false_type());
      } else {
        pass(none(), std::true_type());
      }
      for (index_t g = 1; g < tokens.query_heads; ++g)
        read(row(c.queries + g * c.query_head_stride, t), tokens.outputs + g * tokens.output_head_stride + t * W);
    }
    if constexpr (Rule::keep != factor::none) {
      if (c.tokens > 1) decay_panel<T, V, Rule::keep>(tokens.keep_after, D, state);
    }
  }

  row_factors<T, Rule::keep> keep_after_of(const chunk<T>& c) const {
    if (c.tokens == 1) return {nullptr};
    return {Rule::decays_lanes ? rows_.keep_after : c.keep_after};
  }

  Rule& rule_;
  panel_rows<T> rows_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
