// SPDX-License-Identifier: Apache-2.0
/// @file Causal attention over a query's own block and the earlier blocks whose mean key it matches best.
#pragma once

#include <tokenmix/mixers/sparse/detail/row_blocks.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/mixers/sparse/gathered_attention.hpp>
#include <tokenmix/primitives/gather/segments.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Options of mixture_of_block_attention.
template <class Lse = float>
struct mixture_of_block_options {
  index_t block = 64;             ///< keys of a block, >= 1
  index_t blocks = 8;             ///< blocks of each query, its own included, >= 1
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output; none if empty
};

/// Causal attention in which a query sees its own block up to itself, and of the whole blocks before it those with the largest
///
///     q[t].mean(k[s] for s in block j)            blocks - 1 of them, all if there are no more; ties by index, NaN last
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv). Blocks are counted from key 0, queries
///            from the end: the last query stands at the last key. A query in front of all keys gives zeros.
/// Aliasing   out and lse share no element with an input.
/// Numerics   means and the scores of blocks in float (double for double), one chain over ascending tokens and channels; the
///            attention as softmax_attention. The same bits for any executor.
/// Cost       2 D operations per query and whole block before it, then 2 (D + Dv) for each of blocks * block keys. Scratch: the
///            means, (B, Hk, S / block, D), and per worker 32 rows of S / block scores.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     Lu et al. 2025, MoBA: mixture of block attention, equations 5 to 7.
template <class Q, class E, class O, class Lse = float, executor Executor = calling_thread>
void mixture_of_block_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                                tensor_view<const E, 4> k,  // (B, Hk, S, D)
                                tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                                tensor_view<O, 4> out,      // (B, H, T, Dv)
                                const mixture_of_block_options<Lse>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  const index_t block = options.block;
  if (block < 1) detail::fail_value("options.block is ", block, ", expected 1 or more");
  if (options.blocks < 1) detail::fail_value("options.blocks is ", options.blocks, ", expected 1 or more");
  const index_t B = q.extent(0), H = q.extent(1), D = q.extent(3), Hk = k.extent(1);
  const detail::causal_rows cut{q.extent(2), k.extent(2), 32};
  detail::check_lse(options.lse, {B, H, cut.queries});
  detail::check_attention_output(out, {B, H, cut.queries, v.extent(3)}, options, q, k, v);
  const double scale = detail::scale_of(options, D);
  const index_t whole = cut.keys / block;  // the blocks that can lie before a query's own
  scratch_frame frame;
  const tensor_view<T, 4> means(frame.take<T>(B * Hk * whole * D), {B, Hk, whole, D});
  detail::run_tasks(on, B * Hk * whole, [&](index_t task) {
    const index_t b = task / (Hk * whole), h = task / whole % Hk, j = task % whole;
    if (D == 0) return;
    detail::pool_rows([&](index_t s) { return k.row(b, h, s); }, j * block, (j + 1) * block, D, pooling::mean,
                      means.row(b, h, j));
  });
  const index_t stride = detail::padded_scores<T>(whole);
  const index_t most = std::min(options.blocks, cut.keys / block + 1);
  detail::run_tasks(on, B * H * cut.blocks(), [&](index_t task) {
    const index_t b = task / (H * cut.blocks()), h = task / cut.blocks() % H, part = task % cut.blocks();
    const index_t first = cut.first(part), count = cut.count(part), key_head = h / (H / Hk);
    scratch_frame own;
    T* rows = own.take<T>(count * D);
    for (index_t r = 0; r < count; ++r) simd::convert_row(q.row(b, h, first + r), rows + r * D, D);
    T* scores = own.take<T>(count * stride);
    const index_t before = std::max<index_t>(cut.position(first + count - 1), 0) / block;
    detail::score_rows(rows, D, count, D, means.row(b, key_head, 0), means.stride(2), whole, 0, std::min(before, whole),
                       scores, stride);
    index_t* lists = own.take<index_t>(count * most);
    index_t* counts = own.take<index_t>(count);
    index_t* order = own.take<index_t>(whole + 1);
    for (index_t r = 0; r < count; ++r) {
      index_t* list = lists + r * most;
      std::fill_n(list, most, index_t{0});
      const index_t at = cut.position(first + r);
      counts[r] = 0;
      if (at < 0) continue;
      const index_t current = at / block, chosen = std::min(current, options.blocks - 1);
      detail::select_largest(scores + r * stride, current, chosen, false, order);
      std::copy_n(order, chosen, list);
      list[chosen] = current;
      counts[r] = chosen * block + at % block + 1;
    }
    tensor_view<Lse, 3> lse;
    if (options.lse.data() != nullptr) {
      lse = tensor_view<Lse, 3>(&options.lse(b, h, first), {1, 1, count}, options.lse.strides());
    }
    const detail::listed_keys<E> source{detail::part_of(k, b, key_head, 1, 0, cut.keys),
                                        detail::part_of(v, b, key_head, 1, 0, cut.keys),
                                        tensor_view<const index_t, 4>(lists, {1, 1, count, most}), block};
    calling_thread alone;
    detail::attend_lists(detail::part_of(q, b, h, 1, first, count), source,
                         tensor_view<const index_t, 3>(counts, {1, 1, count}), scale,
                         detail::part_of(out, b, h, 1, first, count), lse, alone);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
