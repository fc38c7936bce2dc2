// SPDX-License-Identifier: Apache-2.0
/// @file Lists of blocks that are not empty, made from a mask or from scores of blocks.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>
#include <tokenmix/primitives/mask/block_pattern.hpp>
#include <tokenmix/primitives/mask/spans.hpp>

#include <limits>
#include <vector>

namespace tokenmix::inline TOKENMIX_ABI {

/// The lists of a block_pattern, with memory of their own.
struct block_index {
  index_t query_block = 64;
  index_t key_block = 64;
  tensor<index_t, 3> offsets{};  // (B | 1, H | 1, Tb + 1)
  std::vector<index_t> columns{};

  /// The mask; it refers to this index.
  block_pattern pattern() const {
    return {.query_block = query_block, .key_block = key_block, .offsets = offsets, .columns = columns};
  }
};

/// What an index of blocks is made for.
struct block_index_shape {
  index_t batches = 1;  ///< B, or 1 for all
  index_t heads = 1;    ///< H, or 1 for all
  index_t queries = 0;  ///< T
  index_t keys = 0;     ///< S
  index_t query_block = 64;
  index_t key_block = 64;
};

namespace detail {

inline void check_block_shape(const block_index_shape& of) {
  if (of.query_block < 1) fail_value("block_index_shape.query_block is ", of.query_block, ", expected 1 or more");
  if (of.key_block < 1) fail_value("block_index_shape.key_block is ", of.key_block, ", expected 1 or more");
  if (of.batches < 0 || of.heads < 0 || of.queries < 0 || of.keys < 0) {
    fail_value("block_index_shape has ", of.batches, " batch elements, ", of.heads, " heads, ", of.queries,
               " queries and ", of.keys, " keys: none is negative");
  }
}

/// Whether some pair of a block of queries with keys [first, last) is visible.
template <class Mask>
bool any_visible(const Mask& mask, const query_block& block, index_t first, index_t last) {
  for (index_t query = block.query_first; query < block.query_last; ++query) {
    for (index_t key = first; key < last; ++key) {
      if (mask_at(mask, index{block.batch, block.head_first, query, key, block.queries, block.keys})) return true;
    }
  }
  return false;
}

}  // namespace detail

/// The blocks in which a mask shows anything. What a block hides of itself stays with the mask: attend with both.
///
/// Cost       the mask's runs, and its pairs in blocks of `some` until one is visible. Allocates the index.
/// Errors     value_error if an extent is negative or a block size below 1; what the mask itself finds wrong.
template <mask_callable Mask>
block_index block_index_of(const Mask& mask, const block_index_shape& of) {
  detail::check_block_shape(of);
  mask_check(mask, of.batches, of.heads, of.queries, of.keys);
  const index_t rows = detail::blocks_of(of.queries, of.query_block);
  block_index made{of.query_block, of.key_block, tensor<index_t, 3>({of.batches, of.heads, rows + 1}, 0), {}};
  const index_t shift = of.keys - of.queries;
  for (index_t b = 0; b < of.batches; ++b) {
    for (index_t h = 0; h < of.heads; ++h) {
      made.offsets(b, h, 0) = static_cast<index_t>(made.columns.size());
      for (index_t i = 0; i < rows; ++i) {
        const query_block block{b,
                                h,
                                h + 1,
                                i * of.query_block + shift,
                                std::min((i + 1) * of.query_block, of.queries) + shift,
                                of.queries,
                                of.keys};
        const std::size_t list_first = made.columns.size();
        for (const span& run : spans(mask, block)) {
          for (index_t j = run.begin / of.key_block; j * of.key_block < run.end; ++j) {
            if (made.columns.size() > list_first && made.columns.back() == j) continue;
            const index_t first = std::max(run.begin, j * of.key_block);
            const index_t last = std::min(run.end, (j + 1) * of.key_block);
            if (run.visible == coverage::all || detail::any_visible(mask, block, first, last))
              made.columns.push_back(j);
          }
        }
        made.offsets(b, h, i + 1) = static_cast<index_t>(made.columns.size());
      }
    }
  }
  return made;
}

/// For each block of queries the k blocks of keys with the largest scores; ties by index. A score of -inf or NaN is never
/// chosen, so lists may be shorter.
///
/// Shapes     scores: (B or 1, H or 1, Tb, Sb); of.batches and of.heads are taken from it.
/// Errors     shape_error if scores has other blocks than `of`, value_error if k is negative or above Sb.
template <class E>
block_index block_index_of_scores(tensor_view<const E, 4> scores,  // (B | 1, H | 1, Tb, Sb)
                                  index_t k, const block_index_shape& of) {
  detail::check_block_shape(of);
  detail::check_input("scores", scores);
  const index_t rows = detail::blocks_of(of.queries, of.query_block),
                columns = detail::blocks_of(of.keys, of.key_block);
  detail::check_shape("scores", scores, {scores.extent(0), scores.extent(1), rows, columns}, "(B, H, Tb, Sb)");
  if (k < 0 || k > columns) detail::fail_value("k is ", k, ", scores has ", columns, " blocks of keys");
  block_index made{
      of.query_block, of.key_block, tensor<index_t, 3>({scores.extent(0), scores.extent(1), rows + 1}, 0), {}};
  scratch_frame frame;
  index_t* order = frame.take<index_t>(columns);
  for (index_t b = 0; b < scores.extent(0); ++b) {
    for (index_t h = 0; h < scores.extent(1); ++h) {
      made.offsets(b, h, 0) = static_cast<index_t>(made.columns.size());
      for (index_t i = 0; i < rows; ++i) {
        const E* row = scores.row(b, h, i);
        detail::select_largest(row, columns, k, false, order);
        for (index_t n = 0; n < k; ++n) {
          if (static_cast<accumulator_t<E>>(row[order[n]]) > -std::numeric_limits<accumulator_t<E>>::infinity())
            made.columns.push_back(order[n]);
        }
        std::sort(made.columns.begin() + made.offsets(b, h, i), made.columns.end());
        made.offsets(b, h, i + 1) = static_cast<index_t>(made.columns.size());
      }
    }
  }
  return made;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
