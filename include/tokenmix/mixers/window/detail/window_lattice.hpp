// SPDX-License-Identifier: Apache-2.0
/// @file Dilated windows and keys that everybody sees, as sequences of the softmax tiles.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>
#include <tokenmix/primitives/score/score.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// With a dilation of d the tokens of a sequence fall into d classes that never meet: each is a sequence of its own, whose
// window has no gaps. Before the keys of its class each has those that all queries see: first keys, global tokens.

/// One class of one sequence: what its indices stand for.
struct window_class {
  sequence whole;       ///< the sequence that it is a class of
  index_t residue = 0;  ///< position of its first key
  index_t dilation = 1;
  index_t seen = 0;       ///< keys before those of the class
  index_t first_row = 0;  ///< of its queries among those of the whole

  index_t queries() const { return (whole.queries - first_row + dilation - 1) / dilation; }
  index_t keys() const { return residue < whole.keys ? (whole.keys - residue + dilation - 1) / dilation : 0; }
  /// The position of key or query i, i >= seen.
  index_t position(index_t i) const { return residue + (i - seen) * dilation; }
};

/// All classes of all sequences, in the scratch of the thread that calls. `seen` ascends and has no repetitions; what a shorter
/// sequence does not have is not seen there.
class window_lattice {
 public:
  std::span<const index_t> seen;

  /// For q of (batches, H, rows, D) and k of (batches, Hk, most_keys, D).
  template <class Sequences>
  window_lattice(const Sequences& sequences, index_t batches, index_t rows, index_t most_keys, index_t dilation,
                 std::span<const index_t> seen_by_all, scratch_frame& frame)
      : seen(seen_by_all), count_(sequences.count(batches) * dilation), classes_(frame.take<window_class>(count_)) {
    for (index_t i = 0; i < count_; ++i) {
      window_class& c = classes_[i] = {};
      c.whole = sequences.at(i / dilation, rows, most_keys);
      c.dilation = dilation;
      c.first_row = std::min(i % dilation, c.whole.queries);
      const index_t position = c.whole.first_position() + i % dilation;
      c.residue = (position % dilation + dilation) % dilation;
      c.seen = std::lower_bound(seen.begin(), seen.end(), c.whole.keys) - seen.begin();
    }
  }

  const window_class& operator[](index_t i) const { return classes_[i]; }
  bool sees_always(index_t position) const { return std::binary_search(seen.begin(), seen.end(), position); }

  /// The sequences of the tiles.
  index_t count(index_t) const { return count_; }
  sequence at(index_t i, index_t, index_t) const {
    const window_class& c = classes_[i];
    return {i, c.whole.batch, 0, c.queries(), 0, c.seen + c.keys()};
  }

 private:
  index_t count_;
  window_class* classes_;
};

template <class E>
struct window_lattice_source : key_value_tensors<E> {
  const window_lattice& lattice;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(this->k, seq, head, position);
  }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(this->v, seq, head, position);
  }
  index_t query_row(const sequence& seq, index_t i) const {
    const window_class& c = lattice[seq.number];
    return c.whole.query_row + c.first_row + i * c.dilation;
  }

 private:
  row_run<E> run(const tensor_view<const E, 4>& rows, const sequence& seq, index_t head, index_t position) const {
    const window_class& c = lattice[seq.number];
    if (position < c.seen) {
      const index_t at = lattice.seen[static_cast<std::size_t>(position)];
      index_t count = 1;
      while (position + count < c.seen && lattice.seen[static_cast<std::size_t>(position + count)] == at + count)
        ++count;
      return {rows.row(seq.batch, head, c.whole.key_row + at), rows.stride(2), count};
    }
    return {rows.row(seq.batch, head, c.whole.key_row + c.position(position)), rows.stride(2) * c.dilation,
            seq.keys - position};
  }
};

/// A query sees the window of its class and what all see; in a causal window only what is not after it.
struct window_lattice_mask {
  using is_mask = void;
  const window_lattice& lattice;
  index_t left, right;

  bool operator()(const index& where) const { return (seen_by(block_of(where), where.key) & 1u) != 0; }
  std::uint64_t seen_by(const query_block& block, index_t key) const {
    const window_class& c = lattice[block.batch];
    if (key < c.seen) {
      if (right > 0) return seen_by_all_if(true);
      const index_t first = first_at_or_after(c, lattice.seen[static_cast<std::size_t>(key)]);
      return ~first_queries(first - block.query_first);
    }
    if (lattice.sees_always(c.position(key))) return seen_by_all_if(false);  // counted among those that all see
    return seen_by_interval(block, key - right, key + left);
  }
  span run(const query_block& block, index_t key) const {
    const window_class& c = lattice[block.batch];
    const index_t first = block.query_first, last = block.query_last - 1;
    if (key < c.seen) {
      const auto until = [&](index_t query) {  // keys that are not after a query
        const index_t position = c.position(query);
        return right > 0
                   ? c.seen
                   : std::min<index_t>(c.seen, std::upper_bound(lattice.seen.begin(), lattice.seen.end(), position) -
                                                   lattice.seen.begin());
      };
      if (const index_t all = until(first); key < all) return {key, all, coverage::all};
      if (const index_t some = until(last); key < some) return {key, some, coverage::some};
      return {key, c.seen, coverage::none};
    }
    span found = interval_run(block.keys, key, first - left, last + right, last - left, first + right);
    if (found.visible != coverage::all) return found;
    const auto within = std::lower_bound(lattice.seen.begin(), lattice.seen.end(), c.position(key));
    if (within != lattice.seen.end() && *within <= c.position(found.end - 1)) found.visible = coverage::some;
    return found;
  }

 private:
  // The first query, in the numbers of a class, whose position is not before one.
  static index_t first_at_or_after(const window_class& c, index_t position) {
    const index_t steps = position - c.residue;
    return c.seen + (steps >= 0 ? (steps + c.dilation - 1) / c.dilation : -(-steps / c.dilation));
  }
};

/// A modifier asked about the positions that the indices of a class stand for.
template <class Score>
struct window_lattice_score {
  using is_score = void;
  const Score& score;
  const window_lattice& lattice;

  template <class Value, class Head, class Query>
  Value operator()(const Value& value, const basic_index<Head, Query, index_t>& where) const {
    const window_class& c = lattice[where.batch];
    basic_index<Head, Query, index_t> at;
    at.batch = c.whole.number;
    at.head = where.head;
    at.query = (where.query - c.seen) * c.dilation + c.residue;
    at.key = where.key < c.seen ? lattice.seen[static_cast<std::size_t>(where.key)] : c.position(where.key);
    at.queries = c.whole.queries;
    at.keys = c.whole.keys;
    return score_at(score, value, at);
  }
};

/// The rows of global tokens, as queries of their own over all keys of their sequence.
template <class Sequences>
struct global_queries {
  Sequences sequences;
  index_t batches, rows, most_keys;
  std::span<const index_t> tokens;

  sequence whole(index_t i) const { return sequences.at(i, rows, most_keys); }
  /// The tokens that are among the queries of a sequence: the first of them, and how many.
  index_t first(const sequence& seq) const {
    return std::lower_bound(tokens.begin(), tokens.end(), seq.first_position()) - tokens.begin();
  }
  index_t position(index_t i, index_t query) const {
    return tokens[static_cast<std::size_t>(
        std::clamp<index_t>(first(whole(i)) + query, 0, static_cast<index_t>(tokens.size()) - 1))];
  }

  index_t count(index_t) const { return sequences.count(batches); }
  sequence at(index_t i, index_t, index_t) const {
    const sequence seq = whole(i);
    const index_t end = std::lower_bound(tokens.begin(), tokens.end(), seq.keys) - tokens.begin();
    return {i, seq.batch, seq.query_row, std::max<index_t>(0, end - first(seq)), seq.key_row, seq.keys};
  }
};

template <class E, class Sequences>
struct global_query_source : key_value_views<E> {
  const global_queries<Sequences>& queries;

  index_t query_row(const sequence& seq, index_t i) const {
    const sequence whole = queries.whole(seq.number);
    return whole.query_row + queries.position(seq.number, i) - whole.first_position();
  }
};

template <class Sequences>
struct global_query_mask {
  using is_mask = void;
  const global_queries<Sequences>& queries;
  bool causal;

  bool operator()(const index& where) const {
    return !causal || where.key <= queries.position(where.batch, where.query_row());
  }
  span run(const query_block& block, index_t key) const {
    if (!causal) return {key, block.keys, coverage::all};
    const index_t first = queries.position(block.batch, block.row_first());
    const index_t last = queries.position(block.batch, block.row_last() - 1);
    return interval_run(block.keys, key, 0, last, 0, first);
  }
};

template <class Score, class Sequences>
struct global_query_score {
  using is_score = void;
  const Score& score;
  const global_queries<Sequences>& queries;

  template <std::floating_point T>
  T operator()(T value, index where) const {
    const sequence whole = queries.whole(where.batch);
    const index row{whole.number, where.head,    queries.position(where.batch, where.query_row()),
                    where.key,    whole.queries, whole.keys};
    return score_at(score, value, row);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
