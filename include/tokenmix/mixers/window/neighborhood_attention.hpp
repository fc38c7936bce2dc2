// SPDX-License-Identifier: Apache-2.0
/// @file Neighbourhood attention: every token of a grid of one to three dimensions attends to the window around itself.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/mixers/window/detail/grid_source.hpp>
#include <tokenmix/mixers/window/detail/neighborhood_bias.hpp>
#include <tokenmix/primitives/axes.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of neighborhood_attention. The T tokens are those of the grid, the last axis fastest.
template <class Q, class E, class Bias = accumulator_t<Q>>
struct neighborhood_inputs {
  tensor_view<const Q, 4> q{};        // (B, H, T, D)
  tensor_view<const E, 4> k{};        // (B, Hk, T, D)
  tensor_view<const E, 4> v{};        // (B, Hk, T, Dv)
  tensor_view<const Bias, 2> bias{};  // (H|1, product of 2 window - 1 over the axes); none if empty
  tensor_view<const E, 4> extra_k{};  // (B|1, Hk, P, D) keys that every token sees besides; none if empty
  tensor_view<const E, 4> extra_v{};  // (B|1, Hk, P, Dv)
};

/// Whom a token sees along an axis.
enum class neighbors : unsigned char {
  around,  ///< a full window, moved inwards at the borders
  causal,  ///< itself and what comes before
};

/// Options of neighborhood_attention: use with designated initialisers; the order of the fields is API. One value per axis.
template <class Lse = float>
struct neighborhood_options {
  axes<index_t> grid{};                   ///< tokens along each axis
  axes<index_t> window{};                 ///< keys along each axis, even or odd
  axes<index_t> dilation{};               ///< from one key of a window to the next; 1 if empty
  axes<index_t> stride{};                 ///< tokens that share the window of the one in their middle; 1 if empty
  axes<tokenmix::neighbors> neighbors{};  ///< around if empty
  std::optional<double> scale{};          ///< of q.k; 1 / sqrt(D) if not given
  tensor_view<Lse, 3> lse{};              ///< (B, H, T), output: log of the sum of exp(score); none if empty
};

namespace detail {

template <class V>
V axis_value(const axes<V>& values, index_t i, V otherwise) {
  return values.rank() == 0 ? otherwise : values[i];
}

/// The axes of the options, checked; axes that a grid does not have come first and hold one token.
template <class Lse>
void neighborhood_axes(const neighborhood_options<Lse>& options, index_t tokens,
                       grid_axis (&axis)[static_cast<std::size_t>(grid_rank)]) {
  const index_t rank = options.grid.rank();
  if (rank == 0) fail_shape("grid has no axes, expected one to three");
  const auto same_rank = [&](const char* name, index_t given, bool needed) {
    if (given != rank && (needed || given != 0))
      fail_shape(name, " has ", given, " values, expected ", rank, ": grid has that many axes");
  };
  same_rank("window", options.window.rank(), true);
  same_rank("dilation", options.dilation.rank(), false);
  same_rank("stride", options.stride.rank(), false);
  same_rank("neighbors", options.neighbors.rank(), false);
  // Tiles of 16 tokens that are as wide as they are high: 16, 4 x 4 or 2 x 2 x 4.
  constexpr index_t tile_of[3][3] = {{1, 1, 16}, {1, 4, 4}, {2, 2, 4}};
  index_t product = 1;
  for (index_t i = 0; i < rank; ++i) {
    grid_axis& a = axis[grid_rank - rank + i];
    a = {options.grid[i],
         options.window[i],
         axis_value<index_t>(options.dilation, i, 1),
         axis_value<index_t>(options.stride, i, 1),
         axis_value(options.neighbors, i, neighbors::around) == neighbors::causal,
         tile_of[rank - 1][grid_rank - rank + i]};
    if (a.size < 0) fail_value("grid[", i, "] is ", a.size, ", expected 0 or more tokens");
    if (a.window < 1) fail_value("window[", i, "] is ", a.window, ", expected 1 or more keys");
    if (a.dilation < 1) fail_value("dilation[", i, "] is ", a.dilation, ", expected 1 or more");
    if (a.stride < 1 || a.stride > a.window)
      fail_value("stride[", i, "] is ", a.stride, ", expected 1 to window[", i, "] = ", a.window);
    if (!a.causal && a.size > 0 && a.window > a.size / a.dilation)
      fail_value("window[", i, "] is ", a.window, ": with dilation ", a.dilation, " the grid's ", a.size,
                 " tokens hold ", a.size / a.dilation);
    if (__builtin_mul_overflow(product, a.size, &product)) fail_value("grid has more tokens than there are numbers");
  }
  if (product != tokens) fail_shape("grid has ", product, " tokens, q has ", tokens);
}

}  // namespace detail

/// Neighbourhood attention.
///
///     out[t] = softmax attention of token t over the window[a] tokens next to it along every axis a, dilation[a] apart,
///              and the extra keys;      score = scale q.k + bias[key - query]
///
/// Along an axis with n tokens in the token's class modulo the dilation (counted there, i of them before it) the window begins at
/// clamp(i - window / 2, 0, n - window): at the borders it moves inwards, so that all tokens see equally many keys. With a
/// stride, i is that of the token in the middle of each group of `stride`. Causal: the window ends at the token, begins `window`
/// tokens before the end of its group, and is cut off at the border.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv); any strides, last axis contiguous; T is the
///            product of the grid's axes, the last one fastest. bias: (H|1, (2 window - 1) of all axes), of key minus query in
///            tokens of their class, the last axis fastest. extra_k: (B|1, Hk, P, D), extra_v: (B|1, Hk, P, Dv), without bias. lse: (B, H, T).
/// Aliasing   out and lse share no element with an input; inputs may share memory.
/// Numerics   as softmax_attention. A NaN reaches the tokens that see it, no other. The same bits for any executor, batch
///            neighbours and strides.
/// Cost       work goes with the visible pairs: tiles of 16 tokens (4 x 4, 2 x 2 x 4) against the box around their windows, (W + 3)^2
///            keys for W x W, of which a token sees W^2: half for 7 x 7, two thirds for 13 x 13. Keys and values are read where they
///            lie. Scratch: 250 bytes per tile; per worker as softmax_attention.
/// Errors     shape_error and value_error as the messages say, among them a window larger than a class of the grid
///            (unless causal); nothing is written then. Empty grids are legal.
/// Source     Hassani et al. 2023 (NATTEN), section 3; Hassani and Shi 2022 (dilated); Hassani et al. 2025 (strides).
template <class Q, class E, class Bias, class O, class Lse = float, executor Executor = calling_thread>
void neighborhood_attention(const neighborhood_inputs<Q, E, Bias>& inputs, tensor_view<O, 4> out,
                            const neighborhood_options<Lse>& options, Executor&& on = {}) {
  using namespace detail;
  const auto& [q, k, v, bias, extra_k, extra_v] = inputs;
  check_input("q", q);
  check_keys(q, k, v, "k", "v");
  check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  check_same_extent("k", k, 2, "q", q, 2, "tokens");
  if (extra_k.extent(2) != 0) check_extra_keys(q, k, v, extra_k, extra_v);
  grid_axis axis[static_cast<std::size_t>(grid_rank)];
  neighborhood_axes(options, q.extent(2), axis);
  scratch_frame frame;
  const grid_tiles tiles(axis, frame);
  const grid_source<E> source{{k, v, extra_k, extra_v}, tiles};
  const auto run = [&](const auto& score) {
    const softmax_options<grid_mask, std::remove_cvref_t<decltype(score)>, grid_sequences, softmax_weights, no_edit,
                          no_rotary, Lse>
        told{.mask = {tiles, extra_k.extent(2)},
             .score = score,
             .scale = options.scale,
             .sequences = {tiles},
             .lse = options.lse};
    check_lse(told.lse, {q.extent(0), q.extent(1), q.extent(2)});
    check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, told, q, k, v, extra_k, extra_v);
    attend(q, source, told, attention_output<O, Lse, Bias>{out, told.lse, {}, false}, on);
  };
  if (bias.data() == nullptr) {
    run(plain_score{});
  } else {
    index_t entries = 1;
    for (const grid_axis& a : axis) entries *= 2 * a.window - 1;
    check_view("bias", bias);
    check_broadcast("bias", bias, 0, "heads", q.extent(1));
    check_extent("bias", bias, 1, "entries", entries, "2 window - 1 along every axis");
    run(neighborhood_bias<Bias>{bias, tiles, {axis[0].window, axis[1].window, axis[2].window}, extra_k.extent(2)});
  }
}

/// The same with the usual four tensors.
template <class Q, class E, class O, class Lse = float, executor Executor = calling_thread>
void neighborhood_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                            tensor_view<const E, 4> k,  // (B, Hk, T, D)
                            tensor_view<const E, 4> v,  // (B, Hk, T, Dv)
                            tensor_view<O, 4> out,      // (B, H, T, Dv)
                            const neighborhood_options<Lse>& options, Executor&& on = {}) {
  neighborhood_attention(neighborhood_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
