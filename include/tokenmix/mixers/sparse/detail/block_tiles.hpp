// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention of rows over the blocks that they chose: rows that chose the same block go through it as tiles.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/mixers/softmax/detail/problem.hpp>
#include <tokenmix/mixers/sparse/detail/chosen_blocks.hpp>
#include <tokenmix/mixers/sparse/detail/query_panels.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The states of a panel's rows. A row goes through its blocks in ascending order, a longer block in pieces of a leaf:
///
///     m' = max(m, scores of the piece),  l' = l exp(m - m') + sum of exp(score - m'),  acc' likewise with the values
///
/// each piece one fma chain over ascending keys. So the bits of a row depend on its own query and list alone, and which rows
/// share a tile is a matter of speed.
template <class Q, class E, class Score>
class block_tiles {
 public:
  using T = accumulator_t<Q>;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t most_width = simd::max_tile_vectors * L;
  static_assert(!reads_query<Score>,
                "lanes hold queries from anywhere: a score that reads the query has no tile to prepare");

  /// Takes the keys of sequence panel.seq that stand up to each row.
  block_tiles(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
              const Score& score, double scale, const query_panel& panel, scratch_frame& frame)
      : q_(q), source_{k, v, {}, {}}, score_(score), scale_(static_cast<T>(scale)), panel_(panel) {
    const index_t rows = panel.rows(), D = q.extent(3), lanes_of_rows = padded(rows);
    stride_ = padded(v.extent(3));
    m_ = frame.take<T>(lanes_of_rows);
    l_ = frame.take<T>(lanes_of_rows);
    acc_ = frame.take<T>(rows * stride_);
    std::fill_n(m_, lanes_of_rows, minus_infinity<T>);
    std::fill_n(l_, lanes_of_rows, T(0));
    std::fill_n(acc_, rows * stride_, T(0));
    rows_ = frame.take<T>(most_width * std::max(D, stride_));
    queries_ = frame.take<T>(D * most_width);
    scores_ = frame.take<T>(softmax_leaf_keys * most_width);
    visible_ = frame.take<std::uint32_t>(softmax_leaf_keys * simd::max_tile_vectors);
    tile_acc_ = frame.take<T>(v.extent(3) * most_width);
    key_room_ = frame.take<T>(std::min(panel.seq.keys, softmax_leaf_keys) * D);
    value_room_ = frame.take<T>(std::min(panel.seq.keys, softmax_leaf_keys) * v.extent(3));
  }

  void attend(const chosen_blocks& chosen, index_t block) {
    scratch_frame frame;
    const index_t keys = panel_.seq.keys, blocks = blocks_of(keys, block);
    const rows_of_blocks rows(chosen, blocks, frame);
    for (index_t j = 0; j < blocks; ++j) {
      const index_t n = rows.count(j);
      if (n == 0) continue;
      const index_t end = std::min((j + 1) * block, keys);
      const index_t vectors = padded(n) / L, tiles = (vectors + simd::max_tile_vectors - 1) / simd::max_tile_vectors;
      for (index_t key = j * block; key < end; key += softmax_leaf_keys) {
        load_piece(key, std::min(softmax_leaf_keys, end - key));
        for (index_t tile = 0; tile < tiles; ++tile) {
          const index_t first = tile * vectors / tiles * L, last = std::min(n, (tile + 1) * vectors / tiles * L);
          for (index_t i = first; i < last; ++i) row_[i - first] = rows.row(j, i);
          attend_tile(last - first);
        }
      }
    }
  }

  /// Divides and writes every row, the first query of the first head to `row` of `head`; see attention_output.
  template <class Result>
  void write(const Result& result, index_t batch, index_t head, index_t row) {
    result.template write_rows<true>(
        batch, panel_.rows(), padded(panel_.rows()), source_.value_width(), stride_, m_, l_, acc_,
        [&](index_t r) { return head + r % panel_.group; }, [&](index_t r) { return row + r / panel_.group; });
  }

 private:
  static constexpr index_t padded(index_t n) { return (n + L - 1) / L * L; }

  void load_piece(index_t key, index_t count) {
    const sequence& seq = panel_.seq;
    const index_t head = panel_.key_head;
    key_ = key;
    k_ = rows_of([&](index_t p) { return source_.keys(seq, head, p); }, key, count, source_.key_width(), key_room_);
    v_ = rows_of([&](index_t p) { return source_.values(seq, head, p); }, key, count, source_.value_width(),
                 value_room_);
  }

  /// The rows row_[0 .. count) against the piece.
  void attend_tile(index_t count) {
    const index_t last = panel_.position_of(row_[count - 1]);
    const index_t keys = std::min(k_.count, last + 1 - key_), width = padded(count), channels = source_.value_width();
    if (keys <= 0) return;
    load_queries(count, width);
    alignas(64) T m[static_cast<std::size_t>(most_width)];
    alignas(64) T l[static_cast<std::size_t>(most_width)];
    alignas(64) T factor[static_cast<std::size_t>(most_width)];
    std::fill_n(m, width, minus_infinity<T>);
    std::fill_n(l, width, T(0));
    for (index_t i = 0; i < count; ++i) m[i] = m_[row_[i]], l[i] = l_[row_[i]];
    std::copy_n(m, width, factor);

    product<T>({k_.data, k_.stride, 1}, keys, queries_, source_.key_width(), scores_, width, false);
    const bool hides = !std::is_same_v<Score, plain_score> || panel_.position_of(row_[0]) < key_ + keys - 1;
    if (hides) modify(keys, count, width);
    raise_max(scores_, keys, width, m);
    for (index_t i = 0; i < width; i += L) {
      const simd::batch<T> f = simd::exp_nonpositive(simd::load(factor + i) - finite_reference<T>(simd::load(m + i)));
      simd::store(factor + i, f);
      simd::store(l + i, simd::load(l + i) * f);
    }
    exponentials(scores_, keys, width, m, l);
    if (hides && !all_finite(v_, keys, channels)) {
      std::fill_n(tile_acc_, channels * width, T(0));
      product_of_visible(v_.data, v_.stride, channels, scores_, visible_, keys, tile_acc_, width);
    } else {
      for (index_t key = 0; key < keys; key += chunk_keys) {  // a chunk's weights stay in L1
        product<T>({v_.data + key * v_.stride, 1, v_.stride}, channels, scores_ + key * width,
                   std::min(chunk_keys, keys - key), tile_acc_, width, key > 0);
      }
    }
    for (index_t i = 0; i < count; ++i) m_[row_[i]] = m[i], l_[row_[i]] = l[i];
    simd::transpose_out(tile_acc_, width, count, channels, rows_, stride_);
    for (index_t i = 0; i < count; ++i) {
      T* to = acc_ + row_[i] * stride_;
      const T* from = rows_ + i * stride_;
      const simd::batch<T> f(factor[i]);
      for (index_t c = 0; c < stride_; c += L) {
        simd::store(to + c, simd::fma(simd::load(to + c), f, simd::load(from + c)));
      }
    }
  }

  void load_queries(index_t count, index_t width) {
    const index_t D = source_.key_width();
    for (index_t i = 0; i < count; ++i) {
      const index_t r = row_[i];
      simd::convert_row(q_.row(panel_.seq.batch, panel_.head_of(r), panel_.query_row_of(r)), rows_ + i * D, D);
    }
    simd::transpose_in(rows_, D, count, D, queries_, width, scale_);
  }

  /// Scores go through the modifier; -infinity stands where a pair is not visible.
  void modify(index_t keys, index_t count, index_t width) {
    const index_t vectors = width / L;
    const simd::batch<T> unseen(minus_infinity<T>);
    for (index_t v = 0; v < vectors; ++v) {
      const auto row_of = [&](index_t lane) { return row_[std::min(v * L + lane, count - 1)]; };
      basic_index<simd::positions<T>, simd::positions<T>, index_t> where{
          panel_.seq.number,
          simd::positions<T>::generate([&](index_t i) { return panel_.head_of(row_of(i)); }),
          simd::positions<T>::generate([&](index_t i) { return panel_.position_of(row_of(i)); }),
          key_,
          panel_.seq.queries,
          panel_.seq.keys};
      for (index_t j = 0; j < keys; ++j, ++where.key) {
        T* at = scores_ + j * width + v * L;
        const simd::mask<T> seen = (where.query >= where.key).value;
        simd::batch<T> score = simd::load(at);
        if constexpr (!std::is_same_v<Score, plain_score>) score = score_at(score_, score, where);
        score = simd::select(seen, score, unseen);
        simd::store(at, score);
        visible_[j * vectors + v] = simd::bits<T>(!(score == unseen));
      }
    }
  }

  const tensor_view<const Q, 4>& q_;  // (B, H, T, D)
  key_value_views<E> source_;
  const Score& score_;
  T scale_;
  query_panel panel_;
  index_t stride_ = 0;
  T* m_;    // (rows)
  T* l_;    // (rows)
  T* acc_;  // (rows, stride)

  index_t row_[static_cast<std::size_t>(most_width)];  // of the tile
  T* rows_;                                            // (width, D) and (width, stride): queries, then what is added
  T* queries_;                                         // (D, width): scale * q
  T* scores_;                                          // (256, width)
  std::uint32_t* visible_;                             // (256, width / L)
  T* tile_acc_;                                        // (Dv, width)
  T* key_room_;                                        // (256, D)
  T* value_room_;                                      // (256, Dv)
  index_t key_ = 0;                                    // the first of the piece
  row_run<T> k_;
  row_run<T> v_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
