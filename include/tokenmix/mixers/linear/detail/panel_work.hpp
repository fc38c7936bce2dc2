// SPDX-License-Identifier: Apache-2.0
/// @file What a chunk does to one panel of a state: values solved for, outputs, the state after it.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/mixers/linear/detail/group.hpp>
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
    rows.decay = frame.take<T>(tokens * width);
    rows.from_start = frame.take<T>(tokens * width);
    rows.to_end = frame.take<T>(tokens * width);
    rows.keep = frame.take<T>(width);
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

/// Registers side by side in the panels of a long sequence: what a sweep over the state holds in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t sweep_vectors = 2;
#else
inline constexpr index_t sweep_vectors = 1;
#endif

/// How many panels `channels` of a head are cut into at least.
template <class T>
constexpr index_t fewest_panels(index_t channels, bool one_token) {
  const index_t vectors = std::max<index_t>(1, whole_registers<T>(channels) / simd::lanes<T>);
  const index_t widest = one_token ? simd::max_tile_vectors : sweep_vectors;
  return (vectors + widest - 1) / widest;
}

/// Chunks of tokens, one after the other, at one panel of a state that stays in the first cache. What a chunk writes enters
/// the state in the pass that reads for the next one.
template <class Rule, class O>
class panel_work {
 public:
  using T = typename Rule::T;

  panel_work(Rule& rule, scratch_frame& frame)
      : rule_(rule),
        rows_{take_panel_rows(rule, C, most_width, frame), take_panel_rows(rule, C, most_width, frame)},
        reads_(frame.take<T>(C * (rule.writes_per_token() + 1) * most_width)),
        outputs_(frame.take<T>(2 * C * most_width)) {}

  /// A panel's state (D, V registers), and the last group's writes if they have yet to enter it: rows of their own, since the
  /// rule's are those of the tokens that were loaded last.
  struct panel_state {
    T* state;
    index_t waiting;  // writes
    T* keys;          // (group_tokens, D in whole registers)
    T* values;        // (group_tokens, most width)
    T* keep;          // (D in whole registers) or (most width)
  };

  panel_state take_panel(T* state, scratch_frame& frame) const {
    const index_t stride = whole_registers<T>(rule_.features());
    return {state, 0, frame.take<T>(group_tokens * stride), frame.take<T>(group_tokens * most_width),
            frame.take<T>(std::max(stride, most_width))};
  }

  /// Channels [channel, channel + width) of a value head. `first_head` of out is the first that reads it.
  template <index_t V>
  void absorb(const chunk<T>* chunks, index_t count, const output_rows<O>& out, index_t first_head, index_t channel,
              index_t width, panel_state& panel, bool keys, bool queries, simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    const index_t D = rule_.features();
    T* state = panel.state;
    begin(panel);
    for (index_t i = 0; i < count; ++i) {
      const chunk<T>& c = chunks[i];
      panel_rows<T>& rows = rows_[i % 2];
      const index_t writes = c.tokens * c.writes;
      const index_t added = Rule::adds ? c.tokens : 0;
      const bool forgets = keys && c.forget != reset::none;
      T* written = rows.values + added * W;
      if (keys) rule_.panel(c, channel, W, rows);
      if (forgets && !Rule::reads_before) {
        enter<V>(state, ahead);
        forget_state(c, rows, D, W, state);
      }
      read<V>(c, Rule::solves && keys ? writes : 0, queries ? c.query_heads : 0, state, ahead);
      if constexpr (Rule::solves) {
        if constexpr (Rule::adds) add_earlier<T, V>(c, rows.values, reads_);
        solve_writes<T, V, Rule::erase>(c.overlaps, c.overlap_stride, writes, reads_, c.read_scale, {rows.erase},
                                        written);
      }
      for (index_t g = 0; queries && g < c.query_heads; ++g) {
        T* outputs = g == 0 ? reads_ + (Rule::solves && keys ? writes * W : 0) : outputs_;
        if (g > 0)
          read_state<T, V>(c.queries + g * c.query_head_stride, c.key_stride, c.tokens, state, D, outputs, ahead);
        if (c.scores != nullptr) {
          const T* scores = c.scores + g * c.score_head_stride;
          if constexpr (Rule::decays_lanes) {
            T* decayed = outputs_ + c.tokens * W;
            std::copy_n(rows.values, writes * W, decayed);
            add_decayed_triangle<T, V>(scores, c.score_stride, c.tokens, rows.decay, rows.from_start, decayed, outputs);
          } else {
            add_triangle<T, V>(scores, c.score_stride, c.tokens, c.writes, written, c.query_scale, outputs);
            if constexpr (Rule::adds) {
              add_triangle<T, V>(c.added_scores + g * c.score_head_stride, c.score_stride, c.tokens, 1, rows.values,
                                 nullptr, outputs);
            }
          }
        }
        out.write(first_head + g, c.first, c.tokens, channel, width, outputs, W,
                  c.row_factor == nullptr ? nullptr : c.row_factor + g * c.row_factor_stride);
      }
      if (!keys) continue;
      enter<V>(state, ahead);
      if (forgets && Rule::reads_before) forget_state(c, rows, D, W, state);
      if constexpr (Rule::decays_lanes) {
        scale_rows<T, V, factor::lanes>(rows.values, writes, {rows.to_end});
      } else if (c.write_scale != nullptr) {
        scale_rows<T, V, factor::number>(rows.values, writes, {c.write_scale});
      }
      waiting_ = {added + writes, c.write_keys, c.key_stride, rows.values, keep_of<Rule>(c, rows)};
    }
    end<V>(panel, ahead);
  }

  /// What waits enters the state.
  template <index_t V>
  void finish(panel_state& panel, simd::lines_ahead& ahead) {
    begin(panel);
    enter<V>(panel.state, ahead);
    panel.waiting = 0;
  }

 private:
  static constexpr index_t C = Rule::chunk_tokens;
  static constexpr index_t most_width = sweep_vectors * simd::lanes<T>;

  /// What has yet to enter the state.
  struct writes_waiting {
    index_t writes = 0;
    const T* keys = nullptr;
    index_t key_stride = 0;
    const T* values = nullptr;
    row_factors<T, Rule::keep> keep{nullptr};
  };

  void begin(const panel_state& panel) {
    waiting_ = {panel.waiting, panel.keys, whole_registers<T>(rule_.features()), panel.values, {panel.keep}};
  }

  // A whole group waits for the tokens that will be loaded next; copying it costs less than a pass over the state.
  template <index_t V>
  void end(panel_state& panel, simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    const index_t stride = whole_registers<T>(rule_.features());
    if (waiting_.writes != group_tokens) enter<V>(panel.state, ahead);
    panel.waiting = waiting_.writes;
    if (waiting_.writes == 0 || waiting_.keys == panel.keys) return;
    for (index_t j = 0; j < group_tokens; ++j)
      copy(waiting_.keys + j * waiting_.key_stride, stride, panel.keys + j * stride);
    copy(waiting_.values, group_tokens * W, panel.values);
    if constexpr (Rule::keep == factor::number) copy(waiting_.keep.data, stride, panel.keep);
    if constexpr (Rule::keep == factor::lanes) copy(waiting_.keep.data, W, panel.keep);
  }

  static void copy(const T* from, index_t count, T* to) {
    for (index_t i = 0; i < count; i += simd::lanes<T>) simd::store(to + i, simd::load(from + i));
  }

  template <index_t V>
  void enter(T* state, simd::lines_ahead& ahead) {
    if (waiting_.writes == 0) return;
    update_state<T, V, Rule::keep>(waiting_.keys, waiting_.key_stride, rule_.features(), waiting_.writes,
                                   waiting_.values, waiting_.keep, state, ahead);
    waiting_.writes = 0;
  }

  // Reads with `rows` read keys and the queries of the first of `heads`, after what has waited has entered.
  template <index_t V>
  void read(const chunk<T>& c, index_t rows, index_t heads, T* state, simd::lines_ahead& ahead) {
    constexpr index_t W = V * simd::lanes<T>;
    const index_t queries = heads > 0 ? c.tokens : 0;
    if (rows + queries == 0) return;
    bool swept = false;
    if (waiting_.writes == group_tokens) {
      const auto try_sweep = [&](auto reads) {
        if (swept || rows + queries != reads) return;
        const T* write_keys[static_cast<std::size_t>(group_tokens)];
        const T* read_keys[static_cast<std::size_t>(reads())];
        for (index_t j = 0; j < group_tokens; ++j) write_keys[j] = waiting_.keys + j * waiting_.key_stride;
        for (index_t j = 0; j < reads; ++j) {
          read_keys[j] = j < rows ? c.read_keys + j * c.key_stride : c.queries + (j - rows) * c.key_stride;
        }
        sweep_state<T, V, Rule::keep, group_tokens, reads>(write_keys, waiting_.values, waiting_.keep, read_keys,
                                                           rule_.features(), state, reads_, ahead);
        waiting_.writes = 0;
        swept = true;
      };
      [&]<index_t... Reads>(std::integer_sequence<index_t, Reads...>) {
        (try_sweep(std::integral_constant<index_t, Reads>{}), ...);
      }(typename Rule::group_reads{});
    }
    if (swept) return;
    enter<V>(state, ahead);
    if (rows > 0) read_state<T, V>(c.read_keys, c.key_stride, rows, state, rule_.features(), reads_, ahead);
    if (queries > 0)
      read_state<T, V>(c.queries, c.key_stride, queries, state, rule_.features(), reads_ + rows * W, ahead);
  }

  Rule& rule_;
  panel_rows<T> rows_[2];
  writes_waiting waiting_;
  T* reads_;    // of the read keys, then of the first head's queries
  T* outputs_;  // of another head's; behind them values as they decay
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
