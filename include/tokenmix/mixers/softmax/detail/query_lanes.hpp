// SPDX-License-Identifier: Apache-2.0
/// @file Tiles with queries in the lanes: S^T and O^T, with K and V read as they lie and no horizontal reduction.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/mixers/softmax/detail/problem.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Up to max_tile_vectors registers of queries of one head, and what the tile remembers between leaves.
template <class T>
struct query_tile {
  query_block block;
  index_t first_row = 0;  ///< of the sequence
  index_t count = 0;      ///< queries; the lanes beyond hold zeros
  index_t width = 0;      ///< lanes
  index_t leaf = none_left;
  T* queries = nullptr;  // (D, width): scale * q
  leaf_tree<T> tree;
};

/// The scores and weights of a tile against a leaf, one query per lane.
///
/// A leaf goes through in three steps: `score` computes the scores of its visible chunks, then the caller's weights, then
/// what the caller makes of them. Scratch: (D + Dv) chunk_keys for decoded rows, 256 width for scores.
template <class Problem>
class query_lanes {
 public:
  using T = typename Problem::T;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t most_width = simd::max_tile_vectors * L;

  query_lanes(const Problem& problem, scratch_frame& frame)
      : problem_(problem),
        scores_(frame.take<T>(softmax_leaf_keys * most_width)),
        visible_(frame.take<std::uint32_t>(softmax_leaf_keys * simd::max_tile_vectors)),
        key_room_(frame.take<T>(chunk_keys * problem.channels())),
        value_room_(frame.take<T>(chunk_keys * problem.source.value_width())) {}

  /// Tiles are of this head of this sequence from now on.
  void go_to(const sequence& seq, index_t head) {
    seq_ = seq;
    head_ = head;
    key_head_ = head / problem_.group();
  }

  /// A tile of `count` queries from a row of the sequence on, at the first leaf that it sees anything of.
  query_tile<T> tile(index_t first_row, index_t count, scratch_frame& frame) const {
    query_tile<T> t;
    const index_t first = seq_.first_position() + first_row;
    t.block = {seq_.number, head_, head_ + 1, first, first + count, seq_.queries, seq_.keys};
    t.first_row = first_row;
    t.count = count;
    t.width = (count + L - 1) / L * L;
    t.queries = frame.take<T>(problem_.channels() * t.width);
    if (seq_.keys > 0) load_queries(t);
    rewind(t);
    return t;
  }

  void rewind(query_tile<T>& t) const { t.leaf = next_leaf(problem_.mask, t.block, 0); }
  void advance(query_tile<T>& t) const { t.leaf = next_leaf(problem_.mask, t.block, (t.leaf + 1) * softmax_leaf_keys); }

  /// Computes the scores of the tile's visible pairs in its leaf; -infinity stands where a pair is not visible.
  void score(const query_tile<T>& t) {
    leaf_ = chunks_of(problem_.mask, t.block, t.leaf);
    for (index_t i = 0; i < leaf_.count; ++i) {
      key_chunk& chunk = leaf_.chunks[static_cast<std::size_t>(i)];
      if (chunk.visible == coverage::some) look(t, i, chunk);
      if (chunk.count > 0) score_chunk(t, i, chunk);
    }
  }

  /// use(chunk, scores, visible) for every chunk of the leaf that was scored: scores (count, width), and where a chunk is seen in part
  /// the bits of what is visible, (count, width / L), else null.
  template <class Use>
  void each_scored(const query_tile<T>& t, Use&& use) const {
    each_chunk([&](index_t i, const key_chunk& chunk) {
      use(chunk, scores_of(t, i), chunk.visible == coverage::some ? visible_of(t, i) : nullptr);
    });
  }

  /// m (width) = the largest score of every query in the leaf, -infinity where it sees nothing.
  void largest(const query_tile<T>& t, T* m) const {
    std::fill(m, m + t.width, minus_infinity<T>);
    each_chunk([&](index_t i, const key_chunk& chunk) { raise_max(scores_of(t, i), chunk.count, t.width, m); });
  }

  /// Scores become weights, chunk by chunk, by weigh(scores, keys), and at once go to use(chunk, weights).
  template <class Weigh, class Use>
  void weigh(const query_tile<T>& t, Weigh&& weigh, Use&& use) {
    each_chunk([&](index_t i, const key_chunk& chunk) {
      weigh(scores_of(t, i), chunk.count);
      use(i, chunk, scores_of(t, i));
    });
  }

  /// acc (Dv, width) = or += V^T weights.
  void add_values(const query_tile<T>& t, index_t i, const key_chunk& chunk, const T* weights, T* acc,
                  bool accumulate) {
    const index_t channels = problem_.source.value_width();
    const row_run<T> v = rows_of([&](index_t p) { return problem_.source.values(seq_, key_head_, p); }, chunk.key,
                                 chunk.count, channels, value_room_);
    if (chunk.visible == coverage::some && !all_finite(v, chunk.count, channels)) {
      if (!accumulate) std::fill(acc, acc + channels * t.width, T(0));
      product_of_visible(v.data, v.stride, channels, weights, visible_of(t, i), chunk.count, acc, t.width);
      return;
    }
    product<T>({v.data, 1, v.stride}, channels, weights, chunk.count, acc, t.width, accumulate);
  }

  /// Applies f(register, index, visible) -> register to the weights of a chunk; what is not visible stays as it is.
  template <class F>
  void each_register(const query_tile<T>& t, index_t i, const key_chunk& chunk, T* values, F&& f) const {
    const index_t vectors = t.width / L;
    const std::uint32_t* visible = visible_of(t, i);
    for (index_t v = 0; v < vectors; ++v) {
      query_lanes_index<T> where = index_at(t, v, chunk.key);
      for (index_t j = 0; j < chunk.count; ++j) {
        T* value = values + j * t.width + v * L;
        where.key = chunk.key + j;
        const simd::mask<T> seen =
            chunk.visible == coverage::some ? simd::from_bits<T>(visible[j * vectors + v]) : simd::mask<T>(true);
        simd::store(value, f(simd::load(value), where, seen));
      }
    }
  }

  /// Whether the scored leaf has no visible pair.
  bool sees_nothing() const {
    for (index_t i = 0; i < leaf_.count; ++i) {
      if (leaf_.chunks[static_cast<std::size_t>(i)].count > 0) return false;
    }
    return true;
  }

  index_t value_channels() const { return problem_.source.value_width(); }
  index_t last_leaf() const { return std::max<index_t>(seq_.keys - 1, 0) / softmax_leaf_keys; }
  const sequence& seq() const { return seq_; }
  index_t head() const { return head_; }

 private:
  T* scores_of(const query_tile<T>& t, index_t i) const { return scores_ + i * chunk_keys * t.width; }
  std::uint32_t* visible_of(const query_tile<T>& t, index_t i) const {
    return visible_ + i * chunk_keys * (t.width / L);
  }

  template <class F>
  void each_chunk(F&& f) const {
    for (index_t i = 0; i < leaf_.count; ++i) {
      const key_chunk& chunk = leaf_.chunks[static_cast<std::size_t>(i)];
      if (chunk.count > 0) f(i, chunk);
    }
  }

  query_lanes_index<T> index_at(const query_tile<T>& t, index_t v, index_t key) const {
    return {seq_.number, head_,        simd::positions<T>::consecutive(t.block.query_first + v * L),
            key,         seq_.queries, seq_.keys};
  }

  void load_queries(const query_tile<T>& t) const {
    const index_t D = problem_.channels();
    constexpr bool rotates = !std::is_same_v<typename Problem::rotary_type, no_rotary>;
    if constexpr (!rotates && !Problem::places_queries) {
      simd::transpose_in(problem_.q.row(seq_.batch, head_, problem_.row_of(seq_, t.first_row)), problem_.q.stride(2),
                         t.count, D, t.queries, t.width, problem_.scale);
    } else {
      scratch_frame frame;
      T* row = frame.template take<T>(D);
      T* rows = frame.template take<T>(t.count * D);
      for (index_t i = 0; i < t.count; ++i) {
        const auto* const from = problem_.q.row(seq_.batch, head_, problem_.row_of(seq_, t.first_row + i));
        if constexpr (rotates) {
          simd::convert_row(from, row, D);
          problem_.rotary.rotate(row, rows + i * D, D, t.block.query_first + i);
        } else {
          simd::convert_row(from, rows + i * D, D);
        }
      }
      simd::transpose_in(rows, D, t.count, D, t.queries, t.width, problem_.scale);
    }
  }

  // Asks the mask about every pair of a chunk and narrows the chunk to the keys that some query sees.
  void look(const query_tile<T>& t, index_t i, key_chunk& chunk) const {
    const index_t vectors = t.width / L;
    std::uint32_t valid[static_cast<std::size_t>(simd::max_tile_vectors)];
    for (index_t v = 0; v < vectors; ++v) {
      valid[v] = simd::bits<T>(simd::first_lanes<T>(std::min(L, t.count - v * L)));
    }
    std::uint32_t* visible = visible_of(t, i);
    index_t kept = 0;    // rows of `visible` written, from the first visible key on
    index_t end = 0;     // one past the last visible key
    index_t first = -1;  // the first visible key
    query_lanes_index<T> where[static_cast<std::size_t>(simd::max_tile_vectors)];
    for (index_t v = 0; v < vectors; ++v) where[v] = index_at(t, v, chunk.key);
    for (index_t j = 0; j < chunk.count; ++j) {
      std::uint32_t any = 0;
      for (index_t v = 0; v < vectors; ++v) {
        where[v].key = chunk.key + j;
        const auto seen = mask_at(problem_.mask, where[v]);
        std::uint32_t word;
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(seen)>, simd::lane_mask<T>>) {
          word = simd::bits<T>(seen.value);
        } else {
          word = static_cast<bool>(seen) ? ~0u : 0u;
        }
        visible[kept * vectors + v] = word & valid[v];
        any |= word & valid[v];
      }
      if (any != 0 && first < 0) first = j;
      if (any != 0) end = j + 1;
      if (first >= 0) ++kept;
    }
    if (first < 0) {
      chunk.count = 0;
      return;
    }
    chunk.key += first;
    chunk.count = end - first;
  }

  void score_chunk(const query_tile<T>& t, index_t i, key_chunk& chunk) {
    const index_t D = problem_.channels();
    const auto run_at = [&](index_t p) { return problem_.source.keys(seq_, key_head_, p); };
    T* scores = scores_of(t, i);
    row_run<T> k;
    if constexpr (std::is_same_v<typename Problem::rotary_type, no_rotary>) {
      k = rows_of(run_at, chunk.key, chunk.count, D, key_room_);
    } else {
      scratch_frame frame;
      const row_run<T> plain = rows_of(run_at, chunk.key, chunk.count, D, frame.template take<T>(chunk.count * D));
      for (index_t j = 0; j < chunk.count; ++j) {
        problem_.rotary.rotate(plain.data + j * plain.stride, key_room_ + j * D, D, chunk.key + j);
      }
      k = {key_room_, D, chunk.count};
    }
    product<T>({k.data, k.stride, 1}, chunk.count, t.queries, D, scores, t.width, false);
    modify(t, i, chunk, scores);
  }

  // Masks what is not visible, after the modifier had its say. A modifier may hide pairs too, by -infinity: what it has seen
  // counts as `some`.
  void modify(const query_tile<T>& t, index_t i, key_chunk& chunk, T* scores) {
    const simd::batch<T> unseen(minus_infinity<T>);
    if constexpr (std::is_same_v<typename Problem::score_type, plain_score>) {
      if (chunk.visible == coverage::all) return;
      each_register(t, i, chunk, scores,
                    [&](const simd::batch<T>& s, const query_lanes_index<T>&, const simd::mask<T>& seen) {
                      return simd::select(seen, s, unseen);
                    });
    } else {
      scratch_frame frame;
      const auto modifier =
          score_prepare(problem_.score,
                        score_tile<T>{seq_.number, head_, t.block.query_first, t.count, chunk.key, chunk.count,
                                      seq_.queries, seq_.keys, problem_.channels(), t.width, t.queries, problem_.scale},
                        frame);
      const index_t vectors = t.width / L;
      std::uint32_t* visible = visible_of(t, i);
      each_register(t, i, chunk, scores,
                    [&](const simd::batch<T>& s, const query_lanes_index<T>& where, const simd::mask<T>& seen) {
                      const simd::batch<T> modified = simd::select(seen, score_at(modifier, s, where), unseen);
                      const index_t v = (where.query.base - t.block.query_first) / L;
                      visible[(where.key - chunk.key) * vectors + v] = simd::bits<T>(!(modified == unseen));
                      return modified;
                    });
      chunk.visible = coverage::some;
    }
  }

  const Problem& problem_;
  sequence seq_;
  index_t head_ = 0;
  index_t key_head_ = 0;
  T* scores_;               // (4 chunk_keys, width)
  std::uint32_t* visible_;  // (4 chunk_keys, width / L)
  T* key_room_;             // (chunk_keys, D)
  T* value_room_;           // (chunk_keys, Dv)
  leaf_of_chunks leaf_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
