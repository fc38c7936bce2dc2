// SPDX-License-Identifier: Apache-2.0
/// @file The rule of Mamba-3: keys and queries rotated by an angle that accumulates, and a trapezoid over two tokens.
#pragma once

#include <tokenmix/mixers/state_space/detail/ssd_check.hpp>
#include <tokenmix/simd/math.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The checked arguments that ssd_problem does not have.
template <class E, class G, class T>
struct mamba3_gates {
  ssd_deltas<G, T> deltas;
  tensor_view<const G, 3> log_decay;       // (B, T, H)
  tensor_view<const G, 3> trapezoid;       // (B, T, H)
  tensor_view<const E, 4> rotation;        // (B, Ha, T, R), H a multiple of Ha
  tensor_view<const T, 2> B_bias;          // (H, N) or empty
  tensor_view<const T, 2> C_bias;          // (H, N) or empty
  tensor_view<const T, 3> initial_angle;   // (n, H, R) or empty
  tensor_view<T, 3> final_angle;           // (n, H, R) or empty
};

/// See ssd_problem.hpp for what a rule is.
template <class Element, class G, class Computed, class Output>
class mamba3_rule {
 public:
  using E = Element;
  using T = Computed;
  using O = Output;
  static constexpr bool shares = false;
  static constexpr bool pends = true;
  static constexpr index_t L = simd::lanes<T>;

  const ssd_problem<E, T, O>& problem;

  mamba3_rule(const ssd_problem<E, T, O>& p, const mamba3_gates<E, G, T>& gates, scratch_frame& frame)
      : problem(p),
        gates_(gates),
        width_(whole_registers<T>(gates.rotation.extent(3))),
        angles_(frame.take<T>(p.heads() / std::max<index_t>(1, p.groups()) * width_)),
        rates_(frame.take<T>(width_)),
        sine_(frame.take<T>(width_)),
        cosine_(frame.take<T>(width_)) {}

  void go_to(const sequence& seq, index_t number, index_t first_head, index_t last_head) {
    seq_ = seq;
    first_head_ = first_head;
    last_head_ = last_head;
    for (index_t head = first_head; head < last_head; ++head) {
      T* angle = angles_of(head);
      std::fill_n(angle, width_, T(0));
      if (gates_.initial_angle.data() != nullptr)
        for (index_t r = 0; r < gates_.initial_angle.extent(2); ++r) angle[r] = gates_.initial_angle(number, head, r);
    }
  }

  void finish(index_t number) {
    if (gates_.final_angle.data() == nullptr) return;
    for (index_t head = first_head_; head < last_head_; ++head)
      for (index_t r = 0; r < gates_.final_angle.extent(2); ++r)
        gates_.final_angle(number, head, r) = angles_of(head)[r];
  }

  void numbers(index_t head, index_t first, index_t count, const ssd_numbers<T>& to) {
    gates_.deltas.load(seq_, head, first, count, problem.reversed(), steps_);
    load_numbers(gates_.log_decay, seq_, head, first, count, problem.reversed(), to.log_decay);
    load_numbers(gates_.trapezoid, seq_, head, first, count, problem.reversed(), to.own);
    for (index_t t = 0; t < count; t += L) {
      const simd::batch<T> step = simd::load(steps_ + t), x = simd::load(to.own + t);
      simd::store(to.own + t, simd::sigmoid(x) * step);
      simd::store(to.before + t, simd::sigmoid(simd::batch<T>(T(0)) - x) * step);
    }
  }

  void load(index_t head, index_t first, index_t count, T* keys, T* queries, index_t stride) {
    const index_t group = head / (problem.heads() / problem.groups());
    const auto rows = [&](const tensor_view<const E, 4>& view, index_t h) {
      return rows_of_tokens(view, seq_.batch, h, seq_.key_row, seq_.keys, problem.reversed());
    };
    load_channels(rows(problem.B, group), first, count, problem.states(), 0, keys, stride);
    load_channels(rows(problem.C, group), first, count, problem.states(), 0, queries, stride);
    add_bias(gates_.B_bias, head, count, keys, stride);
    add_bias(gates_.C_bias, head, count, queries, stride);
    const index_t R = gates_.rotation.extent(3);
    if (R == 0) return;
    const auto rates = rows(gates_.rotation, head / (problem.heads() / gates_.rotation.extent(1)));
    T* angle = angles_of(head);
    for (index_t t = 0; t < count; ++t) {
      load_channels(rates, first + t, 1, R, 0, rates_, width_);
      const simd::batch<T> step(steps_[t]);
      for (index_t r = 0; r < width_; r += L) {
        const simd::batch<T> now = simd::in_one_turn<T>(simd::fma(simd::load(rates_ + r), step, simd::load(angle + r)));
        simd::store(angle + r, now);
        simd::batch<T> sine, cosine;
        simd::sine_cosine<T>(now, sine, cosine);
        simd::store(sine_ + r, sine);
        simd::store(cosine_ + r, cosine);
      }
      rotate(keys + t * stride, R);
      rotate(queries + t * stride, R);
    }
  }

 private:
  T* angles_of(index_t head) const { return angles_ + (head - first_head_) * width_; }

  static void add_bias(const tensor_view<const T, 2>& bias, index_t head, index_t count, T* rows, index_t stride) {
    if (bias.data() == nullptr) return;
    const T* b = bias.row(head);
    for (index_t t = 0; t < count; ++t)
      for (index_t i = 0; i < bias.extent(1); ++i) rows[t * stride + i] += b[i];
  }

  /// Pairs (2 r, 2 r + 1) of a row, turned.
  void rotate(T* row, index_t pairs) const {
    for (index_t r = 0; r < pairs; ++r) {
      const T x = row[2 * r], y = row[2 * r + 1], c = cosine_[r], s = sine_[r];
      row[2 * r] = std::fma(x, c, -(y * s));
      row[2 * r + 1] = std::fma(x, s, y * c);
    }
  }

  const mamba3_gates<E, G, T>& gates_;
  index_t width_;  // of a head's angles
  T* angles_;      // (heads, width)
  T* rates_;       // (width)
  T* sine_;        // (width)
  T* cosine_;      // (width)
  sequence seq_;
  index_t first_head_ = 0;
  index_t last_head_ = 0;
  alignas(64) T steps_[static_cast<std::size_t>(ssd_chunk_tokens + L)];
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
