// SPDX-License-Identifier: Apache-2.0
/// @file The keys and values that a sliding window can still see, in a ring per head: its size does not grow with the text.
#pragma once

#include <tokenmix/cache/detail/store_row.hpp>
#include <tokenmix/cache/detail/token_counts.hpp>
#include <tokenmix/core/check.hpp>
#include <tokenmix/mixers/window/sliding_window_attention.hpp>

#include <span>
#include <vector>

namespace tokenmix::inline TOKENMIX_ABI {

/// What a window_cache has room for: use with designated initialisers; the order of the fields is API.
struct window_cache_options {
  index_t left = 0;        ///< keys before a query that it sees: W - 1 for a window of W tokens
  index_t first_keys = 0;  ///< keys at the start of a sequence that all queries see
  index_t new_tokens = 1;  ///< tokens that are appended before their queries attend; also those that can be taken back
};

namespace detail {

/// The row of `rows` that holds a position: rows [0, first) hold the first keys, the others the ring.
constexpr index_t row_of_ring(index_t position, index_t first, index_t rows) {
  return position < first ? position : first + (position - first) % (rows - first);
}

/// Keys and values of such rows.
template <class E>
struct ring_source : key_value_tensors<E> {
  index_t first;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(this->k, seq, head, position);
  }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(this->v, seq, head, position);
  }

 private:
  row_run<E> run(const tensor_view<const E, 4>& rows, const sequence& seq, index_t head, index_t position) const {
    const index_t row = row_of_ring(position, first, rows.extent(2));
    const index_t count = position < first ? first - position : std::min(rows.extent(2) - row, seq.keys - position);
    return {rows.row(seq.batch, head, row), rows.stride(2), count};
  }
};

}  // namespace detail

/// Keys and values of B sequences, each with a length of its own: of every token that a query of a causal sliding window can
/// still see, and of the first ones. Memory for first_keys + left + new_tokens tokens each, however long they get.
///
/// Positions go on counting, so that attention over the cache has the bits of sliding_window_attention over all tokens.
template <class E>
class window_cache {
 public:
  using stored_type = E;

  /// Allocates all its memory, now and never again.
  window_cache(index_t batches, index_t heads, const window_cache_options& room, index_t key_width, index_t value_width)
      : room_(checked(room)),
        k_({batches, heads, room.first_keys + room.left + room.new_tokens, key_width}),
        v_({batches, heads, room.first_keys + room.left + room.new_tokens, value_width}),
        lengths_(batches),
        held_from_(static_cast<std::size_t>(batches), 0) {}

  /// Appends T tokens to every sequence, rounding to E where it is a storage type; with `counts`, the first counts[b] of them to
  /// sequence b. Of more tokens than there is room for those stay that were appended last, and the first keys.
  ///
  /// Shapes     k: (B, Hk, T, D); v: (B, Hk, T, Dv).
  /// Errors     shape_error if the shapes differ; value_error if a count is not 0 to T. Nothing is written then.
  template <class K>
  void append(tensor_view<const K, 4> k, tensor_view<const K, 4> v, std::span<const index_t> counts = {}) {
    const index_t T = k.extent(2);
    detail::check_input("k", k);
    detail::check_input("v", v);
    detail::check_shape("k", k, {batches(), heads(), T, key_width()}, "(B, Hk, T, D) of the cache");
    detail::check_shape("v", v, {batches(), heads(), T, value_width()}, "(B, Hk, T, Dv) of the cache");
    lengths_.check_append("k", T, counts, unlimited);
    for (index_t b = 0; b < batches(); ++b) {
      const index_t count = counts.empty() ? T : counts[static_cast<std::size_t>(b)];
      const index_t before = length(b), after = before + count;
      for (index_t t = 0; t < count; ++t) {
        const index_t position = before + t;
        if (position >= room_.first_keys && position < after - ring()) continue;
        for (index_t h = 0; h < heads(); ++h) {
          detail::store_row(k.row(b, h, t), k_.row(b, h, row_of(position)), key_width());
          detail::store_row(v.row(b, h, t), v_.row(b, h, row_of(position)), value_width());
        }
      }
      lengths_.grow(b, count);
      index_t& held_from = held_from_[static_cast<std::size_t>(b)];
      held_from = std::max(held_from, after - ring());
    }
  }

  /// Forgets all tokens of a sequence from position `length` on: a rejected draft, say.
  ///
  /// Errors     value_error if the sequence has no such token, or if what a next token would see is no longer there: more than
  ///            new_tokens - 1 tokens can be taken back only while nothing was overwritten.
  void truncate(index_t batch, index_t length) {
    const bool exists = batch >= 0 && batch < batches();
    if (exists && std::max(room_.first_keys, length - room_.left) < held_from(batch)) {
      detail::fail_value("length is ", length, ": the cache holds what sequence ", batch, " sees from position ",
                         held_from(batch) + room_.left, " on");
    }
    lengths_.truncate(batch, length);
  }

  /// Forgets everything.
  void clear() {
    lengths_.clear();
    held_from_.assign(held_from_.size(), 0);
  }

  const window_cache_options& room() const { return room_; }
  index_t batches() const { return k_.extent(0); }
  index_t heads() const { return k_.extent(1); }
  index_t key_width() const { return k_.extent(3); }
  index_t value_width() const { return v_.extent(3); }
  index_t length(index_t batch) const { return lengths_.of(batch); }  ///< tokens so far, those forgotten included
  std::span<const index_t> lengths() const { return lengths_.all(); }

  /// The first token of a sequence that is there besides the first keys.
  index_t held_from(index_t batch) const { return held_from_[static_cast<std::size_t>(batch)]; }

  /// Bytes of all keys and values that the cache has room for.
  index_t bytes() const { return (k_.size() + v_.size()) * static_cast<index_t>(sizeof(E)); }

  /// What attention reads.
  detail::ring_source<E> source() const { return {{k_, v_, {}, {}}, room_.first_keys}; }

 private:
  static const window_cache_options& checked(const window_cache_options& room) {
    if (room.left < 0) detail::fail_value("left is ", room.left, ", expected 0 or more keys");
    if (room.first_keys < 0) detail::fail_value("first_keys is ", room.first_keys, ", expected 0 or more keys");
    if (room.new_tokens < 1) detail::fail_value("new_tokens is ", room.new_tokens, ", expected 1 or more");
    return room;
  }
  index_t ring() const { return room_.left + room_.new_tokens; }
  index_t row_of(index_t position) const { return detail::row_of_ring(position, room_.first_keys, k_.extent(2)); }

  window_cache_options room_;
  tensor<E, 4> k_;  // (B, Hk, first_keys + ring, D)
  tensor<E, 4> v_;  // (B, Hk, first_keys + ring, Dv)
  detail::token_counts lengths_;
  std::vector<index_t> held_from_;  // (B)
};

/// Sliding-window attention of T new queries over a cache: the queries are the last T positions of each sequence, so append their
/// keys and values first, no more than new_tokens. T = 1 is the decode step; it allocates nothing after the first.
///
///     query p sees the keys s with p - left <= s <= p, and s < first_keys;     left and first_keys are the cache's
///
/// Shapes     q: (B, H, T, D); out: (B, H, T, Dv).
/// Numerics   the bits of sliding_window_attention over views of all tokens, stored in the cache's type.
/// Cost       as sliding_window_attention.
/// Errors     as sliding_window_attention; value_error if options ask for another window than the cache's, or if a query sees a
///            key that was overwritten.
template <class Q, class E, class O, class Score = plain_score, class Lse = float, executor Executor = calling_thread>
void sliding_window_attention(tensor_view<const Q, 4> q, const window_cache<E>& cache, tensor_view<O, 4> out,
                              const sliding_window_options<Score, whole_sequences, Lse>& options = {},
                              Executor&& on = {}) {
  using namespace detail;
  const window_cache_options& room = cache.room();
  const bool same_left = options.left == unlimited || options.left == room.left;
  if (!same_left || options.right != 0 || options.dilation != 1 || !options.global_tokens.empty() ||
      (options.first_keys != 0 && options.first_keys != room.first_keys)) {
    fail_value("options name another window than the cache's: left ", room.left, ", first_keys ", room.first_keys);
  }
  const auto source = cache.source();
  check_input("q", q);
  check_keys(q, source.k, source.v, "the cache's keys", "the cache's values");
  check_same_extent("cache", source.k, 0, "q", q, 0, "batch elements");
  const index_t T = q.extent(2);
  for (index_t b = 0; b < cache.batches(); ++b) {
    const index_t oldest = std::max(room.first_keys, cache.length(b) - T - room.left);
    if (T > 0 && oldest < cache.held_from(b)) {
      fail_value("sequence ", b, ": query 0 of ", T, " sees key ", oldest, ", the cache holds those from ",
                 cache.held_from(b), " on: attend after every ", room.new_tokens, " tokens that are appended");
    }
  }
  const auto mask = sliding_window_mask(room.left, 0, room.first_keys);
  const softmax_options<std::remove_cv_t<decltype(mask)>, Score, lengths, softmax_weights, no_edit, no_rotary, Lse>
      told{.mask = mask,
           .score = options.score,
           .scale = options.scale,
           .sequences = {.keys = cache.lengths()},
           .lse = options.lse};
  using sink = accumulator_t<Q>;
  index_t most = 0;
  for (const index_t n : cache.lengths()) most = std::max(most, n);
  check_attention(q, most, 0, tensor_view<const sink, 1>{}, told);
  check_attention_output(out, {q.extent(0), q.extent(1), T, cache.value_width()}, told, q, source.k, source.v);
  attend(q, source, told, attention_output<O, Lse, sink>{out, told.lse, {}, false}, on);
}

/// T new tokens, as many as there are: appends them to the cache and attends, new_tokens at a time. A prompt and a decode step are the
/// same call.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, T, D); v: (B, Hk, T, Dv); out: (B, H, T, Dv).
/// Errors     as append and the call above.
template <class Q, class K, class E, class O, class Score = plain_score, class Lse = float,
          executor Executor = calling_thread>
void sliding_window_attention(tensor_view<const Q, 4> q, tensor_view<const K, 4> k, tensor_view<const K, 4> v,
                              window_cache<E>& cache, tensor_view<O, 4> out,
                              const sliding_window_options<Score, whole_sequences, Lse>& options = {},
                              Executor&& on = {}) {
  detail::check_same_extent("k", k, 2, "q", q, 2, "tokens");
  detail::check_same_extent("v", v, 2, "q", q, 2, "tokens");
  detail::check_same_extent("out", out, 2, "q", q, 2, "tokens");
  const index_t T = q.extent(2);
  for (index_t first = 0; first < T; first += cache.room().new_tokens) {
    const index_t n = std::min(cache.room().new_tokens, T - first);
    cache.append(k.slice(2, first, n), v.slice(2, first, n));
    auto piece = options;
    if (options.lse.data() != nullptr) piece.lse = options.lse.slice(2, first, n);
    sliding_window_attention(q.slice(2, first, n), cache, out.slice(2, first, n), piece, on);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
