// SPDX-License-Identifier: Apache-2.0
/// @file Causal attention in three gated branches: compressed blocks, selected blocks, a window.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/sparse/detail/row_blocks.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/mixers/sparse/gathered_attention.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/mask/window.hpp>

#include <cmath>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of native_sparse_attention.
template <class Q, class E>
struct native_sparse_attention_inputs {
  tensor_view<const Q, 4> q{};                    // (B, H, T, D)
  tensor_view<const E, 4> k{};                    // (B, Hk, S, D)
  tensor_view<const E, 4> v{};                    // (B, Hk, S, Dv)
  tensor_view<const E, 4> compressed_k{};         // (B, Hk, S / block, D) one key for each whole block
  tensor_view<const E, 4> compressed_v{};         // (B, Hk, S / block, Dv)
  tensor_view<const accumulator_t<Q>, 4> gate{};  // (B, H, T, 3) of the compressed, selected and window branch
};

/// Options of native_sparse_attention.
struct native_sparse_attention_options {
  index_t block = 64;             ///< keys of a block, >= 1
  index_t blocks = 16;            ///< selected blocks, those always taken included, >= 1
  index_t first = 1;              ///< blocks at the beginning that are always selected, >= 0
  index_t local = 2;              ///< blocks up to the query's own that are always selected, >= 1
  index_t window = 512;           ///< keys of the window, the query's own included, >= 1
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
};

namespace detail {

/// Compressed block j stands for keys that all lie up to the query: j < (position + 1) / block.
struct whole_blocks_before {
  using is_mask = void;
  index_t shift;  // the position of query row 0
  index_t block;

  constexpr index_t visible(index_t row) const { return std::max<index_t>(row + shift + 1, 0) / block; }
  bool operator()(const index& pair) const { return pair.key < visible(pair.query_row()); }
  span run(const query_block& rows, index_t key) const {
    return interval_run(rows.keys, key, 0, visible(rows.row_last() - 1) - 1, 0, visible(rows.row_first()) - 1);
  }
};

}  // namespace detail

/// Causal attention as the gated sum of three, which share q:
///
///     out[t] = gate[t][0] compressed[t] + gate[t][1] selected[t] + gate[t][2] window[t]
///     compressed: softmax attention over compressed_k, compressed_v of the whole blocks up to t
///     selected:   over the keys up to t of `blocks` blocks: the first ones, the local ones, and then those with the largest
///                 sum over the heads of a key head of their weight in `compressed`; ties by index
///     window:     over the last `window` keys up to t
///
/// compressed_k and compressed_v come from a network of the caller's, or from segment_pool. Compression blocks do not overlap
/// and are the selection blocks: the paper's l = l' = d.
///
/// Shapes     as in the inputs' comments; out: (B, H, T, Dv). Blocks are counted from key 0, queries from the end.
/// Aliasing   out shares no element with an input.
/// Numerics   every branch as softmax_attention, summed in float (double for double); a branch that sees nothing gives zeros. The
///            same bits for any executor.
/// Cost       2 (D + Dv) operations per key of each branch and 2 D once more per compressed key. Scratch per worker: 32 rows
///            of S / block scores and three outputs, for the heads of a key head.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     Yuan et al. 2025, Native sparse attention, equations 5 and 7 to 12.
template <class Q, class E, class O, executor Executor = calling_thread>
void native_sparse_attention(const native_sparse_attention_inputs<Q, E>& inputs, tensor_view<O, 4> out,
                             const native_sparse_attention_options& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  const auto& [q, k, v, ck, cv, gate] = inputs;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  const auto at_least = [](const char* name, index_t value, index_t least) {
    if (value < least) detail::fail_value("options.", name, " is ", value, ", expected ", least, " or more");
  };
  at_least("block", options.block, 1);
  at_least("blocks", options.blocks, 1);
  at_least("first", options.first, 0);
  at_least("local", options.local, 1);
  at_least("window", options.window, 1);
  if (options.first > options.blocks || options.local > options.blocks - options.first) {
    detail::fail_value("options.blocks is ", options.blocks, ", below options.first + options.local: ", options.first,
                       " + ", options.local, " are always taken");
  }
  const index_t block = options.block;
  const index_t B = q.extent(0), H = q.extent(1), D = q.extent(3), Hk = k.extent(1), Dv = v.extent(3);
  const detail::causal_rows cut{q.extent(2), k.extent(2), 32};
  const index_t whole = cut.keys / block;
  detail::check_input("compressed_k", ck);
  detail::check_input("compressed_v", cv);
  detail::check_shape("compressed_k", ck, {B, Hk, whole, D}, "(B, Hk, S / block, D)");
  detail::check_shape("compressed_v", cv, {B, Hk, whole, Dv}, "(B, Hk, S / block, Dv)");
  detail::check_view("gate", gate);
  detail::check_shape("gate", gate, {B, H, cut.queries, 3}, "(B, H, T, 3)");
  detail::check_output("out", out);
  detail::check_shape("out", tensor_view<const O, 4>(out), {B, H, cut.queries, Dv}, "(B, H, T, Dv)");
  const auto apart = [&](const auto&... in) { (detail::check_overlap("out", out, "an input", in), ...); };
  apart(q, k, v, ck, cv, gate);
  const double scale = detail::scale_of(options, D);
  const index_t group = Hk == 0 ? 0 : H / Hk;
  const index_t stride = detail::padded_scores<T>(whole);
  const index_t most = std::min(options.blocks, (cut.keys + block - 1) / block);

  detail::run_tasks(on, B * Hk * cut.blocks(), [&](index_t task) {
    const index_t b = task / (Hk * cut.blocks()), key_head = task / cut.blocks() % Hk, part = task % cut.blocks();
    const index_t first = cut.first(part), count = cut.count(part), h = key_head * group;
    scratch_frame frame;
    T* rows = frame.take<T>(count * D);
    T* scores = frame.take<T>(count * stride);
    T* importance = frame.take<T>(count * stride);
    std::fill_n(importance, count * stride, T(0));
    const detail::whole_blocks_before compressed_mask{cut.position(first), block};
    const index_t most_seen = compressed_mask.visible(count - 1);
    for (index_t member = 0; member < group; ++member) {
      for (index_t r = 0; r < count; ++r) simd::convert_row(q.row(b, h + member, first + r), rows + r * D, D);
      detail::score_rows(rows, D, count, D, ck.row(b, key_head, 0), ck.stride(2), whole, 0, most_seen, scores, stride);
      for (index_t r = 0; r < count; ++r) {
        const index_t seen = compressed_mask.visible(r);
        T* row = scores + r * stride;
        T largest = -std::numeric_limits<T>::infinity(), sum = 0;
        for (index_t j = 0; j < seen; ++j) largest = std::max(largest, row[j]);
        for (index_t j = 0; j < seen; ++j) {
          row[j] = std::exp(static_cast<T>(scale) * (row[j] - largest));
          sum += row[j];
        }
        for (index_t j = 0; j < seen; ++j) importance[r * stride + j] += row[j] / sum;
      }
    }
    index_t* lists = frame.take<index_t>(count * most);
    index_t* counts = frame.take<index_t>(count);
    index_t* order = frame.take<index_t>(whole + 1);
    for (index_t r = 0; r < count; ++r) {
      index_t* list = lists + r * most;
      std::fill_n(list, most, index_t{0});
      const index_t at = cut.position(first + r);
      counts[r] = 0;
      if (at < 0) continue;
      const index_t current = at / block;
      T* row = importance + r * stride;
      // Blocks before the query's own compete; a forced one outdoes any sum of weights, which is at most the group.
      for (index_t j = 0; j < current; ++j) {
        if (j < options.first || j > current - options.local) row[j] = std::numeric_limits<T>::infinity();
      }
      const index_t chosen = std::min(current, options.blocks - 1);
      detail::select_largest(row, current, chosen, false, order);
      std::copy_n(order, chosen, list);
      list[chosen] = current;
      counts[r] = chosen * block + at % block + 1;
    }

    // The branches; keys end at the last query, so that positions are as in the whole.
    const index_t end = std::max<index_t>(cut.position(first + count - 1) + 1, 0);
    const auto queries = detail::part_of(q, b, h, group, first, count);
    const auto branch = [&] { return tensor_view<T, 4>(frame.take<T>(group * count * Dv), {1, group, count, Dv}); };
    const tensor_view<T, 4> compressed = branch(), selected = branch(), near = branch();
    calling_thread alone;
    softmax_attention(queries, detail::part_of(ck, b, key_head, 1, 0, whole),
                      detail::part_of(cv, b, key_head, 1, 0, whole), compressed,
                      softmax_options<detail::whole_blocks_before>{.mask = compressed_mask, .scale = scale}, alone);
    const detail::listed_keys<E> source{detail::part_of(k, b, key_head, 1, 0, cut.keys),
                                        detail::part_of(v, b, key_head, 1, 0, cut.keys),
                                        tensor_view<const index_t, 4>(lists, {1, 1, count, most}), block};
    detail::attend_lists(queries, source, tensor_view<const index_t, 3>(counts, {1, 1, count}), scale, selected,
                         tensor_view<T, 3>{}, alone);
    softmax_attention(queries, detail::part_of(k, b, key_head, 1, 0, end), detail::part_of(v, b, key_head, 1, 0, end),
                      near,
                      softmax_options<mask_and<causal, window>>{.mask = causal{} & window{.left = options.window - 1},
                                                                .scale = scale},
                      alone);
    for (index_t member = 0; member < group; ++member) {
      for (index_t r = 0; r < count; ++r) {
        const T* branches[] = {compressed.row(0, member, r), selected.row(0, member, r), near.row(0, member, r)};
        const T gates[] = {gate(b, h + member, first + r, 0), gate(b, h + member, first + r, 1),
                           gate(b, h + member, first + r, 2)};
        O* row = out.row(b, h + member, first + r);
        for (index_t d = 0; d < Dv; ++d) {
          const T near_part = gates[2] * branches[2][d];
          row[d] = static_cast<O>(std::fma(gates[0], branches[0][d], std::fma(gates[1], branches[1][d], near_part)));
        }
      }
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
