// SPDX-License-Identifier: Apache-2.0
/// @file Causal attention over a query's own block and the earlier blocks whose mean key it matches best.
#pragma once

#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/mixers/softmax/detail/finish.hpp>
#include <tokenmix/mixers/sparse/detail/block_tiles.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/primitives/gather/segments.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Options of mixture_of_block_attention.
template <class Score = plain_score, class Sequences = whole_sequences, class Lse = float>
struct mixture_of_block_options {
  index_t block = 64;  ///< keys of a block, >= 1
  index_t blocks = 8;  ///< blocks of each query, its own included, >= 1
  Score score{};       ///< what happens to scores before the softmax; blocks are chosen by q.mean(k) as it is
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  Sequences sequences{};          ///< whole_sequences, lengths or packed
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output; none if empty
};

namespace detail {

/// The means of the whole blocks of every sequence: (sequence, Hk, whole blocks, D).
template <class T>
class block_means {
 public:
  template <class E, class Sequences, class Executor>
  block_means(const tensor_view<const E, 4>& k, const Sequences& sequences, index_t queries, index_t block,
              scratch_frame& frame, Executor& on)
      : blocks_(sequences.count(k.extent(0)), frame,
                [&](index_t i) { return sequences.at(i, queries, k.extent(2)).keys / block * k.extent(1); }),
        channels_(k.extent(3)),
        means_(frame.take<T>(blocks_.total() * channels_)) {
    run_tasks(on, channels_ == 0 ? 0 : blocks_.total(), [&](index_t task) {
      const index_t i = blocks_.sequence_of(task), inside = task - blocks_.first(i);
      const sequence seq = sequences.at(i, queries, k.extent(2));
      const index_t whole = seq.keys / block, head = inside / whole, first = seq.key_row + inside % whole * block;
      pool_rows([&](index_t s) { return k.row(seq.batch, head, s); }, first, first + block, channels_, pooling::mean,
                means_ + task * channels_);
    });
  }

  /// Those of a key head of sequence i, which has `whole` of them.
  const T* of(index_t i, index_t key_head, index_t whole) const {
    return means_ + (blocks_.first(i) + key_head * whole) * channels_;
  }

 private:
  task_numbers blocks_;
  index_t channels_;
  T* means_;
};

/// The own block of every row of a panel, and up to `most` - 1 earlier ones with the largest scores.
template <class T, class Q>
chosen_blocks choose_by_means(const tensor_view<const Q, 4>& q, const query_panel& panel, const T* means, index_t block,
                              index_t most, scratch_frame& frame) {
  const index_t D = q.extent(3), whole = panel.seq.keys / block, stride = padded_scores<T>(whole);
  chosen_blocks chosen(panel.rows(), most, 1, frame);
  scratch_frame own;
  T* rows = own.take<T>(scored_rows * D);
  T* scores = own.take<T>(scored_rows * stride);
  index_t* order = own.take<index_t>(whole + 1);
  for (index_t member = 0; member < panel.group; ++member) {
    for (index_t first = 0; first < panel.count; first += scored_rows) {
      const index_t count = std::min(scored_rows, panel.count - first);
      for (index_t i = 0; i < count; ++i) {
        simd::convert_row(q.row(panel.seq.batch, panel.head() + member, panel.seq.query_row + panel.first + first + i),
                          rows + i * D, D);
      }
      const index_t before = std::max<index_t>(panel.position(first + count - 1), 0) / block;
      if (most > 1) score_rows(rows, D, count, D, means, D, whole, 0, std::min(before, whole), scores, stride);
      for (index_t i = 0; i < count; ++i) {
        const index_t row = (first + i) * panel.group + member, at = panel.position(first + i);
        chosen.counts[row] = 0;
        if (at < 0) continue;
        const index_t current = at / block, others = std::min(current, most - 1);
        select_largest(scores + i * stride, current, others, false, order);
        index_t* list = chosen.list(row);
        std::copy_n(order, others, list);
        list[others] = current;
        chosen.counts[row] = others + 1;
      }
    }
  }
  return chosen;
}

}  // namespace detail

/// Causal attention in which a query sees its own block up to itself, and of the whole blocks before it those with the largest
///
///     q[t].mean(k[s] for s in block j)            blocks - 1 of them, all if there are no more; ties by index, NaN last
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv). Blocks are counted from key 0 of a
///            sequence, queries from its end: the last query stands at the last key. A query in front of all keys gives zeros.
/// Aliasing   out and lse share no element with an input.
/// Numerics   means and the scores of blocks in float (double for double), one chain over ascending tokens and channels. The
///            attention with the bound of softmax_attention: a query's blocks are merged in ascending order, in pieces of at most
///            softmax_leaf_keys keys, so the bound grows with their number where it is above softmax_leaf_keys. NaN and what
///            is not seen as there. The same bits for any executor, batch neighbours, strides and split of the queries into calls.
/// Cost       2 D operations per query and whole block before it, then 2 (D + Dv) for each of blocks * block keys; a block is read
///            once for all rows of a panel that chose it. Scratch: the means, (B, Hk, S / block, D), and per worker a panel of up
///            to 1024 rows (or the heads of a key head, if they are more) with Dv numbers and `blocks` indices each, a block's tile
///            as in softmax_attention, 32 rows of S / block scores. Nothing of size T S.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     Lu et al. 2025, MoBA: mixture of block attention, equations 5 to 7.
template <class Q, class E, class O, class Score = plain_score, class Sequences = whole_sequences, class Lse = float,
          executor Executor = calling_thread>
void mixture_of_block_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                                tensor_view<const E, 4> k,  // (B, Hk, S, D)
                                tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                                tensor_view<O, 4> out,      // (B, H, T, Dv)
                                const mixture_of_block_options<Score, Sequences, Lse>& options = {},
                                Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<T, accumulator_t<E>>, "q and k compute in different types");
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  const index_t block = options.block;
  if (block < 1) detail::fail_value("options.block is ", block, ", expected 1 or more");
  if (options.blocks < 1) detail::fail_value("options.blocks is ", options.blocks, ", expected 1 or more");
  const index_t B = q.extent(0), H = q.extent(1), queries = q.extent(2), keys = k.extent(2);
  options.sequences.check(B, queries, keys);
  score_check(options.score, options.sequences.count(B), H, queries, keys, q.extent(3));
  detail::check_lse(options.lse, {B, H, queries});
  detail::check_attention_output(out, {B, H, queries, v.extent(3)}, options, q, k, v);
  const double scale = detail::scale_of(options, q.extent(3));
  scratch_frame frame;
  const detail::block_means<T> means(k, options.sequences, queries, block, frame, on);
  detail::run_panels(
      options.sequences, B, queries, keys, H, k.extent(1), on, [&](const detail::query_panel& panel, index_t i) {
        scratch_frame own;
        const index_t whole = panel.seq.keys / block;
        const detail::chosen_blocks chosen = detail::choose_by_means(q, panel, means.of(i, panel.key_head, whole),
                                                                     block, std::min(options.blocks, whole + 1), own);
        detail::block_tiles<Q, E, Score> tiles(q, k, v, options.score, scale, panel, own);
        tiles.attend(chosen, block);
        tiles.write(detail::attention_output<O, Lse, T>{out, options.lse, {}, false}, panel.seq.batch, panel.head(),
                    panel.seq.query_row + panel.first);
      });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
