// SPDX-License-Identifier: Apache-2.0
/// @file Every mixer with a matrix state: chunks of tokens as matrix products, one token as one pass over the state.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/linear/detail/step.hpp>
#include <tokenmix/mixers/softmax/detail/plan.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Where states and outputs are. Views may be empty: no initial state is zero, what is not wanted is not written.
template <class T, class O>
struct recurrence_result {
  tensor_view<O, 4> out;                    // (B, max(H, Hv), T, Dv)
  tensor_view<const T, 4> initial_state{};  // (n, Hv, D, Dv) for n sequences
  tensor_view<T, 4> final_state{};          // (n, Hv, D, Dv)
  tensor_view<const T, 3> initial_sum{};    // (n, Hk, D)
  tensor_view<T, 3> final_sum{};            // (n, Hk, D)
};

/// How many heads and channels there are, and in which order tokens are met.
struct recurrence_shape {
  index_t heads;        // of out
  index_t key_heads;    // Hk
  index_t value_heads;  // Hv
  index_t channels;     // Dv
  tokenmix::order order;
};

/// One task: some panels of the states of one key head of one sequence, through all tokens.
///
/// Panels are numbered over the value heads of the key head. Which task has which panel changes no bit.
template <class Rule, class O>
class recurrence {
 public:
  using T = typename Rule::T;

  recurrence(Rule& rule, const recurrence_shape& shape, const recurrence_result<T, O>& result, scratch_frame& frame)
      : rule_(rule), shape_(shape), result_(result) {
    const index_t W = most_panel_width<T>;
    rows_.values = frame.take<T>(most_writes * W);
    reads_ = frame.take<T>(most_writes * W);
    outputs_ = frame.take<T>(C * W);
    if constexpr (Rule::solves && Rule::erase == factor::lanes) rows_.erase_lanes = frame.take<T>(most_writes * W);
    if constexpr (Rule::decays_lanes) {
      rows_.decay = frame.take<T>(C * W);
      rows_.from_start = frame.take<T>(C * W);
      rows_.to_end = frame.take<T>(C * W);
      rows_.keep = frame.take<T>(W);
    }
  }

  /// Panels [first, last) of `panel_count(vectors)` that are `vectors` registers wide, but for narrower ones.
  void run(const sequence& seq, index_t number, index_t key_head, index_t first, index_t last, index_t panels) {
    seq_ = seq;
    number_ = number;
    key_head_ = key_head;
    panels_ = panels;
    reversed_ = shape_.order == order::reverse;
    rule_.go_to(seq, key_head);
    begin_sum();
    const index_t D = rule_.features();
    if (seq.keys == 1 && seq.queries == 1) {
      rule_.load(0, 1, true, true);
      each_head(first, last, [&](index_t head, index_t from, index_t until) {
        const chunk<T>& c = rule_.head(head, 0);
        for (index_t p = from; p < until; ++p) {
          in_panel(p, [&](auto vectors, index_t channel, index_t width) {
            step<vectors>(c, head, channel, width, initial(head, channel), final(head, channel), true, true);
          });
        }
      });
    } else {
      scratch_frame frame;
      states_ = frame.take<T>((last - first) * D * most_panel_width<T>);
      first_panel_ = first;
      each_panel(first, last, [&](index_t head, index_t p) { load_state(head, p); });
      if (shape_.order == order::bidirectional) {
        through(seq.keys, first, last, true, false);
        through(seq.queries, first, last, false, true);
      } else {
        through(seq.keys, first, last, true, true);
      }
      if (result_.final_state.data() != nullptr)
        each_panel(first, last, [&](index_t head, index_t p) { store_state(head, p); });
    }
    if (first == 0) end_sum();
  }

 private:
  static constexpr index_t C = Rule::chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t most_writes = C * Rule::writes_per_token;
  static constexpr factor Keep = Rule::keep;

  index_t group() const { return shape_.value_heads / shape_.key_heads; }
  // Panels of one value head are p % panels_; the registers of Dv are cut evenly.
  index_t first_channel(index_t p) const {
    const index_t vectors = whole_registers<T>(shape_.channels) / L;
    return p * vectors / panels_ * L;
  }
  template <class F>
  void in_panel(index_t p, F&& f) const {
    const index_t channel = first_channel(p);
    const index_t end = first_channel(p + 1);
    simd::with_tile_vectors((end - channel) / L, [&](auto vectors) {
      f(vectors, channel, std::min(end, shape_.channels) - channel);
    });
  }
  // f(value head, first panel of it, last) for the heads that panels [first, last) belong to.
  template <class F>
  void each_head(index_t first, index_t last, F&& f) const {
    for (index_t at = first; at < last;) {
      const index_t head = at / panels_;
      const index_t end = std::min(last, (head + 1) * panels_);
      f(key_head_ * group() + head, at - head * panels_, end - head * panels_);
      at = end;
    }
  }
  template <class F>
  void each_panel(index_t first, index_t last, F&& f) const {
    each_head(first, last, [&](index_t head, index_t from, index_t until) {
      for (index_t p = from; p < until; ++p) f(head, p);
    });
  }

  T* state_of(index_t head, index_t p) const {
    const index_t place = (head - key_head_ * group()) * panels_ + p - first_panel_;
    return states_ + place * rule_.features() * most_panel_width<T>;
  }
  state_panel<const T> initial(index_t head, index_t channel) const {
    const auto& s = result_.initial_state;
    if (s.data() == nullptr) return {};
    return {s.row(number_, head) + channel, s.stride(2)};
  }
  state_panel<T> final(index_t head, index_t channel) const {
    const auto& s = result_.final_state;
    if (s.data() == nullptr) return {};
    return {s.row(number_, head) + channel, s.stride(2)};
  }

  void load_state(index_t head, index_t p) const {
    in_panel(p, [&](auto vectors, index_t channel, index_t width) {
      const index_t D = rule_.features();
      const state_panel<const T> from = initial(head, channel);
      T* to = state_of(head, p);
      if (from.data == nullptr) {
        std::fill_n(to, D * vectors * L, T(0));
      } else {
        load_channels<T, T>({from.data, from.stride}, 0, D, width, 0, to, vectors * L);
      }
    });
  }
  void store_state(index_t head, index_t p) const {
    in_panel(p, [&](auto vectors, index_t channel, index_t width) {
      const state_panel<T> to = final(head, channel);
      const T* from = state_of(head, p);
      for (index_t d = 0; d < rule_.features(); ++d)
        std::copy_n(from + d * vectors * L, width, to.data + d * to.stride);
    });
  }

  void through(index_t tokens, index_t first, index_t last, bool keys, bool queries) {
    for (index_t t = 0; t < tokens; t += C) {
      const index_t count = std::min(C, tokens - t);
      rule_.load(t, count, keys, queries);
      look_ahead(t, count, std::min(C, tokens - t - count), first, last, keys, queries);
      each_head(first, last, [&](index_t head, index_t from, index_t until) {
        for (index_t token = 0; token < count;) {
          const chunk<T>& c = rule_.head(head, token);
          for (index_t p = from; p < until; ++p) {
            in_panel(p, [&](auto vectors, index_t channel, index_t width) {
              T* state = state_of(head, p);
              if (c.tokens == 1) {
                step<vectors>(c, head, channel, width, {state, vectors * L}, {state, vectors * L}, keys, queries);
              } else {
                absorb<vectors>(c, head, channel, width, state, keys, queries);
              }
            });
          }
          token += c.tokens;
        }
      });
    }
  }

  // Names the rows that this chunk will write and the next one read.
  void look_ahead(index_t t, index_t count, index_t next, index_t first, index_t last, bool keys, bool queries) {
    ahead_.clear();
    rule_.ahead(t + count, next, keys, queries, ahead_);
    each_head(first, last, [&](index_t head, index_t from, index_t until) {
      const index_t channel = first_channel(from);
      const index_t width = std::min(first_channel(until), shape_.channels) - channel;
      if (keys) rule_.ahead_of_values(head, channel, width, t + count, next, ahead_);
      if (!queries) return;
      const index_t readers = shape_.heads / shape_.value_heads;
      for (index_t g = 0; g < readers; ++g) {
        const out_rows rows = rows_of_out(head * readers + g, t);
        ahead_.add(rows.first + channel, rows.step, count, width);
      }
    });
  }

  struct out_rows {
    O* first;
    index_t step;
  };
  // The row of a token, in the order in which tokens are met, and the way to the next one.
  out_rows rows_of_out(index_t head, index_t token) const {
    const index_t row = seq_.query_row + (reversed_ ? seq_.queries - 1 - token : token);
    return {result_.out.row(seq_.batch, head, row), reversed_ ? -result_.out.stride(2) : result_.out.stride(2)};
  }

  template <index_t V>
  void forget(const chunk<T>& c, T* state) const {
    constexpr index_t W = V * L;
    const index_t D = rule_.features();
    if (c.forget == reset::all) {
      std::fill_n(state, D * W, T(0));
    } else if (c.forget == reset::rows) {
      for (index_t d = 0; d < D; ++d) {
        if (c.forgotten[d] == minus_infinity<T>) std::fill_n(state + d * W, W, T(0));
      }
    } else if (c.forget == reset::lanes) {
      for (index_t i = 0; i < W; ++i) {
        if (rows_.forgotten[i] != minus_infinity<T>) continue;
        for (index_t d = 0; d < D; ++d) state[d * W + i] = T(0);
      }
    }
  }

  row_factors<T, Keep> keep_of(const chunk<T>& c) const { return {Rule::decays_lanes ? rows_.keep : c.keep}; }

  // What is written becomes what is left of it after the state, for rules that solve. reads: (W, width).
  template <index_t V>
  void solve(const chunk<T>& c, index_t writes) {
    solve_writes<T, V, Rule::erase>(c.overlaps, c.overlap_stride, writes, reads_, c.read_scale, {rows_.erase},
                                    rows_.values);
  }

  template <index_t V>
  void absorb(const chunk<T>& c, index_t head, index_t channel, index_t width, T* state, bool keys, bool queries) {
    const index_t D = rule_.features();
    const index_t writes = c.tokens * c.writes;
    if (keys) {
      rule_.panel(channel, V * L, rows_);
      forget<V>(c, state);
      if constexpr (Rule::solves) {
        read_state<T, V>(c.read_keys, c.key_stride, writes, state, D, reads_, ahead_);
        solve<V>(c, writes);
      }
    }
    if (queries) {
      for (index_t g = 0; g < c.query_heads; ++g) {
        read_state<T, V>(c.queries + g * c.query_head_stride, c.key_stride, c.tokens, state, D, outputs_, ahead_);
        if (c.scores != nullptr) {
          const T* scores = c.scores + g * c.score_head_stride;
          if constexpr (Rule::decays_lanes) {
            T* values = rows_.values;
            if (keys) std::copy_n(rows_.values, writes * V * L, values = reads_);
            add_decayed_triangle<T, V>(scores, c.score_stride, c.tokens, rows_.decay, rows_.from_start, values,
                                       outputs_);
          } else {
            add_triangle<T, V>(scores, c.score_stride, c.tokens, c.writes, rows_.values, c.query_scale, outputs_);
          }
        }
        write<V>(c, head, g, channel, width);
      }
    }
    if (!keys) return;
    if constexpr (Rule::decays_lanes) {
      scale_rows<T, V, factor::lanes>(rows_.values, writes, {rows_.to_end});
    } else if (c.write_scale != nullptr) {
      scale_rows<T, V, factor::number>(rows_.values, writes, {c.write_scale});
    }
    update_state<T, V, Keep>(c.write_keys, c.key_stride, D, writes, rows_.values, keep_of(c), state);
  }

  // One token. Nothing is read from an empty `from`, nothing written to an empty `to`; they may be the same.
  template <index_t V>
  void step(const chunk<T>& c, index_t head, index_t channel, index_t width, state_panel<const T> from,
            state_panel<T> to, bool keys, bool queries) {
    constexpr index_t W = V * L;
    const index_t D = rule_.features();
    if (keys) rule_.panel(channel, W, rows_);
    scratch_frame frame;
    if (from.data == nullptr || (keys && c.forget == reset::all)) {
      T* zeros = frame.take<T>(W);
      std::fill_n(zeros, W, T(0));
      from = {zeros, 0};
    } else if (keys && c.forget != reset::none) {
      T* copy = frame.take<T>(D * W);
      load_channels<T, T>({from.data, from.stride}, 0, D, width, 0, copy, W);
      forget<V>(c, copy);
      from = {copy, W};
    }
    const bool kept = keys && to.data != nullptr;
    const bool one_pass = !Rule::solves && kept && c.query_heads == 1 && queries;
    const bool read_together = Rule::solves && c.query_heads == 1 && c.writes == 1;
    if constexpr (Rule::solves) {
      if (read_together) {
        read_twice<T, V>(from.data, from.stride, D, width, c.read_keys, c.queries, reads_, outputs_);
      } else {
        read_panel<T, V>(c.read_keys, c.key_stride, c.writes, from.data, from.stride, D, width, reads_);
      }
      solve<V>(c, c.writes);
    }
    for (index_t g = 0; queries && g < c.query_heads; ++g) {
      if (one_pass) {
        pass<V, true>(c, from, to, width);
      } else if (!read_together) {
        read_panel<T, V>(c.queries + g * c.query_head_stride, c.key_stride, 1, from.data, from.stride, D, width,
                         outputs_);
      }
      if (c.scores != nullptr) {
        if constexpr (Rule::decays_lanes) scale_rows<T, V, factor::lanes>(outputs_, 1, {rows_.from_start});
        add_triangle<T, V>(c.scores + g * c.score_head_stride, c.score_stride, 1, c.writes, rows_.values, c.query_scale,
                           outputs_);
      }
      write<V>(c, head, g, channel, width);
    }
    if (kept && !one_pass) pass<V, false>(c, from, to, width);
  }

  template <index_t V, bool Reads>
  void pass(const chunk<T>& c, state_panel<const T> from, state_panel<T> to, index_t width) {
    const auto run = [&](auto one_write) {
      pass_state<T, V, Keep, Reads, one_write>(from.data, from.stride, to.data, to.stride, rule_.features(), width,
                                               c.write_keys, c.key_stride, c.writes, written<V>(c), keep_of(c),
                                               c.queries, outputs_);
    };
    if constexpr (Rule::writes_per_token == 1) {
      run(std::true_type{});
    } else {
      run(std::false_type{});
    }
  }

  // The values of one token as they enter the state: its decay to the end of the chunk is none.
  template <index_t V>
  const T* written(const chunk<T>& c) {
    if (c.write_scale == nullptr) return rows_.values;
    std::copy_n(rows_.values, c.writes * V * L, reads_);
    scale_rows<T, V, factor::number>(reads_, c.writes, {c.write_scale});
    return reads_;
  }

  template <index_t V>
  void write(const chunk<T>& c, index_t head, index_t query_head, index_t channel, index_t width) const {
    const index_t out_head = shape_.heads == shape_.value_heads ? head : head * c.query_heads + query_head;
    const out_rows rows = rows_of_out(out_head, c.first);
    O* to = rows.first + channel;
    for (index_t t = 0; t < c.tokens; ++t) {
      const T* from = outputs_ + t * V * L;
      const simd::batch<T> factor(c.row_factor == nullptr ? T(1) : c.row_factor[query_head * c.row_factor_stride + t]);
      for (index_t i = 0; i < width; i += L) {
        const simd::batch<T> x = simd::load(from + i) * factor;
        if (width - i >= L) {
          simd::store_as(to + i, x);
        } else {
          simd::store_as_n(to + i, x, width - i);
        }
      }
      to += rows.step;
    }
  }

  void begin_sum() const {
    T* sum = rule_.sum();
    if (sum == nullptr) return;
    const index_t D = rule_.features();
    std::fill_n(sum, whole_registers<T>(D), T(0));
    if (result_.initial_sum.data() != nullptr) std::copy_n(result_.initial_sum.row(number_, key_head_), D, sum);
  }
  void end_sum() const {
    const T* sum = rule_.sum();
    if (sum == nullptr || result_.final_sum.data() == nullptr) return;
    std::copy_n(sum, rule_.features(), result_.final_sum.row(number_, key_head_));
  }

  Rule& rule_;
  const recurrence_shape& shape_;
  const recurrence_result<T, O>& result_;
  panel_rows<T> rows_;
  simd::lines_ahead ahead_;
  T* reads_;
  T* outputs_;
  T* states_ = nullptr;
  index_t first_panel_ = 0;
  index_t panels_ = 1;  // of one value head
  sequence seq_;
  index_t number_ = 0;
  index_t key_head_ = 0;
  bool reversed_ = false;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
