// SPDX-License-Identifier: Apache-2.0
/// @file Every mixer with a matrix state: chunks of tokens as matrix products, one token as one pass over the state.
#pragma once

#include <tokenmix/mixers/linear/detail/step.hpp>
#include <tokenmix/mixers/linear/detail/token_work.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Some panels of the states of one key head, and a run of tokens that go through them.
///
/// Panels are numbered over the value heads of the key head; which task has which panel changes no bit.
struct recurrence_task {
  sequence seq;
  index_t key_head = 0;
  index_t panels = 1;  ///< of one value head: its registers, cut evenly
  index_t first = 0;   ///< panels [first, last)
  index_t last = 0;
  index_t token_first = 0;  ///< a multiple of the chunk
  index_t token_last = 0;   ///< of keys, in the order in which tokens are met
  bool keys = true;         ///< the state absorbs tokens
  bool queries = true;      ///< outputs are written
  index_t initial = 0;      ///< place in initial_state and initial_sum
  index_t final = 0;        ///< place in final_state and final_sum
};

template <class Rule, class O>
class recurrence {
 public:
  using T = typename Rule::T;

  recurrence(Rule& rule, const recurrence_shape& shape, const recurrence_result<T, O>& result, scratch_frame& frame)
      : rule_(rule),
        shape_(shape),
        result_(result),
        out_(result.out),
        group_(shape.group()),
        readers_(shape.readers()),
        work_(rule, frame),
        step_(rule, shape.channels, readers_, frame) {}

  void run(const recurrence_task& task) {
    task_ = &task;
    rule_.go_to(task.seq, task.key_head);
    out_.go_to(task.seq, shape_.order == order::reverse);
    begin_sum();
    const bool one_token = task.seq.keys == 1 && task.seq.queries == 1 && task.keys && task.queries;
    if (one_token) {
      rule_.load(0, 1, true, true);
      each_head([&](index_t head, index_t from, index_t until) {
        const index_t channel = first_channel(from);
        const index_t width = std::min(first_channel(until), shape_.channels) - channel;
        const chunk<T>& c = rule_.head(head, 0);
        if (width <= 0) return;
        step_.go_to(channel, width, initial(head, channel), final(head, channel));
        step_.run(c, out_, head * readers_, true, true);
      });
    } else {
      scratch_frame frame;
      states_ = frame.take<T>((task.last - task.first) * rule_.features() * most_panel_width<T>);
      each_panel([&](index_t head, index_t p) { load_state(head, p); });
      if (shape_.order == order::bidirectional) {
        if (task.keys) through(0, task.seq.keys, true, false);
        if (task.queries) through(0, task.seq.queries, false, true);
      } else {
        through(task.token_first, task.token_last, task.keys, task.queries);
      }
      if (result_.final_state.data() != nullptr) each_panel([&](index_t head, index_t p) { store_state(head, p); });
    }
    end_sum();
  }

 private:
  static constexpr index_t C = Rule::chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;

  index_t first_channel(index_t p) const {
    const index_t vectors = whole_registers<T>(shape_.channels) / L;
    return p * vectors / task_->panels * L;
  }
  index_t vectors_of(index_t p) const { return (first_channel(p + 1) - first_channel(p)) / L; }
  index_t width_of(index_t p) const { return std::min(first_channel(p + 1), shape_.channels) - first_channel(p); }

  // f(value head, first panel of it, last) for the heads of the task's panels.
  template <class F>
  void each_head(F&& f) const {
    for (index_t at = task_->first; at < task_->last;) {
      const index_t head = at / task_->panels;
      const index_t end = std::min(task_->last, (head + 1) * task_->panels);
      f(task_->key_head * group_ + head, at - head * task_->panels, end - head * task_->panels);
      at = end;
    }
  }
  template <class F>
  void each_panel(F&& f) const {
    each_head([&](index_t head, index_t from, index_t until) {
      for (index_t p = from; p < until; ++p) f(head, p);
    });
  }

  T* state_of(index_t head, index_t p) const {
    const index_t place = (head - task_->key_head * group_) * task_->panels + p - task_->first;
    return states_ + place * rule_.features() * most_panel_width<T>;
  }
  state_panel<const T> initial(index_t head, index_t channel) const {
    const auto& s = result_.initial_state;
    if (s.data() == nullptr) return {};
    return {s.row(task_->initial, head) + channel, s.stride(2)};
  }
  state_panel<T> final(index_t head, index_t channel) const {
    const auto& s = result_.final_state;
    if (s.data() == nullptr) return {};
    return {s.row(task_->final, head) + channel, s.stride(2)};
  }

  void load_state(index_t head, index_t p) const {
    const index_t D = rule_.features();
    const index_t W = vectors_of(p) * L;
    const state_panel<const T> from = initial(head, first_channel(p));
    if (from.data == nullptr) {
      std::fill_n(state_of(head, p), D * W, T(0));
    } else {
      load_channels<T, T>({from.data, from.stride}, 0, D, width_of(p), 0, state_of(head, p), W);
    }
  }
  void store_state(index_t head, index_t p) const {
    const state_panel<T> to = final(head, first_channel(p));
    const T* from = state_of(head, p);
    for (index_t d = 0; d < rule_.features(); ++d)
      std::copy_n(from + d * vectors_of(p) * L, width_of(p), to.data + d * to.stride);
  }

  void through(index_t first, index_t last, bool keys, bool queries) {
    for (index_t t = first; t < last; t += C) {
      const index_t count = std::min(C, last - t);
      rule_.load(t, count, keys, queries);
      look_ahead(t + count, std::min(C, last - t - count), keys, queries);
      each_head([&](index_t head, index_t from, index_t until) {
        for (index_t token = 0; token < count;) {
          const chunk<T>& c = rule_.head(head, token);
          if (c.tokens == 1 && !Rule::by_token) {
            for (index_t p = from; p < until; ++p) {
              T* state = state_of(head, p);
              const index_t stride = vectors_of(p) * L;
              if (stride == 0) continue;
              step_.go_to(first_channel(p), width_of(p), {state, stride}, {state, stride});
              step_.run(c, out_, head * readers_, keys, queries);
            }
          } else {
            for (index_t p = from; p < until; ++p) {
              simd::with_tile_vectors(vectors_of(p), [&](auto vectors) {
                work_.template absorb<vectors>(c, out_, head * readers_, first_channel(p), width_of(p),
                                               state_of(head, p), keys, queries, ahead_);
              });
            }
          }
          token += c.tokens;
        }
      });
    }
  }

  // Names the rows that the next chunk, `count` tokens from t on, will read and write.
  void look_ahead(index_t t, index_t count, bool keys, bool queries) {
    ahead_.clear();
    if (count <= 0) return;
    rule_.ahead(t, count, keys, queries, ahead_);
    each_head([&](index_t head, index_t from, index_t until) {
      const index_t channel = first_channel(from);
      const index_t width = std::min(first_channel(until), shape_.channels) - channel;
      if (keys) rule_.ahead_of_values(head, channel, width, t, count, ahead_);
      for (index_t g = 0; queries && g < readers_; ++g) {
        const token_rows<O> rows = out_.of(head * readers_ + g, t);
        ahead_.add(rows.first + channel, rows.step, count, width);
      }
    });
  }

  void begin_sum() const {
    T* sum = rule_.sum();
    if (sum == nullptr) return;
    const index_t D = sum_width();
    std::fill_n(sum, whole_registers<T>(rule_.features()), T(0));
    if (result_.initial_sum.data() != nullptr)
      std::copy_n(result_.initial_sum.row(task_->initial, task_->key_head), D, sum);
  }
  void end_sum() const {
    const T* sum = rule_.sum();
    if (sum == nullptr || result_.final_sum.data() == nullptr || task_->first != 0) return;
    std::copy_n(sum, sum_width(), result_.final_sum.row(task_->final, task_->key_head));
  }
  index_t sum_width() const {
    if constexpr (requires { rule_.sum_width(); }) {
      return rule_.sum_width();
    } else {
      return rule_.features();
    }
  }

  Rule& rule_;
  const recurrence_shape& shape_;
  const recurrence_result<T, O>& result_;
  output_rows<O> out_;
  index_t group_;    // value heads of a key head
  index_t readers_;  // query heads of a value head
  std::conditional_t<Rule::by_token, token_work<Rule, O>, panel_work<Rule, O>> work_;
  token_step<Rule, O> step_;
  simd::lines_ahead ahead_;
  const recurrence_task* task_ = nullptr;
  T* states_ = nullptr;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
