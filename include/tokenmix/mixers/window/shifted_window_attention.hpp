// SPDX-License-Identifier: Apache-2.0
/// @file Swin's attention: within windows that a grid of tokens is cut into, after it was rolled by a shift.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/mixers/window/detail/shifted_windows.hpp>
#include <tokenmix/primitives/axes.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of shifted_window_attention. The T tokens are those of the grid, row by row.
template <class Q, class E, class Bias = accumulator_t<Q>>
struct shifted_window_inputs {
  tensor_view<const Q, 4> q{};        // (B, H, T, D)
  tensor_view<const E, 4> k{};        // (B, Hk, T, D)
  tensor_view<const E, 4> v{};        // (B, Hk, T, Dv)
  tensor_view<const Bias, 2> bias{};  // ((2 Wh - 1) (2 Ww - 1), H|1): relative_position_bias_table; none if empty
};

/// Options of shifted_window_attention: use with designated initialisers; the order of the fields is API.
template <class Lse = float>
struct shifted_window_options {
  axes<index_t> grid{};           ///< rows and columns of tokens
  axes<index_t> window{};         ///< Wh and Ww
  axes<index_t> shift{};          ///< rows and columns that the grid is rolled by, up and to the left; 0 if empty
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output: log of the sum of exp(score); none if empty
};

namespace detail {

template <class Lse>
shifted_windows::axis shifted_window_axis(const shifted_window_options<Lse>& options, index_t i) {
  const index_t size = options.grid[i], window = options.window[i];
  const index_t shift = options.shift.rank() == 0 ? 0 : options.shift[i];
  if (size < 0) fail_value("grid[", i, "] is ", size, ", expected 0 or more tokens");
  if (window < 1) fail_value("window[", i, "] is ", window, ", expected 1 or more tokens");
  if (size % window != 0)
    fail_shape("grid[", i, "] is ", size, ", expected a multiple of window[", i, "] = ", window,
               ": pad the grid first");
  if (shift < 0 || shift >= window) fail_value("shift[", i, "] is ", shift, ", expected 0 to ", window - 1);
  return {size, window, shift};
}

}  // namespace detail

/// Attention within shifted windows.
///
///     the grid is rolled by -shift along both axes and cut into windows of Wh x Ww tokens;
///     out[t] = softmax attention of token t over the tokens of its window that are on its side of the grid's border;
///              score = scale q.k + bias[yq - yk + Wh - 1, xq - xk + Ww - 1]
///
/// The output stands where its token stood: nothing is rolled, cut or put together in memory. Published models add -100 to
/// scores across the border, here they are not seen: weights differ by e^-100.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); any strides, last axis contiguous;
///            T = rows columns of the grid, multiples of the window. bias: ((2 Wh - 1) (2 Ww - 1), H|1), any strides, lse: (B, H, T).
/// Aliasing   out and lse share no element with an input; inputs may share memory (packed QKV).
/// Numerics   as softmax_attention, a window being a sequence; without a shift the bits of softmax_attention over each window.
/// Cost       2 (D + Dv) Wh Ww operations per token. Scratch: H (Wh Ww)^2 numbers for the bias; per worker as softmax_attention.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty grids are legal.
/// Source     Liu et al. 2021 (Swin transformer), section 3.2.
template <class Q, class E, class Bias, class O, class Lse = float, executor Executor = calling_thread>
void shifted_window_attention(const shifted_window_inputs<Q, E, Bias>& inputs, tensor_view<O, 4> out,
                              const shifted_window_options<Lse>& options, Executor&& on = {}) {
  using namespace detail;
  using T = accumulator_t<Q>;
  const auto& [q, k, v, bias] = inputs;
  check_input("q", q);
  check_keys(q, k, v, "k", "v");
  check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  check_same_extent("k", k, 2, "q", q, 2, "tokens");
  if (options.grid.rank() != 2) fail_shape("grid has ", options.grid.rank(), " values, expected rows and columns");
  if (options.window.rank() != 2)
    fail_shape("window has ", options.window.rank(), " values, expected rows and columns");
  if (options.shift.rank() != 2 && options.shift.rank() != 0)
    fail_shape("shift has ", options.shift.rank(), " values, expected rows and columns, or none");
  const auto rows = shifted_window_axis(options, 0), columns = shifted_window_axis(options, 1);
  index_t tokens = 0;
  if (__builtin_mul_overflow(rows.size, columns.size, &tokens) || tokens != q.extent(2))
    fail_shape("grid is ", rows.size, " x ", columns.size, " tokens, q has ", q.extent(2));

  scratch_frame frame;
  const shifted_windows windows(rows, columns, frame);
  const shifted_window_source<E> source{{k, v, {}, {}}, windows};
  const auto run = [&](const auto& score) {
    const softmax_options<shifted_window_mask, std::remove_cvref_t<decltype(score)>, shifted_window_sequences,
                          softmax_weights, no_edit, no_rotary, Lse>
        told{.mask = {windows}, .score = score, .scale = options.scale, .sequences = {windows}, .lse = options.lse};
    check_lse(told.lse, {q.extent(0), q.extent(1), q.extent(2)});
    check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, told, q, k, v);
    attend(q, source, told, attention_output<O, Lse, Bias>{out, told.lse, {}, false}, on);
  };
  if (bias.data() == nullptr) {
    run(plain_score{});
    return;
  }
  check_view("bias", bias);
  check_extent("bias", bias, 0, "rows", (2 * rows.window - 1) * (2 * columns.window - 1), "(2 Wh - 1) (2 Ww - 1)");
  check_broadcast("bias", bias, 1, "heads", q.extent(1));
  const index_t n = windows.tokens(), stride = (n + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
  T* const table = frame.take<T>(q.extent(1) * n * stride);
  for (index_t h = 0; h < q.extent(1); ++h)
    for (index_t key = 0; key < n; ++key) {
      T* const line = table + (h * n + key) * stride;
      std::fill(line + n, line + stride, T(0));
      for (index_t query = 0; query < n; ++query) {
        const index_t dy = query / columns.window - key / columns.window + rows.window - 1;
        const index_t dx = query % columns.window - key % columns.window + columns.window - 1;
        line[query] = detail::number<T>(bias(dy * (2 * columns.window - 1) + dx, bias.extent(1) == 1 ? 0 : h));
      }
    }
  run(shifted_window_bias<T>{table, n, stride});
}

/// The same with the usual four tensors.
template <class Q, class E, class O, class Lse = float, executor Executor = calling_thread>
void shifted_window_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                              tensor_view<const E, 4> k,  // (B, Hk, T, D)
                              tensor_view<const E, 4> v,  // (B, Hk, T, Dv)
                              tensor_view<O, 4> out,      // (B, H, T, Dv)
                              const shifted_window_options<Lse>& options, Executor&& on = {}) {
  shifted_window_attention(shifted_window_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
