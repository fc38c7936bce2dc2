// SPDX-License-Identifier: Apache-2.0
/// @file Keys and values of which every query has a list, as a source for the tiles of softmax attention.
#pragma once

#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/mixers/softmax/detail/finish.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/normalizer.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Position p of query t is row indices[t][p / block] * block + p % block of k and v.
template <class E>
struct listed_keys {
  using stored_type = E;

  tensor_view<const E, 4> k{};              // (B, Hk, S, D)
  tensor_view<const E, 4> v{};              // (B, Hk, S, Dv)
  tensor_view<const index_t, 4> indices{};  // (B, 1 | Hi, T, n), Hi a multiple of Hk
  index_t block = 1;

  row_run<E> keys(const sequence& seq, index_t head, index_t position) const { return run(k, seq, head, position); }
  row_run<E> values(const sequence& seq, index_t head, index_t position) const { return run(v, seq, head, position); }
  constexpr index_t batches() const { return k.extent(0); }
  constexpr index_t heads() const { return std::max(k.extent(1), indices.extent(1)); }
  constexpr index_t most_keys() const { return indices.extent(3) * block; }
  constexpr index_t extra_keys() const { return 0; }
  constexpr index_t key_width() const { return k.extent(3); }
  constexpr index_t value_width() const { return v.extent(3); }

 private:
  row_run<E> run(const tensor_view<const E, 4>& rows, const sequence& seq, index_t head, index_t position) const {
    const index_t of_list = indices.extent(1) == 1 ? 0 : head;
    const index_t inside = position % block;
    const index_t row = indices(seq.batch, of_list, seq.query_row, position / block) * block + inside;
    const index_t stored_head = head / (heads() / k.extent(1));
    return {rows.row(seq.batch, stored_head, row), rows.stride(2),
            std::min({block - inside, rows.extent(2) - row, seq.keys - position})};
  }
};

/// How many tokens the list of a query has.
struct listed_counts {
  tensor_view<const index_t, 3> counts{};  // (B, 1 | Hi, T); all `most` if empty
  index_t most = 0;
  index_t query_heads = 1;

  index_t of(index_t batch, index_t list, index_t query) const {
    return counts.data() == nullptr ? most : counts(batch, list, query);
  }
  index_t lists() const { return counts.data() == nullptr ? 1 : counts.extent(1); }
};

/// Every query is a sequence of its own, as long as the longest list that its heads have.
struct one_sequence_per_query {
  const listed_counts& counts;
  index_t queries;

  index_t count(index_t batches) const { return batches * queries; }
  sequence at(index_t i, index_t /*queries*/, index_t /*keys*/) const {
    const index_t batch = i / queries, query = i % queries;
    index_t keys = 0;
    for (index_t list = 0; list < counts.lists(); ++list) keys = std::max(keys, counts.of(batch, list, query));
    return {i, batch, query, 1, 0, keys};
  }
};

/// Hides what lies behind the end of a head's list.
struct listed_mask {
  using is_mask = void;
  const listed_counts& counts;
  index_t queries;

  index_t count(const query_block& block) const {
    const index_t list = counts.lists() == 1 ? 0 : block.head_first / (counts.query_heads / counts.lists());
    return counts.of(block.batch / queries, list, block.batch % queries);
  }
  bool operator()(const index& pair) const {
    return pair.key < count({pair.batch, pair.head, pair.head + 1, 0, 1, 1, pair.keys});
  }
  // All heads of a block share their key head, and so their list.
  span run(const query_block& block, index_t key) const {
    const index_t last = count(block) - 1;
    return interval_run(block.keys, key, 0, last, 0, last);
  }
};

/// Softmax attention of every query over its own list. Arguments are checked.
template <class Q, class E, class O, class Lse, class Executor>
void attend_lists(const tensor_view<const Q, 4>& q, const listed_keys<E>& source,
                  const tensor_view<const index_t, 3>& counts, double scale, const tensor_view<O, 4>& out,
                  const tensor_view<Lse, 3>& lse, Executor& on) {
  const listed_counts lengths_of{counts, source.most_keys(), q.extent(1)};
  const index_t queries = q.extent(2);
  if (queries == 0) return;
  // The options of softmax_attention with sequences that only this kernel has.
  struct {
    listed_mask mask;
    plain_score score;
    std::optional<double> scale;
    one_sequence_per_query sequences;
    softmax_weights normalizer;
    no_edit edit;
    no_rotary rotary;
  } const options{{lengths_of, queries}, {}, scale, {lengths_of, queries}, {}, {}, {}};
  using T = accumulator_t<Q>;
  attend(q, source, options, attention_output<O, Lse, T>{out, lse, {}, false}, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
