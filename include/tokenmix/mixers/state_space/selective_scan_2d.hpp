// SPDX-License-Identifier: Apache-2.0
/// @file Selective scans along several paths over the same positions, summed: VMamba's cross-scan and cross-merge in one.
#pragma once

#include <tokenmix/mixers/state_space/selective_scan.hpp>

#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which ways every list is walked.
enum class path_directions : unsigned char {
  forward,  ///< paths: the lists
  both,     ///< paths: the lists, then the same backwards
};

/// The tensors of selective_scan_2d for K paths over L positions. Rows of delta, B and C are those of positions, whatever the
/// path: what belongs to x[l] stands in row l.
template <class E>
struct selective_scan_2d_inputs {
  tensor_view<const E, 3> x{};                          // (B, L, D)
  tensor_view<const E, 4> delta{};                      // (B, K, L, D)
  tensor_view<const accumulator_t<E>, 3> A{};           // (K, D, N), <= 0
  tensor_view<const E, 5> B{};                          // (B, K, L, G, N)
  tensor_view<const E, 5> C{};                          // (B, K, L, G, N)
  tensor_view<const accumulator_t<E>, 2> skip{};        // (K, D)
  tensor_view<const accumulator_t<E>, 2> delta_bias{};  // (K, D)
  tensor_view<const std::int32_t, 2> paths{};           // (lists, L): each a permutation of 0 .. L - 1
};

/// Options of selective_scan_2d: use with designated initialisers; the order of the fields is API.
struct selective_scan_2d_options {
  path_directions directions = path_directions::both;                ///< K is the number of lists, or twice that
  tokenmix::delta_form delta_form = tokenmix::delta_form::softplus;  ///< what delta goes through
};

namespace detail {

/// Every list visits every position once.
inline void check_paths(const tensor_view<const std::int32_t, 2>& paths, index_t positions) {
  scratch_frame frame;
  auto* seen_at = frame.take<index_t>(positions);
  for (index_t k = 0; k < paths.extent(0); ++k) {
    std::fill_n(seen_at, positions, index_t{-1});
    for (index_t i = 0; i < positions; ++i) {
      const auto at = static_cast<index_t>(paths(k, i));
      if (at < 0 || at >= positions)
        fail_value("paths[", k, "][", i, "] is ", at, ": expected 0 to ", positions - 1, ", the positions of x");
      if (seen_at[at] >= 0)
        fail_value("paths[", k, "][", i, "] is ", at, " as paths[", k, "][", seen_at[at],
                   "] is: a path visits every position once");
      seen_at[at] = i;
    }
  }
}

}  // namespace detail

/// Selective scans along K paths, each with parameters of its own, summed where they meet:
///
///     out[l] = sum over k of y_k[l],   y_k the selective scan (without gate) whose token t is position paths[k][t]
///
/// Shapes     x, out: (B, L, D), delta: (B, K, L, D), B, C: (B, K, L, G, N), any strides, last axis contiguous. A: (K, D, N). skip,
///            delta_bias: (K, D). paths: (lists, L); scanned both ways, K = 2 lists and path lists + k is list k backwards.
/// Aliasing   out shares no element with an input.
/// Numerics   as selective_scan; the K results are added in the order of the paths, in the computing type. The same bits for any
///            executor, batch neighbours and strides.
/// Cost       K selective scans; rows are read and written where they lie, no flipped or permuted copy. Workspace as there, and
///            L numbers for each of 256 channels per thread where out is of a 16-bit type.
/// Errors     shape_error and value_error as the messages say, of the lists with path and entry; nothing is written then.
/// Source     Liu et al. 2024 (VMamba), section 4.3 and algorithm 1 (SS2D).
template <class E, class O, executor Executor = calling_thread>
void selective_scan_2d(const selective_scan_2d_inputs<E>& inputs, tensor_view<O, 3> out,
                       const selective_scan_2d_options& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(!std::is_const_v<O>, "out must be writable");
  const auto& [x, delta, A, B, C, skip, bias, paths] = inputs;
  detail::check_input("x", x);
  detail::check_input("paths", paths);
  const index_t batches = x.extent(0), L = x.extent(1), D = x.extent(2), lists = paths.extent(0);
  detail::check_extent("paths", paths, 1, "entries per list", L, "x has that many positions");
  const index_t K = options.directions == path_directions::both ? 2 * lists : lists;
  detail::check_input("delta", delta);
  detail::check_shape("delta", delta, {batches, K, L, D}, "(B, K, L, D)");
  detail::check_view("A", A);
  const index_t N = A.extent(2), G = B.extent(3);
  detail::check_shape("A", A, {K, D, N}, "(K, D, N)");
  if (G == 0 ? D != 0 : D % G != 0)
    detail::fail_shape("B has ", G, " groups, x has ", D,
                       " channels: the number of channels must be a multiple of the number of groups");
  detail::check_input("B", B);
  detail::check_shape("B", B, {batches, K, L, G, N}, "(B, K, L, G, N)");
  detail::check_input("C", C);
  detail::check_shape("C", C, {batches, K, L, G, N}, "(B, K, L, G, N)");
  detail::check_optional("skip", skip, {K, D}, "(K, D)");
  detail::check_optional("delta_bias", bias, {K, D}, "(K, D)");
  detail::check_output("out", out);
  detail::check_same_shape("out", out, "x", x);
  const auto from = [&](const char* name, const auto& read) { detail::check_overlap("out", out, name, read); };
  from("x", x), from("delta", delta), from("A", A), from("B", B), from("C", C), from("skip", skip);
  from("delta_bias", bias), from("paths", paths);
  detail::check_paths(paths, L);

  if (D == 0) return;
  const auto cut = detail::selective_cut::of<T>(D / G, batches * G, on.concurrency());
  const index_t tasks = G * cut.parts;
  detail::run_tasks(on, batches * tasks, [&](index_t task) {
    const index_t b = task / tasks;
    const auto part = cut.at(task % tasks);
    const index_t channels = part.last - part.first;
    const auto of = [&](const auto& view, index_t k) {
      return view.data() == nullptr ? decltype(view.part(k)){} : view.part(k);
    };
    // Sums are kept in the computing type: in out itself, or in scratch rows that only this task's channels have.
    scratch_frame frame;
    tensor_view<T, 2> sum;
    index_t sum_first = 0;
    if constexpr (std::is_same_v<O, T>) {
      sum = out.part(b);
    } else {
      sum = {frame.take<T>(L * channels), {L, channels}};
      sum_first = part.first;
    }
    for (index_t k = 0; k < K; ++k) {
      detail::selective_channels<E, T, T>{.x = x.part(b),
                                          .delta = delta.part(b, k),
                                          .gate = {},
                                          .b = B.part(b, k),
                                          .c = C.part(b, k),
                                          .A = A.part(k),
                                          .constant_b = {},
                                          .constant_c = {},
                                          .skip = of(skip, k),
                                          .bias = of(bias, k),
                                          .initial = {},
                                          .final = {},
                                          .out = sum,
                                          .path = {.tokens = L, .reversed = k >= lists, .list = paths.row(k % lists)},
                                          .softplus = options.delta_form == delta_form::softplus,
                                          .add = k > 0,
                                          .out_first = sum_first}
          .run(part.group, part.first, part.last);
    }
    const auto convert = [&](index_t l, auto get) {
      for (index_t c = 0; c < channels; c += simd::lanes<T>) {
        const index_t n = std::min(simd::lanes<T>, channels - c);
        simd::store_as_n(out.row(b, l, part.first + c), get(part.first + c, n), n);
      }
    };
    for (index_t l = 0; l < L; ++l) {
      if (K == 0)
        convert(l, [](index_t, index_t) { return simd::batch<T>(T(0)); });
      else if constexpr (!std::is_same_v<O, T>)
        convert(l, [&](index_t c, index_t n) { return simd::load_n(sum.row(l, c - sum_first), n); });
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
