// SPDX-License-Identifier: Apache-2.0
/// @file A few queries against many keys: scores with keys in the lanes, outputs with channels in the lanes.
#pragma once

#include <tokenmix/mixers/softmax/detail/lane_kernels.hpp>
#include <tokenmix/mixers/softmax/detail/problem.hpp>
#include <tokenmix/mixers/softmax/detail/row_kernels.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>
#include <tokenmix/simd/transposed_product.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A few queries of all heads that share one key/value head: row r is query (r % T) of head (r / T) of the group. Each loaded
/// key serves all of them.
///
/// State of a leaf: m (rows padded to registers), l (the same), acc (rows, Dv padded).
template <class Problem>
class key_lanes {
 public:
  using T = typename Problem::T;
  using E = typename Problem::stored_type;
  static constexpr index_t L = simd::lanes<T>;

  /// Keys that are transposed at a time: K^T of them stays in L1 beside what is asked for ahead.
  static constexpr index_t key_vectors = std::clamp<index_t>(32 / L, 2, simd::max_tile_vectors);
  static constexpr index_t key_width = key_vectors * L;

  /// Few rows meet K as it lies, transposed in registers on the way; more of them share a transposed copy.
  static constexpr bool reads_keys_in_place =
      std::is_same_v<typename Problem::rotary_type, no_rotary> && simd::has_transposed_product<T, E>;
  static constexpr index_t most_rows_in_place = 2 * simd::transposed_rows;

  /// Cache lines of keys, and of values, that are asked for at each step of a product with key_width keys, so that all are
  /// when it ends.
  static constexpr index_t lines_ahead = std::max<index_t>(
      1, key_width* static_cast<index_t>(sizeof(E)) * (reads_keys_in_place ? simd::columns_per_step<T, E> : 1) / 64);

  static constexpr index_t padded(index_t n) { return (n + L - 1) / L * L; }

  /// Rows [first_row, first_row + rows) of the group.
  key_lanes(const Problem& problem, const sequence& seq, index_t key_head, index_t first_row, index_t rows,
            scratch_frame& frame)
      : problem_(problem),
        seq_(seq),
        key_head_(key_head),
        first_row_(first_row),
        rows_(rows),
        channels_(problem.channels()),
        value_channels_(problem.source.value_width()),
        query_stride_((rows + simd::transposed_rows - 1) / simd::transposed_rows * simd::transposed_rows),
        queries_(frame.take<T>(channels_ * query_stride_)),
        keys_(frame.take<T>(channels_ * key_width)),
        scores_(frame.take<T>(rows * softmax_leaf_keys)),
        visible_(frame.take<std::uint32_t>(rows * (softmax_leaf_keys / L))),
        room_(frame.take<T>(chunk_keys * std::max(channels_, value_channels_))) {
    if (seq_.keys > 0) load_queries();
    const index_t T_ = seq_.queries;
    const index_t first_head = head_of(0);
    const index_t last_head = head_of(rows_ - 1);
    // Rows of several heads run over all queries of a head; rows of one head over their own.
    const index_t from = first_head == last_head ? query_of(0) : seq_.first_position();
    const index_t to = first_head == last_head ? query_of(rows_ - 1) + 1 : seq_.first_position() + T_;
    block_ = {seq_.number, first_head, last_head + 1, from, to, T_, seq_.keys};
  }

  index_t rows() const { return rows_; }
  index_t value_stride() const { return padded(value_channels_); }
  index_t state_size() const { return 2 * padded(rows_) + rows_ * value_stride(); }
  const query_block& block() const { return block_; }
  index_t head_of(index_t r) const { return key_head_ * problem_.group() + (first_row_ + r) / seq_.queries; }
  index_t query_row_of(index_t r) const { return (first_row_ + r) % seq_.queries; }
  index_t query_of(index_t r) const { return seq_.first_position() + query_row_of(r); }

  /// Computes the scores of the rows' visible pairs in a leaf; -infinity stands where a pair is not visible. m (rows) is raised to
  /// the largest of each row.
  leaf_of_chunks score(index_t leaf, T* m) {
    leaf_of_chunks chunks = chunks_of(problem_.mask, block_, leaf);
    for (index_t i = 0; i < chunks.count; ++i) {
      key_chunk& chunk = chunks.chunks[static_cast<std::size_t>(i)];
      if (chunk.visible == coverage::some) look(i, chunk);
      if (chunk.count > 0) score_chunk(i, chunk, m);
    }
    return chunks;
  }

  /// The scores of a row against chunk i of the leaf that was scored.
  T* scores_of(index_t r, index_t i) const { return scores_ + r * softmax_leaf_keys + i * chunk_keys; }
  /// The bits of the keys that it sees of a chunk that is seen in part, lanes<T> a word.
  std::uint32_t* visible_of(index_t r, index_t i) const {
    return visible_ + r * (softmax_leaf_keys / L) + i * (chunk_keys / L);
  }

  /// The state of one leaf.
  template <class Normalizer>
  void attend(index_t leaf, const Normalizer& normalizer, T* state) {
    T* m = state;
    T* l = state + padded(rows_);
    T* acc = l + padded(rows_);
    std::fill(m, l, minus_infinity<T>);
    std::fill(l, acc, T(0));
    const leaf_of_chunks chunks = score(leaf, m);
    bool started = false;
    for (index_t i = 0; i < chunks.count; ++i) {
      const key_chunk& chunk = chunks.chunks[static_cast<std::size_t>(i)];
      if (chunk.count == 0) continue;
      weigh(i, chunk, normalizer, m, l);
      add_values(i, chunk, acc, started);
      started = true;
    }
    if (!started) std::fill(acc, acc + rows_ * value_stride(), T(0));
  }

  template <class Normalizer>
  void merge(T* left, const T* right) const {
    if constexpr (!Normalizer::sums_to_one) {
      for (index_t i = 0; i < state_size(); ++i) left[i] = i < 2 * padded(rows_) ? left[i] : left[i] + right[i];
    } else {
      merge_rows(left, right, rows_, value_stride());
    }
  }

 private:
  void load_queries() const {
    std::fill(queries_, queries_ + channels_ * query_stride_, T(0));
    scratch_frame frame;
    T* row = frame.template take<T>(channels_);
    T* rotated = frame.template take<T>(channels_);
    for (index_t r = 0; r < rows_; ++r) {
      simd::convert_row(problem_.q.row(seq_.batch, head_of(r), seq_.query_row + query_row_of(r)), row, channels_);
      if constexpr (!std::is_same_v<typename Problem::rotary_type, no_rotary>) {
        problem_.rotary.rotate(row, rotated, channels_, query_of(r));
        std::swap(row, rotated);
      }
      for (index_t c = 0; c < channels_; ++c) queries_[c * query_stride_ + r] = row[c] * problem_.scale;
    }
  }

  key_lanes_index<T> index_at(index_t r, index_t key) const {
    return {seq_.number, head_of(r), query_of(r), simd::positions<T>::consecutive(key), seq_.queries, seq_.keys};
  }

  // Asks the mask about every pair of a chunk and narrows the chunk to the keys that some query sees.
  void look(index_t i, key_chunk& chunk) const {
    const index_t vectors = (chunk.count + L - 1) / L;
    index_t first = chunk.count;
    index_t end = 0;
    const auto word_of = [&](index_t r, index_t v) {
      const auto seen = mask_at(problem_.mask, index_at(r, chunk.key + v * L));
      std::uint32_t word;
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(seen)>, simd::lane_mask<T>>) {
        word = simd::bits<T>(seen.value);
      } else {
        word = static_cast<bool>(seen) ? ~0u : 0u;
      }
      return word & simd::bits<T>(simd::first_lanes<T>(std::min(L, chunk.count - v * L)));
    };
    const auto write = [&] {
      for (index_t r = 0; r < rows_; ++r) {
        for (index_t v = 0; v * L < chunk.count; ++v) visible_of(r, i)[v] = word_of(r, v);
      }
    };
    write();
    for (index_t v = 0; v < vectors; ++v) {
      std::uint32_t any = 0;
      for (index_t r = 0; r < rows_; ++r) any |= visible_of(r, i)[v];
      if (any == 0) continue;
      first = std::min(first, v * L + std::countr_zero(any));
      end = v * L + 32 - std::countl_zero(any);
    }
    if (end == 0) {
      chunk.count = 0;
      return;
    }
    chunk.count = end - first;
    if (first > 0) {
      chunk.key += first;
      write();
    }
  }

  void score_chunk(index_t i, key_chunk& chunk, T* m) {
    const index_t vectors = (chunk.count + L - 1) / L;
    for (index_t v = 0; v < vectors; v += key_vectors) {
      const index_t n = std::min(key_vectors, vectors - v);
      product_with_keys(chunk.key + v * L, std::min(n * L, chunk.count - v * L), scores_of(0, i) + v * L);
    }
    const simd::batch<T> unseen(minus_infinity<T>);
    for (index_t r = 0; r < rows_; ++r) {
      simd::batch<T> largest(minus_infinity<T>);
      key_lanes_index<T> where = index_at(r, chunk.key);
      for (index_t v = 0; v < vectors; ++v, where.key = where.key + L) {
        T* at = scores_of(r, i) + v * L;
        simd::batch<T> s = simd::load(at);
        if constexpr (!std::is_same_v<typename Problem::score_type, plain_score>)
          s = score_at(problem_.score, s, where);
        const simd::mask<T> seen = chunk.visible == coverage::some
                                       ? simd::from_bits<T>(visible_of(r, i)[v])
                                       : simd::first_lanes<T>(std::min(L, chunk.count - v * L));
        s = simd::select(seen, s, unseen);
        if constexpr (!std::is_same_v<typename Problem::score_type, plain_score>) {
          visible_of(r, i)[v] = simd::bits<T>(!(s == unseen));  // a modifier may hide pairs too
        }
        simd::store(at, s);
        largest = simd::max_or_second(s, largest);
      }
      m[r] = std::max(m[r], simd::reduce_max(largest));
    }
    if (!std::is_same_v<typename Problem::score_type, plain_score>) chunk.visible = coverage::some;
  }

  // scores (rows, 256) of up to key_width keys. Keys and values of the next chunk are asked for meanwhile: the products with
  // keys take most of the time, and the values then find memory idle and the caches full.
  void product_with_keys(index_t position, index_t count, T* scores) {
    const auto next_keys = keys_ahead(problem_.source, seq_, key_head_, position + chunk_keys, count);
    const auto next_values = values_ahead(problem_.source, seq_, key_head_, position + chunk_keys, count);
    const simd::both_ahead ahead{
        simd::rows_ahead<E, lines_ahead>(next_keys.data, next_keys.stride, next_keys.count, channels_),
        simd::rows_ahead<E, lines_ahead>(next_values.data, next_values.stride, next_values.count, value_channels_)};
    if constexpr (reads_keys_in_place) {
      const row_run<E> run = problem_.source.keys(seq_, key_head_, position);
      if (rows_ <= most_rows_in_place && count == key_width && run.count >= count) {
        simd::transposed_product<T, key_vectors>(queries_, query_stride_, rows_, run.data, run.stride, channels_,
                                                 scores, softmax_leaf_keys, ahead);
        return;
      }
    }
    load_keys(position, count);
    simd::with_tile_vectors((count + L - 1) / L, [&](auto wide) TOKENMIX_LAMBDA_INLINE {
      simd::tile_product<T, wide>({queries_, 1, query_stride_}, rows_, keys_, key_width, channels_, scores,
                                  softmax_leaf_keys, false, simd::full_width{}, ahead);
    });
  }

  // K^T of a few keys: keys_ (D, key_width).
  void load_keys(index_t position, index_t count) {
    const auto run_at = [&](index_t p) { return problem_.source.keys(seq_, key_head_, p); };
    if constexpr (std::is_same_v<typename Problem::rotary_type, no_rotary>) {
      const row_run<E> run = run_at(position);
      if (run.count >= count) {
        simd::transpose_in(run.data, run.stride, count, channels_, keys_, key_width);
      } else {
        const row_run<T> rows = rows_of(run_at, position, count, channels_, room_);
        simd::transpose_in(rows.data, rows.stride, count, channels_, keys_, key_width);
      }
    } else {
      scratch_frame frame;
      const row_run<T> plain = rows_of(run_at, position, count, channels_, frame.template take<T>(count * channels_));
      for (index_t j = 0; j < count; ++j) {
        problem_.rotary.rotate(plain.data + j * plain.stride, room_ + j * channels_, channels_, position + j);
      }
      simd::transpose_in(room_, channels_, count, channels_, keys_, key_width);
    }
  }

  template <class Normalizer>
  void weigh(index_t i, const key_chunk& chunk, const Normalizer& normalizer, const T* m, T* l) const {
    const index_t vectors = (chunk.count + L - 1) / L;
    for (index_t r = 0; r < rows_; ++r) {
      T* weights = scores_of(r, i);
      const simd::batch<T> reference = finite_reference<T>(simd::batch<T>(m[r]));
      for (index_t v = 0; v < vectors; ++v) {
        const simd::batch<T> s = simd::load(weights + v * L);
        if constexpr (Normalizer::sums_to_one) {
          simd::store(weights + v * L, simd::exp_nonpositive(s - reference));
        } else {
          const simd::mask<T> seen = chunk.visible == coverage::some
                                         ? simd::from_bits<T>(visible_of(r, i)[v])
                                         : simd::first_lanes<T>(std::min(L, chunk.count - v * L));
          simd::store(weights + v * L, simd::select(seen, normalizer.weight(s), simd::batch<T>(T(0))));
        }
      }
    }
    if constexpr (Normalizer::sums_to_one) add_row_sums(weights_of(i), chunk.count, l);
  }

  row_weights<T> weights_of(index_t i) const { return {scores_of(0, i), softmax_leaf_keys, rows_}; }

  void add_values(index_t i, const key_chunk& chunk, T* acc, bool accumulate) {
    const auto run_at = [&](index_t p) { return problem_.source.values(seq_, key_head_, p); };
    const row_run<E> run = run_at(chunk.key);
    if (chunk.visible == coverage::all && run.count >= chunk.count) {
      product_with_values(weights_of(i), run, chunk.count, value_channels_, acc, value_stride(), accumulate);
      return;
    }
    const row_run<T> rows = rows_of(run_at, chunk.key, chunk.count, value_channels_, room_);
    if (chunk.visible == coverage::some && !all_finite(rows, chunk.count, value_channels_)) {
      if (!accumulate) std::fill(acc, acc + rows_ * value_stride(), T(0));
      product_with_visible_values(weights_of(i), rows, chunk.count, value_channels_, visible_of(0, i),
                                  softmax_leaf_keys / L, acc, value_stride());
      return;
    }
    product_with_values(weights_of(i), rows, chunk.count, value_channels_, acc, value_stride(), accumulate);
  }

  const Problem& problem_;
  sequence seq_;
  index_t key_head_;
  index_t first_row_;
  index_t rows_;
  index_t channels_;
  index_t value_channels_;
  index_t query_stride_;
  T* queries_;              // (D, rows rounded up): scale * q
  T* keys_;                 // (D, key_width)
  T* scores_;               // (rows, 256)
  std::uint32_t* visible_;  // (rows, 256 / L)
  T* room_;                 // (chunk_keys, max(D, Dv))
  query_block block_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
