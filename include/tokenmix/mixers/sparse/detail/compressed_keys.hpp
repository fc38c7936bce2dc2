// SPDX-License-Identifier: Apache-2.0
/// @file Keys that each stand for a stretch of keys, and what their weights say about blocks of keys.
#pragma once

#include <tokenmix/mixers/sparse/detail/chosen_blocks.hpp>
#include <tokenmix/mixers/sparse/detail/query_panels.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>
#include <tokenmix/primitives/online_softmax.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Compressed key i stands for keys [i * stride, i * stride + length).
struct compression {
  index_t length;
  index_t stride;

  /// Those that `keys` keys have.
  constexpr index_t count(index_t keys) const { return keys < length ? 0 : (keys - length) / stride + 1; }
};

/// A query sees the compressed keys all of whose keys lie up to it.
struct compressed_before {
  using is_mask = void;
  index_t shift;  // the position of query row 0
  compression of;

  constexpr index_t visible(index_t row) const { return of.count(row + shift + 1); }
  bool operator()(const index& pair) const { return pair.key < visible(pair.query_row()); }
  span run(const query_block& rows, index_t key) const {
    return interval_run(rows.keys, key, 0, visible(rows.row_last() - 1) - 1, 0, visible(rows.row_first()) - 1);
  }
};

/// weights[i] += exp(scale (scores[i] - largest)) / sum, i < n: what one head gives. Reads and writes whole registers.
template <class T>
TOKENMIX_NOINLINE void add_weights(const T* scores, index_t n, T scale, T* weights) {
  constexpr index_t L = simd::lanes<T>;
  const simd::batch<T> unseen(minus_infinity<T>);
  const auto at = [&](index_t i) {
    return simd::select(simd::first_lanes<T>(std::min(L, n - i)), simd::load(scores + i) * simd::batch<T>(scale),
                        unseen);
  };
  simd::batch<T> most = unseen;
  for (index_t i = 0; i < n; i += L) most = simd::max_or_second(at(i), most);
  const simd::batch<T> reference = finite_reference<T>(simd::batch<T>(simd::reduce_max<T>(most)));
  simd::batch<T> sums(T(0));
  for (index_t i = 0; i < n; i += L) sums = sums + simd::exp_nonpositive(at(i) - reference);
  const simd::batch<T> factor(T(1) / simd::reduce_add<T>(sums));
  for (index_t i = 0; i < n; i += L) {
    simd::store(weights + i, simd::fma(simd::exp_nonpositive(at(i) - reference), factor, simd::load(weights + i)));
  }
}

/// What blocks of keys are chosen by.
struct block_choice {
  index_t block;   // keys of a block
  index_t blocks;  // of a query
  index_t first;   // those at the beginning that are always taken
  index_t local;   // those up to its own that are always taken
  compression compressed;
  double scale;
};

/// importance[j] = sum over the strides m of block j and the compressed keys i that hold them of weights[i], i < seen.
template <class T>
void importance_of_blocks(const T* weights, index_t seen, const block_choice& choice, index_t blocks, T* importance) {
  const index_t strides = choice.block / choice.compressed.stride;
  const index_t held = choice.compressed.length / choice.compressed.stride;
  for (index_t j = 0; j < blocks; ++j) {
    T sum = 0;
    for (index_t m = j * strides; m < (j + 1) * strides; ++m) {
      for (index_t i = std::max<index_t>(m - held + 1, 0); i <= std::min(m, seen - 1); ++i) sum += weights[i];
    }
    importance[j] = sum;
  }
}

/// The blocks of the queries of a panel, one list for all heads: those always taken, then those with the largest importance.
template <class T, class Q, class E>
chosen_blocks choose_by_weights(const tensor_view<const Q, 4>& q, const query_panel& panel, row_run<E> compressed_keys,
                                const block_choice& choice, scratch_frame& frame) {
  const index_t D = q.extent(3), n = compressed_keys.count, stride = padded_scores<T>(n);
  const index_t blocks = blocks_of(panel.seq.keys, choice.block), most = std::min(choice.blocks, blocks);
  chosen_blocks chosen(panel.count, most, panel.group, frame);
  scratch_frame own;
  T* rows = own.take<T>(scored_rows * D);
  T* scores = own.take<T>(scored_rows * stride);
  T* weights = own.take<T>(scored_rows * stride);
  T* importance = own.take<T>(blocks);
  index_t* order = own.take<index_t>(blocks);
  for (index_t first = 0; first < panel.count; first += scored_rows) {
    const index_t count = std::min(scored_rows, panel.count - first);
    const auto seen = [&](index_t i) { return choice.compressed.count(panel.position(first + i) + 1); };
    std::fill_n(weights, count * stride, T(0));
    for (index_t member = 0; member < panel.group; ++member) {
      for (index_t i = 0; i < count; ++i) {
        simd::convert_row(q.row(panel.seq.batch, panel.head() + member, panel.seq.query_row + panel.first + first + i),
                          rows + i * D, D);
      }
      score_rows(rows, D, count, D, compressed_keys.data, compressed_keys.stride, n, 0, seen(count - 1), scores,
                 stride);
      for (index_t i = 0; i < count; ++i) {
        add_weights(scores + i * stride, seen(i), static_cast<T>(choice.scale), weights + i * stride);
      }
    }
    for (index_t i = 0; i < count; ++i) {
      const index_t at = panel.position(first + i);
      chosen.counts[first + i] = 0;
      if (at < 0) continue;
      const index_t current = at / choice.block, others = std::min(current, most - 1);
      importance_of_blocks(weights + i * stride, seen(i), choice, current, importance);
      // Blocks before the query's own compete; one that is always taken outdoes any sum of weights.
      for (index_t j = 0; j < current; ++j) {
        if (j < choice.first || j > current - choice.local) importance[j] = std::numeric_limits<T>::infinity();
      }
      select_largest(importance, current, others, false, order);
      index_t* list = chosen.list(first + i);
      std::copy_n(order, others, list);
      list[others] = current;
      chosen.counts[first + i] = others + 1;
    }
  }
  return chosen;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
