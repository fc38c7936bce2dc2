// SPDX-License-Identifier: Apache-2.0
/// @file A softmax attention after its arguments have been checked: what the tiles work on.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/primitives/position/rotary_inside.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <array>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Keys that are scored, weighed and multiplied into the output at a time: K, V and the scores of a chunk stay in L1.
inline constexpr index_t chunk_keys = 64;
inline constexpr index_t leaf_chunks = softmax_leaf_keys / chunk_keys;

/// Queries against keys, without what becomes of the weights.
template <class Compute, class Q, class Source, class Mask, class Score, class Rotary>
struct score_problem {
  using T = Compute;
  using query_type = Q;
  using source_type = Source;
  using stored_type = typename Source::stored_type;
  using mask_type = Mask;
  using score_type = Score;
  using rotary_type = Rotary;

  tensor_view<const Q, 4> q;  // (B, H, T, D)
  const Source& source;
  const Mask& mask;
  const Score& score;
  const Rotary& rotary;
  T scale;

  /// Whether the source says where the queries of a sequence lie (source.query_row): tiles of a grid are such sequences.
  static constexpr bool places_queries =
      requires(const Source& s, const sequence& seq) { s.query_row(seq, index_t{}); };

  /// The row of q and of the output that query i of a sequence is; consecutive unless the source places them.
  constexpr index_t row_of(const sequence& seq, index_t i) const {
    if constexpr (places_queries) {
      return source.query_row(seq, i);
    } else {
      return seq.query_row + i;
    }
  }
  constexpr index_t heads() const { return q.extent(1); }
  constexpr index_t channels() const { return q.extent(3); }
  constexpr index_t group() const { return source.heads() == 0 ? 1 : q.extent(1) / source.heads(); }
};

/// A run of keys inside one window of chunk_keys keys, from its first visible key to its last.
struct key_chunk {
  index_t key = 0;
  index_t count = 0;
  coverage visible = coverage::none;
};

/// The chunks of one leaf.
struct leaf_of_chunks {
  std::array<key_chunk, static_cast<std::size_t>(leaf_chunks)> chunks{};
  index_t count = 0;
};

/// The first leaf at or after the one of `key` that the block sees anything of; `none_left` if there is none.
inline constexpr index_t none_left = -1;

template <class Mask>
index_t next_leaf(const Mask& mask, const query_block& block, index_t key) {
  while (key < block.keys) {
    const span run = mask_run(mask, block, key);
    if (run.visible != coverage::none) return key / softmax_leaf_keys;
    key = run.end;
  }
  return none_left;
}

/// What the block sees of one leaf, window by window. A window with a gap or with two coverages is `some` from its first
/// visible key to its last.
template <class Mask>
leaf_of_chunks chunks_of(const Mask& mask, const query_block& block, index_t leaf) {
  leaf_of_chunks result;
  const index_t leaf_end = std::min((leaf + 1) * softmax_leaf_keys, block.keys);
  index_t key = leaf * softmax_leaf_keys;
  index_t window = -1;
  while (key < leaf_end) {
    const span run = mask_run(mask, block, key);
    const index_t end = std::min(run.end, leaf_end);
    if (run.visible == coverage::none) {
      key = end;
      continue;
    }
    while (key < end) {
      const index_t in_window = key / chunk_keys;
      const index_t stop = std::min(end, (in_window + 1) * chunk_keys);
      if (in_window != window) {
        window = in_window;
        result.chunks[static_cast<std::size_t>(result.count++)] = {key, stop - key, run.visible};
      } else {
        key_chunk& chunk = result.chunks[static_cast<std::size_t>(result.count - 1)];
        const bool seamless = chunk.key + chunk.count == key && chunk.visible == run.visible;
        chunk.count = stop - chunk.key;
        chunk.visible = seamless ? chunk.visible : coverage::some;
      }
      key = stop;
    }
  }
  return result;
}

/// Whether all elements of some rows are finite numbers.
template <class T>
TOKENMIX_NOINLINE bool all_finite(row_run<T> rows, index_t count, index_t width) {
  simd::batch<T> zeros(T(0));
  const simd::batch<T> zero(T(0));
  for (index_t i = 0; i < count; ++i) {
    const T* row = rows.data + i * rows.stride;
    index_t c = 0;
    for (; c + simd::lanes<T> <= width; c += simd::lanes<T>) zeros = simd::fma(simd::load(row + c), zero, zeros);
    if (c < width) zeros = simd::fma(simd::load_n(row + c, width - c), zero, zeros);
  }
  return simd::bits<T>(zeros == zero) == (1u << static_cast<unsigned>(simd::lanes<T>)) - 1u;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
