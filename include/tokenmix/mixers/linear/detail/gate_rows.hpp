// SPDX-License-Identifier: Apache-2.0
/// @file The log decays of a chunk of tokens, as a gate makes them of what it is given.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk_rows.hpp>
#include <tokenmix/primitives/gate.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A problem has log_decay (B, Hg, T, 1 or channels), rate (Hg) or empty, bias (Hg, channels) or empty, and a gate.
///
/// The rows are kept while value heads of one gate head come one after another.
template <class Problem>
class gate_rows {
 public:
  using T = typename Problem::T;

  gate_rows() = default;
  /// Rows of `width` channels, or, if `tokens_in_lanes`, one number per token.
  gate_rows(index_t width, index_t tokens, bool tokens_in_lanes, scratch_frame& frame)
      : width_(width),
        tokens_in_lanes_(tokens_in_lanes),
        stride_(whole_registers<T>(tokens_in_lanes ? tokens : width)),
        rows_(frame.take<T>(tokens_in_lanes ? stride_ : tokens * stride_)),
        bias_(frame.take<T>(stride_)) {}

  void begin(const sequence& seq, index_t first, index_t count) {
    seq_ = seq;
    first_ = first;
    count_ = count;
    gate_head_ = -1;
  }

  /// Whether the log decays of this head, from this token on, are not those that were asked for last.
  bool come_to(const Problem& problem, index_t value_head, index_t from) {
    const index_t gate_head = value_head / (problem.v.extent(1) / problem.log_decay.extent(1));
    if (gate_head == gate_head_ && from == from_) return false;
    const bool loaded = gate_head == gate_head_;
    gate_head_ = gate_head;
    from_ = from;
    if (!loaded) load(problem, value_head);
    return true;
  }

  T* row(index_t t) const { return rows_ + t * (tokens_in_lanes_ ? 1 : stride_); }
  index_t stride() const { return stride_; }

 private:
  static constexpr index_t L = simd::lanes<T>;

  // All tokens of the chunk, zeros behind them.
  void load(const Problem& problem, index_t value_head) {
    const auto rows = rows_of_value_head(problem, problem.log_decay, seq_, value_head);
    if (tokens_in_lanes_) {
      for (index_t t = 0; t < count_; ++t) rows_[t] = static_cast<T>(*rows[first_ + t]);
      std::fill(rows_ + count_, rows_ + stride_, T(0));
    } else {
      load_channels(rows, first_, count_, width_, 0, rows_, stride_);
    }
    using gate_type = std::remove_cvref_t<decltype(problem.gate)>;
    if constexpr (!std::is_same_v<gate_type, given_log_decay>) {
      const T rate = problem.rate.data() == nullptr ? T(0) : problem.rate(gate_head_);
      for (index_t i = 0; i < stride_; ++i) {
        const index_t channel = problem.bias.extent(1) == 1 ? 0 : std::min(i, width_ - 1);
        bias_[i] = problem.bias.data() == nullptr ? T(0) : problem.bias(gate_head_, channel);
      }
      const index_t lines = tokens_in_lanes_ ? 1 : count_;
      const index_t width = tokens_in_lanes_ ? count_ : width_;
      const simd::batch<T> zero(T(0));
      for (index_t t = 0; t < lines; ++t) {
        for (index_t i = 0; i < stride_; i += L) {
          T* at = rows_ + t * stride_ + i;
          const simd::batch<T> x = problem.gate.log_decay(simd::load(at), rate, simd::load(bias_ + i));
          simd::store(at, simd::select(simd::first_lanes<T>(std::clamp<index_t>(width - i, 0, L)), x, zero));
        }
      }
    }
    assert_log_decays(rows_, tokens_in_lanes_ ? stride_ : count_ * stride_);
  }

  index_t width_ = 0;
  bool tokens_in_lanes_ = false;
  index_t stride_ = 0;
  T* rows_ = nullptr;
  T* bias_ = nullptr;
  sequence seq_;
  index_t first_ = 0;
  index_t count_ = 0;
  index_t gate_head_ = -1;
  index_t from_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
