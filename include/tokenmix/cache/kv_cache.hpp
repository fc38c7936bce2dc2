// SPDX-License-Identifier: Apache-2.0
/// @file The keys and values of the tokens so far, in one contiguous buffer per head.
#pragma once

#include <tokenmix/cache/detail/store_row.hpp>
#include <tokenmix/cache/detail/token_counts.hpp>
#include <tokenmix/core/check.hpp>
#include <tokenmix/mixers/softmax/attention.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Keys and values of up to `capacity` tokens of B sequences, each with a length of its own.
///
/// Rows are stored as E: float, double, or a 16-bit type at half the memory and half the bandwidth of a decode step. Attention
/// over a cache has the same bits as attention over views of the same rows.
template <class E>
class kv_cache {
 public:
  using stored_type = E;

  /// Room for (B, Hk, capacity, D) keys and (B, Hk, capacity, Dv) values; allocates all of it, now and never again.
  kv_cache(index_t batches, index_t heads, index_t capacity, index_t key_width, index_t value_width)
      : k_({batches, heads, capacity, key_width}), v_({batches, heads, capacity, value_width}), lengths_(batches) {}

  /// Appends T tokens to every sequence, rounding to E where it is a storage type.
  ///
  /// Shapes     k: (B, Hk, T, D); v: (B, Hk, T, Dv).
  /// Errors     shape_error if the shapes differ; value_error if a sequence has no room for T more. Nothing is written then.
  template <class K>
  void append(tensor_view<const K, 4> k, tensor_view<const K, 4> v) {
    append(k, v, {});
  }

  /// Appends the first counts[b] of the T tokens to sequence b: sequences of a batch may grow at different rates.
  template <class K>
  void append(tensor_view<const K, 4> k, tensor_view<const K, 4> v, std::span<const index_t> counts) {
    const index_t T = k.extent(2);
    check_append(k, v, counts);
    for (index_t b = 0; b < batches(); ++b) {
      const index_t count = counts.empty() ? T : counts[static_cast<std::size_t>(b)];
      for (index_t h = 0; h < heads(); ++h) {
        for (index_t t = 0; t < count; ++t) {
          detail::store_row(k.row(b, h, t), k_.row(b, h, length(b) + t), key_width());
          detail::store_row(v.row(b, h, t), v_.row(b, h, length(b) + t), value_width());
        }
      }
      lengths_.grow(b, count);
    }
  }

  /// Forgets all tokens of a sequence from position `length` on: a rejected draft, say.
  void truncate(index_t batch, index_t length) { lengths_.truncate(batch, length); }

  /// Forgets everything.
  void clear() { lengths_.clear(); }

  index_t batches() const { return k_.extent(0); }
  index_t heads() const { return k_.extent(1); }
  index_t capacity() const { return k_.extent(2); }
  index_t key_width() const { return k_.extent(3); }
  index_t value_width() const { return v_.extent(3); }
  index_t length(index_t batch) const { return lengths_.of(batch); }
  std::span<const index_t> lengths() const { return lengths_.all(); }

  tensor_view<const E, 4> keys() const { return k_; }    // (B, Hk, capacity, D); rows from length(b) on hold anything
  tensor_view<const E, 4> values() const { return v_; }  // (B, Hk, capacity, Dv)

  /// Bytes of all keys and values that the cache has room for.
  index_t bytes() const { return (k_.size() + v_.size()) * static_cast<index_t>(sizeof(E)); }

 private:
  template <class K>
  void check_append(const tensor_view<const K, 4>& k, const tensor_view<const K, 4>& v,
                    std::span<const index_t> counts) const {
    const index_t T = k.extent(2);
    detail::check_input("k", k);
    detail::check_input("v", v);
    detail::check_shape("k", k, {batches(), heads(), T, key_width()}, "(B, Hk, T, D) of the cache");
    detail::check_shape("v", v, {batches(), heads(), T, value_width()}, "(B, Hk, T, Dv) of the cache");
    lengths_.check_append("k", T, counts, capacity());
  }

  tensor<E, 4> k_;  // (B, Hk, capacity, D)
  tensor<E, 4> v_;  // (B, Hk, capacity, Dv)
  detail::token_counts lengths_;
};

/// Softmax attention of T new queries over everything in a cache: the queries are the last T positions of each sequence, so
/// append their keys and values first. T = 1 is the decode step; it allocates nothing after the first.
///
/// Shapes     q: (B, H, T, D); out: (B, H, T, Dv).
/// Errors     as softmax_attention; value_error if options.sequences is given: lengths are the cache's.
template <class Q, class E, class O, class Mask = all_keys, class Score = plain_score,
          class Normalizer = softmax_weights, class Edit = no_edit, class Rotary = no_rotary, class Lse = float,
          executor Executor = calling_thread>
void softmax_attention(tensor_view<const Q, 4> q, const kv_cache<E>& cache, tensor_view<O, 4> out,
                       const softmax_options<Mask, Score, whole_sequences, Normalizer, Edit, Rotary, Lse>& options = {},
                       Executor&& on = {}) {
  const softmax_options<Mask, Score, lengths, Normalizer, Edit, Rotary, Lse> with_lengths{
      .mask = options.mask,
      .score = options.score,
      .scale = options.scale,
      .sequences = {.keys = cache.lengths()},
      .normalizer = options.normalizer,
      .edit = options.edit,
      .rotary = options.rotary,
      .lse = options.lse};
  softmax_attention(softmax_inputs<Q, E>{.q = q, .k = cache.keys(), .v = cache.values()}, out, with_lengths, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
