// SPDX-License-Identifier: Apache-2.0
/// @file What is computed over segments of rows: a softmax, a mean, a sum, a maximum.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/primitives/gather/check_indices.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The softmax over each segment of every row.
///
///     out[r][i] = exp(scores[r][i] - m) / sum over the segment of exp(scores[r][j] - m),     m the segment's maximum
///
/// Shapes     scores, out: (R, N); offsets: n + 1 entries from 0 to N that do not decrease: segment j is
///            [offsets[j], offsets[j + 1]). Empty segments are legal.
/// Aliasing   out may be scores.
/// Numerics   computed in float (double for double); a segment of -inf alone gives zeros, NaN makes its segment NaN.
/// Errors     shape_error; value_error with the entry for an offset; nothing is written then.
template <class E, executor Executor = calling_thread>
void segmented_softmax(tensor_view<const E, 2> scores,    // (R, N)
                       std::span<const index_t> offsets,  // (n + 1)
                       tensor_view<E, 2> out,             // (R, N)
                       Executor&& on = {}) {
  using T = accumulator_t<E>;
  detail::check_input("scores", scores);
  detail::check_output("out", out);
  detail::check_same_shape("out", tensor_view<const E, 2>(out), "scores", scores);
  detail::check_overlap("out", out, "scores", scores, detail::aliasing::identical);
  detail::check_segments("offsets", offsets, "a row of scores", scores.extent(1));
  detail::run_tasks(on, scores.extent(0), [&](index_t r) {
    scratch_frame frame;
    T* weights = frame.take<T>(scores.extent(1));
    const E* row = scores.row(r);
    E* to = out.row(r);
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      const index_t first = offsets[s], last = offsets[s + 1];
      T most = -std::numeric_limits<T>::infinity(), sum = 0;
      for (index_t i = first; i < last; ++i) most = std::max(most, static_cast<T>(row[i]));
      const bool nothing = most == -std::numeric_limits<T>::infinity();
      for (index_t i = first; i < last; ++i) {
        const T x = static_cast<T>(row[i]);
        weights[i] = nothing && x == most ? T(0) : std::exp(x - most);
        sum += weights[i];
      }
      if (sum == T(0)) sum = T(1);
      for (index_t i = first; i < last; ++i) to[i] = static_cast<E>(weights[i] / sum);
    }
  });
}

/// What becomes of the rows of a segment.
enum class pooling : unsigned char { mean, sum, max };

/// One row from each segment of rows.
///
///     out[b][h][j] = the mean, sum or maximum over s in [offsets[j], offsets[j + 1]) of in[b][h][s]
///
/// Shapes     in: (B, H, S, D); offsets: n + 1 entries from 0 to S that do not decrease; out: (B, H, n, D).
/// Aliasing   out shares no element with in.
/// Numerics   summed in float (double for double), one chain over ascending s. Of an empty segment: the sum and the mean are 0,
///            the maximum is -inf. NaN in a segment makes its channel NaN.
/// Cost       in is read once.
/// Errors     shape_error; value_error with the entry for an offset; nothing is written then.
template <class E, executor Executor = calling_thread>
void segment_pool(tensor_view<const E, 4> in,        // (B, H, S, D)
                  std::span<const index_t> offsets,  // (n + 1)
                  tensor_view<E, 4> out,             // (B, H, n, D)
                  pooling how = pooling::mean, Executor&& on = {});

/// The same with blocks of `block` rows, the last one shorter if S is no multiple.
///
/// Shapes     in: (B, H, S, D); out: (B, H, ceil(S / block), D).
/// Errors     also value_error if block is below 1.
template <class E, executor Executor = calling_thread>
void segment_pool(tensor_view<const E, 4> in,            // (B, H, S, D)
                  index_t block, tensor_view<E, 4> out,  // (B, H, ceil(S / block), D)
                  pooling how = pooling::mean, Executor&& on = {});

namespace detail {

template <class T, class RowAt>
TOKENMIX_NOINLINE void pool_rows(RowAt&& row_at, index_t first, index_t last, index_t channels, pooling how, T* to) {
  std::fill_n(to, channels, how == pooling::max ? -std::numeric_limits<T>::infinity() : T(0));
  for (index_t s = first; s < last; ++s) {
    const auto* row = row_at(s);
    if (how == pooling::max) {
      for (index_t d = 0; d < channels; ++d) {
        const T x = static_cast<T>(row[d]);
        to[d] = x > to[d] || x != x ? x : to[d];
      }
    } else {
      for (index_t d = 0; d < channels; ++d) to[d] += static_cast<T>(row[d]);
    }
  }
  if (how == pooling::mean && last > first) {
    for (index_t d = 0; d < channels; ++d) to[d] /= static_cast<T>(last - first);
  }
}

template <class E, class Bounds, class Executor>
void pool_segments(const tensor_view<const E, 4>& in, index_t n, const Bounds& first_of, const tensor_view<E, 4>& out,
                   pooling how, Executor& on) {
  using T = accumulator_t<E>;
  check_shape("out", tensor_view<const E, 4>(out), {in.extent(0), in.extent(1), n, in.extent(3)}, "(B, H, n, D)");
  check_overlap("out", out, "in", in);
  const index_t heads = in.extent(1), channels = in.extent(3);
  run_tasks(on, channels == 0 ? 0 : in.extent(0) * heads * n, [&](index_t task) {
    const index_t b = task / (heads * n), h = task / n % heads, j = task % n;
    scratch_frame frame;
    T* sum = frame.take<T>(channels);
    pool_rows([&](index_t s) { return in.row(b, h, s); }, first_of(j), first_of(j + 1), channels, how, sum);
    E* to = out.row(b, h, j);
    for (index_t d = 0; d < channels; ++d) to[d] = static_cast<E>(sum[d]);
  });
}

}  // namespace detail

template <class E, executor Executor>
void segment_pool(tensor_view<const E, 4> in, std::span<const index_t> offsets, tensor_view<E, 4> out, pooling how,
                  Executor&& on) {
  detail::check_input("in", in);
  detail::check_output("out", out);
  detail::check_segments("offsets", offsets, "in", in.extent(2));
  detail::pool_segments(
      in, static_cast<index_t>(offsets.size()) - 1, [&](index_t j) { return offsets[static_cast<std::size_t>(j)]; },
      out, how, on);
}

template <class E, executor Executor>
void segment_pool(tensor_view<const E, 4> in, index_t block, tensor_view<E, 4> out, pooling how, Executor&& on) {
  detail::check_input("in", in);
  detail::check_output("out", out);
  if (block < 1) detail::fail_value("block is ", block, ", expected 1 or more");
  const index_t rows = in.extent(2);
  detail::pool_segments(
      in, rows / block + (rows % block != 0 ? 1 : 0), [&](index_t j) { return std::min(j * block, rows); }, out, how,
      on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
