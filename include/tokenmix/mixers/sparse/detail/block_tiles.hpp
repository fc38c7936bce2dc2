// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention of rows over the blocks that they chose: rows that chose the same block go through it as tiles.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/mixers/softmax/detail/problem.hpp>
#include <tokenmix/mixers/softmax/detail/row_kernels.hpp>
#include <tokenmix/mixers/sparse/detail/chosen_blocks.hpp>
#include <tokenmix/mixers/sparse/detail/query_panels.hpp>
#include <tokenmix/mixers/sparse/detail/row_scores.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The states of a panel's rows. A row goes through its blocks in ascending order, a longer block in pieces of a leaf:
///
///     m' = max(m, scores of the piece),  l' = l exp(m - m') + sum of exp(score - m'),  acc' likewise with the values
///
/// each piece one fma chain over ascending keys. So the bits of a row depend on its own query and list alone, and which rows
/// share a tile, and whether queries or keys stand in the lanes, is a matter of speed.
template <class Q, class E, class Score>
class block_tiles {
 public:
  using T = accumulator_t<Q>;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t most_width = simd::max_tile_vectors * L;
  static constexpr index_t most_few = L / 2;
  static constexpr index_t row_width = padded_scores<T>(softmax_leaf_keys);  // of few rows' scores
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
      // A few rows that would leave most lanes of a register idle go with keys in the lanes.
      const index_t few = n % L <= most_few ? n % L : 0, many = n - few;
      const index_t vectors = padded(many) / L, tiles = (vectors + simd::max_tile_vectors - 1) / simd::max_tile_vectors;
      for (index_t key = j * block; key < end; key += softmax_leaf_keys) {
        load_piece(key, std::min(softmax_leaf_keys, end - key));
        for (index_t tile = 0; tile < tiles; ++tile) {
          const index_t first = tile * vectors / tiles * L, last = std::min(many, (tile + 1) * vectors / tiles * L);
          if (take_rows(rows, j, first, last)) attend_tile(last - first);
        }
        if (few > 0 && take_rows(rows, j, many, n)) attend_few(few);
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

  /// Rows [first, last) of those of a block are row_ from now on, with what they see of the piece; false if that is nothing.
  bool take_rows(const rows_of_blocks& rows, index_t block, index_t first, index_t last) {
    for (index_t i = first; i < last; ++i) row_[i - first] = rows.row(block, i);
    keys_ = std::min(k_.count, panel_.position_of(row_[last - first - 1]) + 1 - key_);
    hides_ = !std::is_same_v<Score, plain_score> || panel_.position_of(row_[0]) < key_ + keys_ - 1;
    if (keys_ <= 0) return false;
    const index_t D = source_.key_width();
    for (index_t i = 0; i < last - first; ++i) {
      const index_t r = row_[i];
      simd::convert_row(q_.row(panel_.seq.batch, panel_.head_of(r), panel_.query_row_of(r)), rows_ + i * D, D);
    }
    return true;
  }

  /// The sums of the rows of a tile, one per lane; lanes beyond hold an empty state.
  struct tile_sums {
    alignas(64) T m[static_cast<std::size_t>(most_width)];
    alignas(64) T l[static_cast<std::size_t>(most_width)];
    alignas(64) T factor[static_cast<std::size_t>(most_width)];  // of what was summed under an earlier maximum
  };
  void load_sums(index_t count, index_t width, tile_sums& sums) const {
    std::fill_n(sums.m, width, minus_infinity<T>);
    std::fill_n(sums.l, width, T(0));
    for (index_t i = 0; i < count; ++i) sums.m[i] = m_[row_[i]], sums.l[i] = l_[row_[i]];
    std::copy_n(sums.m, width, sums.factor);
  }
  /// After the maxima have been raised.
  static void rescale_sums(index_t width, tile_sums& sums) {
    for (index_t i = 0; i < width; i += L) {
      const simd::batch<T> reference = finite_reference<T>(simd::load(sums.m + i));
      const simd::batch<T> f = simd::exp_nonpositive(simd::load(sums.factor + i) - reference);
      simd::store(sums.factor + i, f);
      simd::store(sums.l + i, simd::load(sums.l + i) * f);
    }
  }
  /// The states of the rows, with the values of the piece in rows_ (count, stride).
  void store_states(index_t count, const tile_sums& sums) {
    for (index_t i = 0; i < count; ++i) {
      m_[row_[i]] = sums.m[i];
      l_[row_[i]] = sums.l[i];
      T* to = acc_ + row_[i] * stride_;
      const T* from = rows_ + i * stride_;
      const simd::batch<T> f(sums.factor[i]);
      for (index_t c = 0; c < stride_; c += L) {
        simd::store(to + c, simd::fma(simd::load(to + c), f, simd::load(from + c)));
      }
    }
  }

  /// The rows row_[0 .. count) against the piece, with queries in the lanes.
  void attend_tile(index_t count) {
    const index_t width = padded(count), channels = source_.value_width(), D = source_.key_width();
    tile_sums sums;
    load_sums(count, width, sums);
    simd::transpose_in(rows_, D, count, D, queries_, width, scale_);
    product<T>(simd::tile_rows_operand<T>{k_.data, k_.stride, 1}, keys_, queries_, D, scores_, width / L, width, false);
    if (hides_) modify(count, width);
    raise_max(scores_, keys_, width / L, width, all_visible{}, 0, sums.m);
    rescale_sums(width, sums);
    exponentials(scores_, keys_, width / L, width, sums.m, sums.l);
    if (hides_ && !all_finite(v_, keys_, channels)) {
      std::fill_n(tile_acc_, channels * width, T(0));
      product_of_visible(placed_rows<T>{v_, nullptr}, channels, scores_, visible_, keys_, tile_acc_, width);
    } else {
      for (index_t key = 0; key < keys_; key += chunk_keys) {  // a chunk's weights stay in L1
        product<T>(simd::tile_rows_operand<T>{v_.data + key * v_.stride, 1, v_.stride}, channels, scores_ + key * width,
                   std::min(chunk_keys, keys_ - key), tile_acc_, width / L, width, key > 0);
      }
    }
    simd::transpose_out(tile_acc_, width, count, channels, rows_, stride_);
    store_states(count, sums);
  }

  /// The same for few rows, with keys in the lanes.
  void attend_few(index_t count) {
    const index_t channels = source_.value_width(), D = source_.key_width();
    tile_sums sums;
    load_sums(count, L, sums);
    for (index_t i = 0; i < count * D; ++i) rows_[i] *= scale_;
    score_rows(rows_, D, count, D, k_.data, k_.stride, keys_, 0, keys_, scores_, row_width);
    for (index_t i = 0; i < count; ++i) sums.m[i] = modify_row(i, sums.m[i]);
    rescale_sums(L, sums);
    const row_weights<T> weights{scores_, row_width, count};
    for (index_t i = 0; i < count; ++i) {
      const simd::batch<T> reference = finite_reference<T>(simd::batch<T>(sums.m[i]));
      for (T* at = scores_ + i * row_width; at < scores_ + i * row_width + keys_; at += L) {
        simd::store(at, simd::exp_nonpositive(simd::load(at) - reference));
      }
    }
    add_row_sums(weights, keys_, sums.l);
    if (hides_ && !all_finite(v_, keys_, channels)) {
      std::fill_n(rows_, count * stride_, T(0));
      product_with_visible_values(weights, v_, keys_, channels, visible_, row_width / L, rows_, stride_);
    } else {
      product_with_values(weights, v_, keys_, channels, rows_, stride_, false);
    }
    for (index_t i = 0; i < count * stride_; ++i) rows_[i] += T(0);  // as transpose_out: -0 becomes +0
    store_states(count, sums);
  }

  /// As modify, for row row_[i] with keys in the lanes; the maximum raised by its scores.
  T modify_row(index_t i, T m) {
    const index_t position = panel_.position_of(row_[i]);
    const simd::batch<T> unseen(minus_infinity<T>);
    key_lanes_index<T> where{panel_.seq.number,  panel_.head_of(row_[i]),
                             position,           simd::positions<T>::consecutive(key_),
                             panel_.seq.queries, panel_.seq.keys};
    simd::batch<T> most(m);
    for (index_t j = 0; j < keys_; j += L, where.key = where.key + L) {
      T* at = scores_ + i * row_width + j;
      simd::batch<T> score = simd::load(at);
      if constexpr (!std::is_same_v<Score, plain_score>) score = score_at(score_, score, where);
      const index_t seen = std::min(keys_, position + 1 - key_) - j;
      score = simd::select(simd::first_lanes<T>(std::clamp<index_t>(seen, 0, L)), score, unseen);
      simd::store(at, score);
      visible_[i * (row_width / L) + j / L] = simd::bits<T>(!(score == unseen));
      most = simd::max_or_second(score, most);
    }
    return simd::reduce_max<T>(most);
  }

  /// Scores go through the modifier; -infinity stands where a pair is not visible.
  void modify(index_t count, index_t width) {
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
      for (index_t j = 0; j < keys_; ++j, ++where.key) {
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
  T* scores_;                                          // (256, width); of few rows (rows, row_width)
  std::uint32_t* visible_;                             // (256, width / L); of few rows (rows, row_width / L)
  T* tile_acc_;                                        // (Dv, width)
  T* key_room_;                                        // (256, D)
  T* value_room_;                                      // (256, Dv)
  index_t key_ = 0;                                    // the first of the piece
  index_t keys_ = 0;                                   // of the piece that some row of the tile sees
  bool hides_ = false;                                 // whether some row of the tile may not see one of them
  row_run<T> k_;
  row_run<T> v_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
