// SPDX-License-Identifier: Apache-2.0
/// @file Tiles with queries in the lanes: S^T and O^T, with K and V read as they lie and no horizontal reduction.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/mixers/softmax/detail/problem.hpp>
#include <tokenmix/mixers/softmax/detail/strips.hpp>
#include <tokenmix/simd/finite.hpp>
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
///
/// What a border of the mask leaves out of a chunk's strips has no scores and no weights, whatever stands in their place.
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
        key_room_(frame.take<T>(reads_in_place && !rotates ? 0 : chunk_keys * problem.channels())),
        value_room_(frame.take<T>(reads_in_place ? 0 : chunk_keys * problem.source.value_width())) {}

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

  /// Computes the scores of the tile's visible pairs in its leaf.
  void score(const query_tile<T>& t) {
    leaf_ = chunks_of(problem_.mask, t.block, t.leaf);
    for (index_t i = 0; i < leaf_.count; ++i) {
      key_chunk& chunk = leaf_.chunks[static_cast<std::size_t>(i)];
      strips& parts = strips_[static_cast<std::size_t>(i)];
      if (chunk.visible == coverage::some) look(t, i, chunk);
      if (chunk.count == 0) continue;
      parts = chunk.visible == coverage::some ? strips::of(visible_of(t, i), t.width / L, chunk.count)
                                              : strips::whole(t.width / L, chunk.count);
      score_chunk(t, i, chunk);
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

  /// m (width) = the largest score of every query in the leaf, -infinity where it sees nothing. Scores of pairs in a strip that
  /// are not visible become -infinity.
  void largest(const query_tile<T>& t, T* m) const {
    std::fill(m, m + t.width, minus_infinity<T>);
    each_strip([&](index_t i, const key_chunk& chunk, const strip& part) {
      T* const scores = scores_of(t, i) + offset(t, part);
      T* const to = m + part.vector * L;
      if (plain && chunk.visible == coverage::some) {
        const index_t words = t.width / L;
        raise_max(scores, part.keys, part.vectors, t.width, visible_of(t, i) + part.key * words + part.vector, words,
                  to);
      } else {
        raise_max(scores, part.keys, part.vectors, t.width, all_visible{}, 0, to);
      }
    });
  }

  /// Scores become weights, chunk by chunk, by weigh(strip, scores of the strip), and at once go to use(chunk, weights).
  template <class Weigh, class Use>
  void weigh(const query_tile<T>& t, Weigh&& weigh, Use&& use) {
    each_chunk([&](index_t i, const key_chunk& chunk) {
      for (const strip& part : strips_[static_cast<std::size_t>(i)]) weigh(part, scores_of(t, i) + offset(t, part));
      use(i, chunk, scores_of(t, i));
    });
  }

  /// acc (Dv, width) = or += V^T weights, over all pairs of the strips: a value that is not finite also reaches those that do
  /// not see it. mend() puts that right.
  void add_values(const query_tile<T>& t, index_t i, const key_chunk& chunk, const T* weights, T* acc,
                  bool accumulate) {
    const index_t channels = problem_.source.value_width();
    const T* table[static_cast<std::size_t>(chunk_keys)];
    const placed_rows<T> v = values_of(chunk, table);
    const strips& parts = strips_[static_cast<std::size_t>(i)];
    if (!accumulate && !parts.whole()) {
      std::fill(acc, acc + channels * t.width, T(0));
      accumulate = true;
    }
    for (const strip& part : parts) {
      const T* const w = weights + offset(t, part);
      T* const to = acc + part.vector * L;
      if (v.table != nullptr) {
        product<T>(simd::tile_step_table<T>{v.table + part.key}, channels, w, part.keys, to, part.vectors, t.width,
                   accumulate);
      } else {
        product<T>(simd::tile_rows_operand<T>{v[part.key], 1, v.run.stride}, channels, w, part.keys, to, part.vectors,
                   t.width, accumulate);
      }
    }
  }

  /// After the values of a whole leaf have been added: if an element of acc is not finite and some pairs of the leaf are not
  /// visible, all is added up again from the visible ones alone. What is not finite stays so, hence one look at the end is enough;
  /// 0 times a finite value changes nothing, so that both ways have the same bits.
  void mend(const query_tile<T>& t, T* acc) {
    const index_t channels = problem_.source.value_width();
    bool hides = false;
    each_chunk([&](index_t, const key_chunk& chunk) { hides = hides || chunk.visible == coverage::some; });
    if (!hides || simd::all_finite(acc, channels * t.width)) return;
    std::fill(acc, acc + channels * t.width, T(0));
    each_chunk([&](index_t i, const key_chunk& chunk) {
      if (chunk.visible != coverage::some) {
        add_values(t, i, chunk, scores_of(t, i), acc, true);
        return;
      }
      const T* table[static_cast<std::size_t>(chunk_keys)];
      product_of_visible(values_of(chunk, table), channels, scores_of(t, i), visible_of(t, i), chunk.count, acc,
                         t.width);
    });
  }

  /// Writes 0 where a chunk has no weights.
  void clear_rest(const query_tile<T>& t, index_t i, const key_chunk& chunk, T* values) const {
    if (strips_[static_cast<std::size_t>(i)].whole()) return;
    const index_t vectors = t.width / L;
    const simd::batch<T> zero(T(0));
    for (index_t n = 0; n < chunk.count * vectors; ++n)
      if (visible_of(t, i)[n] == 0) simd::store(values + n * L, zero);
  }

  /// Applies f(register, index, visible) -> register to the scores or weights of a chunk.
  template <class F>
  void each_register(const query_tile<T>& t, index_t i, const key_chunk& chunk, T* values, F&& f) const {
    const index_t vectors = t.width / L;
    const std::uint32_t* visible = visible_of(t, i);
    for (const strip& part : strips_[static_cast<std::size_t>(i)]) {
      for (index_t v = part.vector; v < part.vector + part.vectors; ++v) {
        query_lanes_index<T> where = index_at(t, v, chunk.key);
        for (index_t j = part.key; j < part.key + part.keys; ++j) {
          T* value = values + j * t.width + v * L;
          where.key = chunk.key + j;
          const simd::mask<T> seen =
              chunk.visible == coverage::some ? simd::from_bits<T>(visible[j * vectors + v]) : simd::mask<T>(true);
          simd::store(value, f(simd::load(value), where, seen));
        }
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
  static constexpr bool rotates = !std::is_same_v<typename Problem::rotary_type, no_rotary>;
  static constexpr bool reads_in_place = std::is_same_v<typename Problem::stored_type, T>;
  static constexpr bool plain = std::is_same_v<typename Problem::score_type, plain_score>;

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

  template <class F>
  void each_strip(F&& f) const {
    each_chunk([&](index_t i, const key_chunk& chunk) {
      for (const strip& part : strips_[static_cast<std::size_t>(i)]) f(i, chunk, part);
    });
  }
  static index_t offset(const query_tile<T>& t, const strip& part) { return part.key * t.width + part.vector * L; }

  placed_rows<T> values_of(const key_chunk& chunk, const T** table) const {
    return placed_rows_of([&](index_t p) { return problem_.source.values(seq_, key_head_, p); }, chunk.key, chunk.count,
                          problem_.source.value_width(), value_room_, table);
  }

  query_lanes_index<T> index_at(const query_tile<T>& t, index_t v, index_t key) const {
    return {seq_.number, head_,        simd::positions<T>::consecutive(t.block.query_first + v * L),
            key,         seq_.queries, seq_.keys};
  }

  void load_queries(const query_tile<T>& t) const {
    const index_t D = problem_.channels();
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
  TOKENMIX_NOINLINE void look(const query_tile<T>& t, index_t i, key_chunk& chunk) const {
    static_assert(most_width <= 64);
    std::uint64_t words[static_cast<std::size_t>(chunk_keys)];
    ask(t, chunk, words);
    const std::uint64_t valid = first_queries(t.count);
    index_t first = 0, end = chunk.count;
    while (first < end && (words[first] & valid) == 0) ++first;
    while (end > first && (words[end - 1] & valid) == 0) --end;
    chunk.key += first;
    chunk.count = end - first;

    const index_t vectors = t.width / L;
    constexpr std::uint64_t lanes = (std::uint64_t{1} << static_cast<unsigned>(L)) - 1;
    std::uint32_t* const visible = visible_of(t, i);
    std::uint64_t every = valid;  // the queries that see all keys
    for (index_t j = 0; j < chunk.count; ++j) every &= words[first + j];
    if (every == valid) {
      chunk.visible = coverage::all;
      return;
    }
    for (index_t v = 0; v < vectors; ++v) {
      const auto shift = static_cast<unsigned>(v * L);
      for (index_t j = 0; j < chunk.count; ++j)
        visible[j * vectors + v] = static_cast<std::uint32_t>((words[first + j] & valid) >> shift & lanes);
    }
  }

  // words[j]: bit n says whether query n of the tile sees key j of a chunk.
  void ask(const query_tile<T>& t, const key_chunk& chunk, std::uint64_t* words) const {
    if constexpr (has_words<typename Problem::mask_type>) {
      for (index_t j = 0; j < chunk.count; ++j) words[j] = problem_.mask.seen_by(t.block, chunk.key + j);
    } else {
      std::fill(words, words + chunk.count, std::uint64_t{0});
      for (index_t v = 0; v < t.width / L; ++v) {
        query_lanes_index<T> where = index_at(t, v, chunk.key);
        for (index_t j = 0; j < chunk.count; ++j) {
          where.key = chunk.key + j;
          const auto seen = mask_at(problem_.mask, where);
          if constexpr (is_lane_mask<std::remove_cvref_t<decltype(seen)>>) {
            words[j] |= std::uint64_t{simd::bits<T>(seen.value)} << static_cast<unsigned>(v * L);
          } else {
            if (seen) words[j] = ~std::uint64_t{0};
          }
        }
      }
    }
  }

  void score_chunk(const query_tile<T>& t, index_t i, key_chunk& chunk) {
    const index_t D = problem_.channels();
    const auto run_at = [&](index_t p) { return problem_.source.keys(seq_, key_head_, p); };
    T* const scores = scores_of(t, i);
    const T* table[static_cast<std::size_t>(chunk_keys)];
    placed_rows<T> k;
    if constexpr (!rotates) {
      k = placed_rows_of(run_at, chunk.key, chunk.count, D, key_room_, table);
    } else {
      scratch_frame frame;
      T* const room = reads_in_place ? nullptr : frame.template take<T>(chunk.count * D);
      const placed_rows<T> unrotated = placed_rows_of(run_at, chunk.key, chunk.count, D, room, table);
      for (index_t j = 0; j < chunk.count; ++j)
        problem_.rotary.rotate(unrotated[j], key_room_ + j * D, D, chunk.key + j);
      k = {{key_room_, D, chunk.count}, nullptr};
    }
    for (const strip& part : strips_[static_cast<std::size_t>(i)]) {
      const T* const q = t.queries + part.vector * L;
      T* const to = scores + offset(t, part);
      if (k.table != nullptr) {
        product<T>(simd::tile_row_table<T>{k.table + part.key}, part.keys, q, D, to, part.vectors, t.width, false);
      } else {
        product<T>(simd::tile_rows_operand<T>{k[part.key], k.run.stride, 1}, part.keys, q, D, to, part.vectors, t.width,
                   false);
      }
    }
    if constexpr (!plain) modify(t, i, chunk, scores);
  }

  // The modifier's say, after which what is not visible is masked. A modifier may hide pairs too, by -infinity: what it has
  // seen counts as `some`.
  void modify(const query_tile<T>& t, index_t i, key_chunk& chunk, T* scores) {
    const simd::batch<T> unseen(minus_infinity<T>);
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

  const Problem& problem_;
  sequence seq_;
  index_t head_ = 0;
  index_t key_head_ = 0;
  T* scores_;               // (4 chunk_keys, width)
  std::uint32_t* visible_;  // (4 chunk_keys, width / L)
  T* key_room_;             // (chunk_keys, D)
  T* value_room_;           // (chunk_keys, Dv)
  leaf_of_chunks leaf_;
  std::array<strips, static_cast<std::size_t>(leaf_chunks)> strips_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
