// SPDX-License-Identifier: Apache-2.0
/// @file One token: the state goes by once, from where it was to where it shall be.
#pragma once

#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/mixers/linear/detail/panel_work.hpp>
#include <tokenmix/mixers/linear/detail/step_kernels.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// One token and what a task has of one value head.
template <class Rule, class O>
class token_step {
 public:
  using T = typename Rule::T;

  /// For parts of up to `channels` channels that up to `readers` query heads read.
  token_step(Rule& rule, index_t channels, index_t readers, scratch_frame& frame)
      : rule_(rule), rows_(take_panel_rows(rule, 1, whole_registers<T>(channels), frame)) {
    const index_t W = whole_registers<T>(channels);
    scaled_ = frame.take<T>((rule.writes_per_token() + (Rule::adds ? 1 : 0)) * W);
    sums_ = frame.take<T>((rule.writes_per_token() + readers) * W);
    weights_ = frame.take<const T*>(rule.writes_per_token() + readers);
    zeros_ = frame.take<T>(W);
    std::fill_n(zeros_, W, T(0));
  }

  /// Names channels [channel, channel + width) of a value head: where their state is (null: zero), and where it shall be (null:
  /// not wanted), which may be the same place.
  TOKENMIX_ALWAYS_INLINE void go_to(index_t channel, index_t width, state_panel<const T> from, state_panel<T> to) {
    channel_ = channel;
    width_ = width;
    stride_ = whole_registers<T>(width);
    from_ = from.data == nullptr ? state_panel<const T>{zeros_, 0} : from;
    to_ = to;
  }

  void run(const chunk<T>& c, const output_rows<O>& out, index_t first_head, bool keys, bool queries) {
    scratch_frame frame;
    if (keys) rule_.panel(channel_, stride_, rows_);
    kept_ = from_;
    if (keys && c.forget != reset::none && from_.data != zeros_) kept_ = left_of(c, frame);
    // What is read, and what is kept: a rule that reads before it forgets reads what is then forgotten.
    if constexpr (!Rule::reads_before) from_ = kept_;
    if (!keys) to_ = {};
    const index_t heads = queries ? c.query_heads : 0;
    const index_t solved = Rule::solves ? c.writes : 0;
    for (index_t j = 0; j < solved; ++j) weights_[j] = c.read_keys + j * c.key_stride;
    for (index_t g = 0; g < heads; ++g) weights_[solved + g] = c.queries + g * c.query_head_stride;
    std::fill_n(sums_, solved * stride_, T(0));
    T* outputs = sums_ + solved * stride_;
    for (index_t g = 0; g < heads; ++g) begin_output(c, g, outputs + g * stride_);
    const bool after = Rule::reads_after && keys;
    if (after) {
      if constexpr (Rule::solves) {
        read(from_, 0, solved);
        solve(c);
      }
      if (to_.data == nullptr && heads > 0) to_ = {frame.take<T>(rule_.features() * stride_), stride_};
      write_reading<reads::decayed>(c, solved, heads, outputs);
      if (heads > 1) read({to_.data, to_.stride}, solved, heads);
    } else if constexpr (Rule::solves) {
      read(from_, 0, solved + heads);
      solve(c);
      write<reads::nothing>(c, nullptr, outputs);
    } else {
      const bool together = heads == 1 && to_.data != nullptr && from_.data == kept_.data;
      if (!together) read(from_, 0, heads);
      write_reading<reads::before>(c, 0, together ? 1 : 0, outputs);
    }
    for (index_t g = 0; g < heads; ++g) {
      if (!after && c.scores != nullptr) add_own(c, g, outputs + g * stride_);
      out.write(first_head + g, c.first, 1, channel_, width_, outputs + g * stride_, stride_,
                c.row_factor == nullptr ? nullptr : c.row_factor + g * c.row_factor_stride);
    }
  }

 private:
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t widest = most_panel_width<T>;
  /// Rows that are passed over before the panel beside has its turn: panels are met as they lie in memory.
  static constexpr index_t rows_per_pass = 32;

  // A copy without what the token forgets; the caller's own stays as it is.
  state_panel<const T> left_of(const chunk<T>& c, scratch_frame& frame) const {
    if (c.forget == reset::all) return {zeros_, 0};
    const index_t D = rule_.features();
    T* copy = frame.take<T>(D * stride_);
    load_channels<T, T>({from_.data, from_.stride}, 0, D, width_, 0, copy, stride_);
    forget_state(c, rows_, D, stride_, copy);
    return {copy, stride_};
  }

  // What an output is before the state is read: nothing, or what the token gives of itself.
  void begin_output(const chunk<T>& c, index_t g, T* output) const {
    if (c.own == nullptr) {
      std::fill_n(output, stride_, T(0));
    } else {
      const simd::batch<T> own(c.own[g * c.own_stride]);
      for (index_t i = 0; i < stride_; i += L) simd::store(output + i, simd::load(rows_.values + i) * own);
    }
  }

  // f(registers of a panel, as a constant; its first lane; first row; rows) for all panels, some rows of each at a time.
  template <class F>
  void each_block(F&& f) const {
    const index_t D = rule_.features();
    const index_t vectors = stride_ / L;
    const index_t panels = (stride_ + widest - 1) / widest;
    const index_t together = panels == 1 ? std::max<index_t>(D, 1) : rows_per_pass;
    for (index_t d = 0; d < D; d += together) {
      for (index_t p = 0; p < panels; ++p) {
        const index_t first = panels == 1 ? 0 : p * vectors / panels;
        const index_t last = panels == 1 ? vectors : (p + 1) * vectors / panels;
        simd::with_tile_vectors(last - first, [&](auto v) { f(v, first * L, d, std::min(together, D - d)); });
      }
    }
  }

  // Sums [first, first + count) += their weights' state.
  void read(state_panel<const T> from, index_t first, index_t count) const {
    const auto pass = [&](auto sums, index_t at) {
      each_block([&](auto v, index_t lane, index_t d, index_t rows) {
        const T* weights[static_cast<std::size_t>(sums)];
        for (index_t r = 0; r < sums; ++r) weights[r] = weights_[at + r] + d;
        read_panel<T, v, sums>(from.at(d, lane), rows, channels(lane, v * L),
                               {weights, sums_ + at * stride_ + lane, stride_});
      });
    };
    const index_t end = first + count;
    for (; first + 4 <= end; first += 4) pass(std::integral_constant<index_t, 4>{}, first);
    simd::unroll<3>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      if (end - first == r + 1) pass(std::integral_constant<index_t, r + 1>{}, first);
    });
  }

  // Values from what was read: see chunk.hpp.
  void solve(const chunk<T>& c) const {
    T* values = rows_.values + (Rule::adds ? stride_ : 0);
    for (index_t i = 0; i < stride_; i += L) {
      for (index_t j = 0; j < c.writes; ++j) {
        T* at = values + j * stride_ + i;
        simd::batch<T> read = simd::load(sums_ + j * stride_ + i);
        if (c.read_scale != nullptr) read = read * simd::batch<T>(c.read_scale[j]);
        for (index_t s = 0; s < j; ++s)
          read = simd::fma(simd::batch<T>(c.overlaps[j * c.overlap_stride + s]), simd::load(values + s * stride_ + i),
                           read);
        if constexpr (Rule::erase == factor::none) {
          simd::store(at, read);
        } else {
          const simd::batch<T> erase =
              Rule::erase == factor::lanes ? simd::load(rows_.erase + j * stride_ + i) : simd::batch<T>(rows_.erase[j]);
          simd::store(at, simd::fma(simd::batch<T>(T(0)) - erase, read, simd::load(at)));
        }
      }
    }
  }

  // What is written, as it enters the state.
  const T* scaled_values(const chunk<T>& c) const {
    if (c.write_scale == nullptr) return rows_.values;
    for (index_t j = 0; j < c.writes + (Rule::adds ? 1 : 0); ++j) {
      for (index_t i = j * stride_; i < (j + 1) * stride_; i += L)
        simd::store(scaled_ + i, simd::load(rows_.values + i) * simd::batch<T>(c.write_scale[j]));
    }
    return scaled_;
  }

  // f(how many rows a token writes, as a constant; 0: as many as there are)
  template <class F>
  static void with_writes(index_t writes, F&& f) {
    if constexpr (Rule::step_writes > 0) {
      f(std::integral_constant<index_t, Rule::step_writes>{});
    } else if (writes == 2) {
      f(std::integral_constant<index_t, 2>{});
    } else if (writes == 4) {
      f(std::integral_constant<index_t, 4>{});
    } else {
      f(std::integral_constant<index_t, 0>{});
    }
  }

  // Writes the state and reads it for a query head, the weights at `at`, if that is the only one.
  template <reads Along>
  void write_reading(const chunk<T>& c, index_t at, index_t heads, T* outputs) const {
    if (heads == 1) {
      write<Along>(c, weights_[at], outputs);
    } else {
      write<reads::nothing>(c, nullptr, outputs);
    }
  }

  template <reads Along>
  void write(const chunk<T>& c, const T* query, T* outputs) const {
    if (to_.data == nullptr) return;
    const T* values = scaled_values(c);
    with_writes(c.writes, [&](auto writes) {
      each_block([&](auto v, index_t lane, index_t d, index_t rows) {
        row_factors<T, Rule::keep> keep = keep_of<Rule>(c, rows_);
        if constexpr (Rule::keep == factor::number) keep.data += d;
        if constexpr (Rule::decays_lanes) keep.data += lane;
        write_panel<T, v, Rule::keep, writes, Along>(
            kept_.at(d, lane), to_.at(d, lane), rows, channels(lane, v * L),
            {c.write_keys + d, c.key_stride, values + lane, stride_, c.writes + (Rule::adds ? 1 : 0)}, keep,
            Along == reads::nothing ? nullptr : query + d, outputs + lane);
      });
    });
  }

  // What a query head reads of the token itself.
  void add_own(const chunk<T>& c, index_t g, T* read) const {
    const T* values = rows_.values + (Rule::adds ? stride_ : 0);
    for (index_t i = 0; i < stride_; i += L) {
      simd::batch<T> o = simd::load(read + i);
      if (c.query_scale != nullptr) o = o * simd::batch<T>(*c.query_scale);
      for (index_t j = 0; j < c.writes; ++j) {
        const simd::batch<T> score(c.scores[g * c.score_head_stride + j]);
        o = simd::fma(score, simd::load(values + j * stride_ + i), o);
      }
      if constexpr (Rule::adds)
        o = simd::fma(simd::batch<T>(c.added_scores[g * c.score_head_stride]), simd::load(rows_.values + i), o);
      simd::store(read + i, o);
    }
  }

  index_t channels(index_t lane, index_t lanes) const { return std::min(width_ - lane, lanes); }

  Rule& rule_;
  panel_rows<T> rows_;
  T* scaled_;                  // as rows_.values
  T* sums_;                    // (., width): what read keys, then queries read
  const T** weights_;          // of the sums
  T* zeros_;                   // (width)
  state_panel<const T> from_;  // the state that is read
  state_panel<const T> kept_;  // the state that is written to
  state_panel<T> to_;
  index_t channel_ = 0;
  index_t width_ = 0;
  index_t stride_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
