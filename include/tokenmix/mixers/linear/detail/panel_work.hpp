// SPDX-License-Identifier: Apache-2.0
/// @file What a chunk does to one panel of a state: values solved for, outputs, the state after it.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/mixers/linear/detail/output.hpp>
#include <tokenmix/primitives/online_softmax.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Rows for the writes of `tokens` tokens, `width` lanes wide.
template <class Rule>
panel_rows<typename Rule::T> take_panel_rows(const Rule& rule, index_t tokens, index_t width, scratch_frame& frame) {
  using T = typename Rule::T;
  const index_t writes = tokens * rule.writes_per_token();
  panel_rows<T> rows;
  rows.values = frame.take<T>((writes + (Rule::adds ? tokens : 0)) * width);
  if constexpr (Rule::solves && Rule::erase == factor::lanes) rows.erase_lanes = frame.take<T>(writes * width);
  if constexpr (Rule::decays_lanes) {
    rows.keep = frame.take<T>(width);
    rows.keep_after = frame.take<T>(width);
    rows.query_scale = frame.take<T>(tokens * width);
  }
  return rows;
}

/// Zeros for what the chunk's first token forgets of a state (rows, width).
template <class T>
void forget_state(const chunk<T>& c, const panel_rows<T>& panel, index_t rows, index_t width, T* state) {
  if (c.forget == reset::all) {
    std::fill_n(state, rows * width, T(0));
  } else if (c.forget == reset::rows) {
    for (index_t d = 0; d < rows; ++d) {
      if (c.forgotten[d] == minus_infinity<T>) std::fill_n(state + d * width, width, T(0));
    }
  } else if (c.forget == reset::lanes) {
    for (index_t i = 0; i < width; ++i) {
      if (panel.forgotten[i] != minus_infinity<T>) continue;
      for (index_t d = 0; d < rows; ++d) state[d * width + i] = T(0);
    }
  }
}

template <class Rule, class T>
row_factors<T, Rule::keep> keep_of(const chunk<T>& c, const panel_rows<T>& panel) {
  return {Rule::decays_lanes ? panel.keep : c.keep};
}

/// reads[t] += sum over i < t of added_overlaps[t][i] x[i].
template <class T, index_t Vectors>
void add_earlier(const chunk<T>& c, const T* x, T* reads) {
  if (c.tokens < 2) return;
  add_triangle<T, Vectors>(c.added_overlaps + c.overlap_stride, c.overlap_stride, c.tokens - 1, 1, x,
                           c.read_scale == nullptr ? nullptr : c.read_scale + 1, reads + Vectors * simd::lanes<T>);
}

template <class Rule, class O>
class panel_work {
 public:
  using T = typename Rule::T;

  panel_work(Rule& rule, scratch_frame& frame)
      : rule_(rule),
        rows_(take_panel_rows(rule, C, most_panel_width<T>, frame)),
        reads_(frame.take<T>(C * (rule.writes_per_token() + (Rule::reads_together ? 1 : 0)) * most_panel_width<T>)),
        outputs_(frame.take<T>(C * most_panel_width<T>)) {}

  /// Channels [channel, channel + width) of a value head, whose state is (D, V registers). `first_head` of out is the first
  /// that reads it.
  template <index_t V>
  void absorb(const chunk<T>& c, const output_rows<O>& out, index_t first_head, index_t channel, index_t width,
              T* state, bool keys, bool queries, simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    const index_t D = rule_.features();
    const index_t writes = c.tokens * c.writes;
    const index_t added = Rule::adds ? c.tokens : 0;
    T* written = rows_.values + added * W;
    if (keys) {
      rule_.panel(channel, W, rows_);
      forget_state(c, rows_, D, W, state);
      if constexpr (Rule::solves) {
        const index_t besides = Rule::reads_together && queries && c.query_heads > 0 ? c.tokens : 0;
        read_state<T, V>(c.read_keys, c.key_stride, writes + besides, state, D, reads_, ahead);
        if constexpr (Rule::adds) add_earlier<T, V>(c, rows_.values, reads_);
        solve_writes<T, V, Rule::erase>(c.overlaps, c.overlap_stride, writes, reads_, c.read_scale, {rows_.erase},
                                        written);
      }
    }
    for (index_t g = 0; queries && g < c.query_heads; ++g) {
      const bool done = Rule::reads_together && g == 0;
      T* outputs = done ? reads_ + writes * W : outputs_;
      if (!done)
        read_state<T, V>(c.queries + g * c.query_head_stride, c.key_stride, c.tokens, state, D, outputs, ahead);
      if (c.scores != nullptr) {
        const T* scores = c.scores + g * c.score_head_stride;
        add_triangle<T, V>(scores, c.score_stride, c.tokens, c.writes, written, c.query_scale, outputs);
        if constexpr (Rule::adds) {
          add_triangle<T, V>(c.added_scores + g * c.score_head_stride, c.score_stride, c.tokens, 1, rows_.values,
                             nullptr, outputs);
        }
      }
      out.write(first_head + g, c.first, c.tokens, channel, width, outputs, W,
                c.row_factor == nullptr ? nullptr : c.row_factor + g * c.row_factor_stride);
    }
    if (!keys) return;
    if (c.write_scale != nullptr) scale_rows<T, V, factor::number>(rows_.values, writes, {c.write_scale});
    update_state<T, V, Rule::keep>(c.write_keys, c.key_stride, D, added + writes, rows_.values, keep_of<Rule>(c, rows_),
                                   state, ahead);
  }

 private:
  static constexpr index_t C = Rule::chunk_tokens;

  Rule& rule_;
  panel_rows<T> rows_;
  T* reads_;
  T* outputs_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
