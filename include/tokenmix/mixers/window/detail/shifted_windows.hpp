// SPDX-License-Identifier: Apache-2.0
/// @file A grid of tokens, rolled by a shift and cut into windows, each a sequence of its own that is read where it lies.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/tables.hpp>

#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Where the tokens of a window lie. Token y Ww + x of window (i, j) is token ((i Wh + y + shift) % rows, ...) of the grid.
class shifted_windows {
 public:
  struct axis {
    index_t size, window, shift;

    index_t windows() const { return size / window; }
    index_t at(index_t of_window, index_t i) const {
      const index_t rolled = of_window * window + i + shift;
      return rolled < size ? rolled : rolled - size;
    }
    /// Tokens of the last window that were neighbours of its others before they were rolled around the border come first.
    index_t cut() const { return window - shift; }
  };

  shifted_windows(const axis& rows, const axis& columns, scratch_frame& frame)
      : rows_(rows), columns_(columns), across_(columns.windows()) {
    place_ = frame.take<place>(tokens());
    const index_t words = tokens() / 64 + 2;  // one more than needed: words are read from any token on
    upper_ = frame.take<std::uint64_t>(words);
    left_ = frame.take<std::uint64_t>(words);
    std::fill(upper_, upper_ + words, std::uint64_t{0});
    std::fill(left_, left_ + words, std::uint64_t{0});
    for (index_t i = 0; i < tokens(); ++i) {
      place_[i] = {i / columns_.window, i % columns_.window};
      upper_[i / 64] |= std::uint64_t{is_upper(i)} << (i % 64);
      left_[i / 64] |= std::uint64_t{is_left(i)} << (i % 64);
    }
  }

  index_t tokens() const { return rows_.window * columns_.window; }
  index_t count() const { return rows_.windows() * across_; }

  index_t row(index_t window, index_t i) const {
    return rows_.at(window / across_, place_[i].y) * columns_.size + columns_.at(window % across_, place_[i].x);
  }
  /// How many tokens follow each other from token i on.
  index_t run(index_t window, index_t i) const {
    return std::min(columns_.window - place_[i].x, columns_.size - columns_.at(window % across_, place_[i].x));
  }

  /// Whether a window holds tokens from two sides of a border.
  bool meets_border(index_t window) const { return across_rows(window) || across_columns(window); }
  /// Bit i: query first + i sees the key, for the 64 queries from `first` on.
  std::uint64_t seen_by(index_t window, index_t key, index_t first) const {
    std::uint64_t word = ~std::uint64_t{0};
    const auto same_side = [&](const std::uint64_t* bits) {
      const bool of_key = (bits[key / 64] >> (key % 64) & 1u) != 0;
      const std::uint64_t low = bits[first / 64] >> (first % 64);
      const std::uint64_t of_queries = first % 64 == 0 ? low : low | bits[first / 64 + 1] << (64 - first % 64);
      return of_key ? of_queries : ~of_queries;
    };
    if (across_rows(window)) word &= same_side(upper_);
    if (across_columns(window)) word &= same_side(left_);
    return word;
  }

 private:
  struct place {
    index_t y, x;
  };

  bool is_upper(index_t i) const { return place_[i].y < rows_.cut(); }
  bool is_left(index_t i) const { return place_[i].x < columns_.cut(); }
  bool across_rows(index_t window) const { return rows_.shift > 0 && window / across_ == rows_.windows() - 1; }
  bool across_columns(index_t window) const { return columns_.shift > 0 && window % across_ == columns_.windows() - 1; }

  axis rows_, columns_;
  index_t across_;        // windows side by side
  place* place_;          // (tokens): where a token stands in its window
  std::uint64_t* upper_;  // (tokens) bits: which are in the upper part of a window that meets the border
  std::uint64_t* left_;   // (tokens) bits
};

/// The windows of every batch element as sequences.
struct shifted_window_sequences {
  const shifted_windows& windows;

  index_t count(index_t batches) const { return batches * windows.count(); }
  sequence at(index_t i, index_t /*queries*/, index_t /*keys*/) const {
    return {i % windows.count(), i / windows.count(), 0, windows.tokens(), 0, windows.tokens()};
  }
};

/// Their keys and values.
template <class E>
struct shifted_window_source : key_value_tensors<E> {
  const shifted_windows& windows;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(this->k, seq, head, position);
  }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(this->v, seq, head, position);
  }
  index_t query_row(const sequence& seq, index_t i) const { return windows.row(seq.number, i); }

 private:
  row_run<E> run(const tensor_view<const E, 4>& rows, const sequence& seq, index_t head, index_t position) const {
    return {rows.row(seq.batch, head, windows.row(seq.number, position)), rows.stride(2),
            windows.run(seq.number, position)};
  }
};

/// Tokens see each other that were in one window of the grid before it was rolled.
struct shifted_window_mask {
  using is_mask = void;
  const shifted_windows& windows;

  bool operator()(const index& where) const { return (seen_by(block_of(where), where.key) & 1u) != 0; }
  std::uint64_t seen_by(const query_block& block, index_t key) const {
    return windows.seen_by(block.batch, key, block.query_first);
  }
  span run(const query_block& block, index_t key) const {
    return {key, block.keys, windows.meets_border(block.batch) ? coverage::some : coverage::all};
  }
};

/// score -> score + the bias of the pair, which is the same for all windows and lies ready in registers' order.
template <class T>
struct shifted_window_bias {
  using is_score = void;
  static constexpr bool reads_query = true;  // only on tiles: there is nothing else in a window

  const T* table;  // (H, tokens, stride): [head][key][query]
  index_t tokens, stride;

  tile_bias<T> prepare(const score_tile<T>& tile, scratch_frame& /*frame*/) const {
    return {table + tile.head * tokens * stride, stride, 0, 0};
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
