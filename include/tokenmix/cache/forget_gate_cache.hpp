// SPDX-License-Identifier: Apache-2.0
/// @file The gates of the tokens so far, summed, beside a cache of their keys and values.
#pragma once

#include <tokenmix/cache/detail/token_counts.hpp>
#include <tokenmix/cache/kv_cache.hpp>
#include <tokenmix/mixers/softmax/forgetting_attention.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// Log gates of up to `capacity` tokens of B sequences, kept as the sums that forgetting_attention asks for. T is the type that the
/// attention is computed in.
///
/// A token costs a few additions when it is appended, whatever stands before it; the sums have the bits of those that
/// forgetting_attention makes of all gates at once.
template <class T = float>
class forget_gate_cache {
  using sums_type = detail::gate_sums<T>;

 public:
  using computing_type = T;

  /// Room for (B, Hg, capacity) gates; allocates all of it, now and never again: about 32 bytes each.
  forget_gate_cache(index_t batches, index_t heads, index_t capacity)
      : memory_({batches, heads, sums_type::size(capacity)}), capacity_(capacity), lengths_(batches) {}

  /// Appends the gates of T tokens to every sequence; with `counts`, of the first counts[b] of them to sequence b.
  ///
  /// Shapes     log_decay: (B, Hg, T): what `gate` makes the log gates of, given_log_decay or log_sigmoid_gate.
  /// Errors     shape_error if the shapes differ; value_error if a sequence has no room for T more. Nothing is written then.
  ///            In debug builds a log gate above 0 ends the program.
  template <class G, class Gate = given_log_decay>
  void append(tensor_view<const G, 3> log_decay, const Gate& gate = {}, std::span<const index_t> counts = {}) {
    static_assert(!Gate::takes_rate, "the gate is given_log_decay or log_sigmoid_gate");
    check_append(log_decay, counts);
    for (index_t b = 0; b < batches(); ++b) {
      const index_t count = counts.empty() ? log_decay.extent(2) : counts[static_cast<std::size_t>(b)];
      const index_t first = length(b);
      for (index_t h = 0; h < heads(); ++h) {
        sums_type sums = sums_of(b, h);
        detail::load_log_gates<T>(log_decay, gate, b, h, 0, count, sums.log_gates() + first);
        sums.take(first, first + count);
      }
      lengths_.grow(b, count);
    }
  }

  /// Forgets all tokens of a sequence from position `length` on: a rejected draft, say.
  void truncate(index_t batch, index_t length) { lengths_.truncate(batch, length); }

  /// Forgets everything.
  void clear() { lengths_.clear(); }

  index_t batches() const { return memory_.extent(0); }
  index_t heads() const { return memory_.extent(1); }
  index_t capacity() const { return capacity_; }
  index_t length(index_t batch) const { return lengths_.of(batch); }
  std::span<const index_t> lengths() const { return lengths_.all(); }

  /// Bytes of everything that the cache has room for.
  index_t bytes() const { return memory_.size() * static_cast<index_t>(sizeof(double)); }

  /// What forgetting_attention reads; the sums of a const cache are not written.
  detail::gate_sums<T> sums(index_t batch, index_t head) const {
    return sums_type(const_cast<double*>(memory_.row(batch, head)), capacity_);
  }

 private:
  sums_type sums_of(index_t batch, index_t head) { return sums_type(memory_.row(batch, head), capacity_); }

  template <class G>
  void check_append(const tensor_view<const G, 3>& log_decay, std::span<const index_t> counts) const {
    const index_t tokens = log_decay.extent(2);
    detail::check_view("log_decay", log_decay);
    detail::check_shape("log_decay", log_decay, {batches(), heads(), tokens}, "(B, Hg, T) of the cache");
    lengths_.check_append("log_decay", tokens, counts, capacity());
  }

  tensor<double, 3> memory_;  // (B, Hg, what gate_sums needs)
  index_t capacity_;
  detail::token_counts lengths_;
};

/// Forgetting attention of T new queries over everything in a cache: the queries are the last T positions of each sequence, so
/// append their keys, values and gates first. T = 1 is the decode step: it sums the gates of no token again, and allocates nothing
/// after the first.
///
/// Shapes     q: (B, H, T, D); out: (B, H, T, Dv); H a multiple of the gates' heads.
/// Numerics   the bits of forgetting_attention over views of the same keys, values and gates.
/// Cost       as softmax_attention over the cache, and one addition per pair.
/// Errors     as forgetting_attention; value_error if keys and gates have not the same lengths. Lengths are the caches':
///            options.sequences is whole_sequences, and options.gate given_log_decay: append makes the gates.
template <class T, class Q, class E, class O, class Mask = all_keys, class Lse = float,
          executor Executor = calling_thread>
void forgetting_attention(tensor_view<const Q, 4> q, const kv_cache<E>& cache, const forget_gate_cache<T>& gates,
                          tensor_view<O, 4> out,
                          const forgetting_options<Mask, given_log_decay, whole_sequences, Lse>& options = {},
                          Executor&& on = {}) {
  static_assert(std::is_same_v<T, accumulator_t<Q>>, "gates are summed for the type that is computed in");
  if (gates.batches() != cache.batches())
    detail::fail_shape("gates has ", gates.batches(), " sequences, cache has ", cache.batches(),
                       ": they must be equal");
  for (index_t b = 0; b < cache.batches(); ++b) {
    if (gates.length(b) != cache.length(b)) {
      detail::fail_value("gates: sequence ", b, " has ", gates.length(b), " tokens, the cache has ", cache.length(b),
                         ": append both");
    }
  }
  const index_t heads = gates.heads();
  if (heads == 0 ? q.extent(1) != 0 : q.extent(1) % heads != 0) {
    detail::fail_shape("gates has ", heads, " heads, q has ", q.extent(1),
                       ": the number of query heads must be a multiple of the number of gate heads");
  }
  scratch_frame frame;
  auto* sums = frame.take<detail::gate_sums<T>>(gates.batches() * heads);
  for (index_t i = 0; i < gates.batches() * heads; ++i) sums[i] = gates.sums(i / heads, i % heads);
  const forgetting_options<Mask, given_log_decay, lengths, Lse> with_lengths{
      .mask = options.mask, .scale = options.scale, .sequences = {.keys = cache.lengths()}, .lse = options.lse};
  detail::attend_with_gates<T>(softmax_inputs<Q, E>{.q = q, .k = cache.keys(), .v = cache.values()}, out, with_lengths,
                               sums, heads, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
