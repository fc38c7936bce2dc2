// SPDX-License-Identifier: Apache-2.0
/// @file From a final state to an output: sinks join, sums become factors, rows are written.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// For `width` lanes: sinks (a logit per lane, or null) and the logit 0 (if wanted) join m and l. Then m is the reference of
/// the sum, l the factor that weights relative to the old m are multiplied by (0 where nothing was seen), and `lse`, if not
/// null, the log of the whole sum.
template <class T>
TOKENMIX_NOINLINE void finish_sums(T* m, T* l, const T* sinks, bool zero_logit, index_t width, T* lse) {
  const simd::batch<T> zero(T(0));
  for (index_t i = 0; i < width; i += simd::lanes<T>) {
    const simd::batch<T> before = simd::load(m + i);
    simd::batch<T> largest = before;
    simd::batch<T> sum = simd::load(l + i);
    simd::batch<T> factor(T(1));
    if (sinks != nullptr || zero_logit) {
      if (sinks != nullptr) largest = simd::max_or_second(simd::load(sinks + i), largest);
      if (zero_logit) largest = simd::max_or_second(zero, largest);
      const simd::batch<T> reference = finite_reference<T>(largest);
      factor = simd::exp_nonpositive(before - reference);
      sum = sum * factor;
      if (sinks != nullptr) sum = sum + simd::exp_nonpositive(simd::load(sinks + i) - reference);
      if (zero_logit) sum = sum + simd::exp_nonpositive(zero - reference);
    }
    simd::store(m + i, largest);
    simd::store(l + i, simd::select(sum == zero, zero, simd::divide(factor, sum)));
    if (lse != nullptr) simd::store(lse + i, sum);
  }
  if (lse == nullptr) return;
  for (index_t i = 0; i < width; ++i) lse[i] = lse[i] == T(0) ? minus_infinity<T> : m[i] + std::log(lse[i]);
}

/// The output of softmax attention: rows divided by their sums, and their lse.
template <class O, class Lse, class Sink>
struct attention_output {
  tensor_view<O, 4> out;             // (B, H, T, Dv)
  tensor_view<Lse, 3> lse;           // (B, H, T) or empty
  tensor_view<const Sink, 1> sinks;  // (H) or empty
  bool zero_logit;

  constexpr bool wants_lse() const { return lse.data() != nullptr; }

  /// Finishes the sums of lanes that are row `row_of(lane)` of head `head_of(lane)`; see finish_sums.
  template <class T, class HeadOf, class RowOf>
  void finish(T* m, T* l, index_t count, index_t width, index_t batch, HeadOf&& head_of, RowOf&& row_of) const {
    scratch_frame frame;
    T* logits = nullptr;
    if (sinks.data() != nullptr) {
      logits = frame.take<T>(width);
      for (index_t i = 0; i < width; ++i) logits[i] = i < count ? static_cast<T>(sinks(head_of(i))) : T(0);
    }
    T* log_sums = wants_lse() ? frame.take<T>(width) : nullptr;
    finish_sums<T>(m, l, logits, zero_logit, width, log_sums);
    if (log_sums == nullptr) return;
    for (index_t i = 0; i < count; ++i) lse(batch, head_of(i), row_of(i)) = static_cast<Lse>(log_sums[i]);
  }

  /// Queries [row, row + count) of a head from a state with queries in the lanes.
  template <bool Normalized, class T>
  void write_columns(index_t batch, index_t head, index_t row, index_t count, index_t width, index_t channels, T* m,
                     T* l, const T* acc) const {
    if constexpr (Normalized) {
      finish(m, l, count, width, batch, [&](index_t) { return head; }, [&](index_t i) { return row + i; });
      simd::transpose_out(acc, width, count, channels, out.row(batch, head, row), out.stride(2), l);
    } else {
      simd::transpose_out(acc, width, count, channels, out.row(batch, head, row), out.stride(2));
    }
  }

  /// The same, query i being row `row_of(i)`.
  template <bool Normalized, class T, class RowOf>
  void write_placed_columns(index_t batch, index_t head, index_t count, index_t width, index_t channels, T* m, T* l,
                            const T* acc, RowOf&& row_of) const {
    scratch_frame frame;
    T* const rows = frame.take<T>(count * channels);
    if constexpr (Normalized) {
      finish(m, l, count, width, batch, [&](index_t) { return head; }, row_of);
      simd::transpose_out(acc, width, count, channels, rows, channels, l);
    } else {
      simd::transpose_out(acc, width, count, channels, rows, channels);
    }
    for (index_t i = 0; i < count; ++i)
      simd::convert_row(rows + i * channels, out.row(batch, head, row_of(i)), channels);
  }

  /// Rows from a state with channels in the lanes.
  template <bool Normalized, class T, class HeadOf, class RowOf>
  void write_rows(index_t batch, index_t count, index_t width, index_t channels, index_t stride, T* m, T* l,
                  const T* acc, HeadOf&& head_of, RowOf&& row_of) const {
    if constexpr (Normalized) finish(m, l, count, width, batch, head_of, row_of);
    for (index_t r = 0; r < count; ++r) {
      O* to = out.row(batch, head_of(r), row_of(r));
      const simd::batch<T> factor(Normalized ? l[r] : T(1));
      for (index_t c = 0; c < channels; c += simd::lanes<T>) {
        const simd::batch<T> x = simd::fma(simd::load(acc + r * stride + c), factor, simd::batch<T>(T(0)));
        simd::store_as_n(to + c, x, std::min(simd::lanes<T>, channels - c));
      }
    }
  }
};

/// The output of a part of softmax attention: its states as they are.
template <class T>
struct state_output {
  tensor_view<T, 3> m;    // (B, H, T)
  tensor_view<T, 3> l;    // (B, H, T)
  tensor_view<T, 4> acc;  // (B, H, T, Dv)

  template <bool Normalized>
  void write_columns(index_t batch, index_t head, index_t row, index_t count, index_t width, index_t channels,
                     const T* from_m, const T* from_l, const T* from_acc) const {
    for (index_t i = 0; i < count; ++i) {
      m(batch, head, row + i) = from_m[i];
      l(batch, head, row + i) = from_l[i];
    }
    simd::transpose_out(from_acc, width, count, channels, acc.row(batch, head, row), acc.stride(2));
  }

  template <bool Normalized, class HeadOf, class RowOf>
  void write_rows(index_t batch, index_t count, index_t /*width*/, index_t channels, index_t stride, const T* from_m,
                  const T* from_l, const T* from_acc, HeadOf&& head_of, RowOf&& row_of) const {
    for (index_t r = 0; r < count; ++r) {
      m(batch, head_of(r), row_of(r)) = from_m[r];
      l(batch, head_of(r), row_of(r)) = from_l[r];
      T* to = acc.row(batch, head_of(r), row_of(r));
      // + 0 as in the transposed writing: -0 becomes +0
      for (index_t c = 0; c < channels; ++c) to[c] = from_acc[r * stride + c] + T(0);
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
