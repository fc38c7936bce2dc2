// SPDX-License-Identifier: Apache-2.0
// Padded sequences of given lengths: against the oracle, with the padding poisoned and every byte outside left alone.
//
// Budget: the float gate inside sequences; outside not one byte of the output or the lse changes.
#include <mixers/softmax/sequence_cases.hpp>

namespace {

using cases::index_t;

TEST(attention_lengths, lengths_of_keys_and_queries) {
  cases::random_numbers random(1);
  const int count = cases::reduced_sweep ? 10 : 120;
  for (int n = 0; n < count; ++n) {
    cases::shape size{random.integer(1, 4), 4, 2, 70, 80, 16, 8};
    if (n % 4 == 0) size = {random.integer(1, 3), 6, 1, 70, 600, 9, 5};
    std::vector<index_t> keys, queries;
    std::vector<reference::softmax_sequence> sequences;
    for (index_t b = 0; b < size.batch; ++b) {
      keys.push_back(random.chance(0.3) ? random.integer(0, size.keys) : random.one_of(cases::length_choices()));
      queries.push_back(random.one_of(cases::length_choices()));
    }
    if (n % 5 == 1) keys.clear();
    if (n % 5 == 2) queries.clear();
    for (index_t b = 0; b < size.batch; ++b) {
      const auto i = static_cast<std::size_t>(b);
      sequences.push_back(
          {b, b, 0, queries.empty() ? size.queries : queries[i], 0, keys.empty() ? size.keys : keys[i]});
    }
    cases::check_sequences(size, mix::lengths{.keys = keys, .queries = queries}, sequences,
                           static_cast<std::uint64_t>(n), "lengths");
  }
}

TEST(attention_lengths, one_query_over_caches_of_different_lengths) {
  std::vector<index_t> keys{0, 1, 255, 256, 257, 700, 64};
  std::vector<reference::softmax_sequence> sequences;
  for (index_t b = 0; b < 7; ++b) sequences.push_back({b, b, 0, 1, 0, keys[static_cast<std::size_t>(b)]});
  cases::check_sequences({7, 8, 2, 1, 700, 32, 16}, mix::lengths{.keys = keys}, sequences, 5, "decode");
}

TEST(attention_lengths, no_tokens_at_all) {
  const std::vector<index_t> zeros{0, 0};
  cases::check_sequences({2, 2, 1, 5, 5, 8, 8}, mix::lengths{.keys = zeros, .queries = zeros},
                         {{0, 0, 0, 0, 0, 0}, {1, 1, 0, 0, 0, 0}}, 2, "all empty");
}

// Keys of no length, queries of some: rows of zeros, written.
TEST(attention_lengths, queries_without_keys) {
  const std::vector<index_t> keys{0, 3}, queries{4, 2};
  cases::check_sequences({2, 2, 1, 5, 5, 8, 8}, mix::lengths{.keys = keys, .queries = queries},
                         {{0, 0, 0, 4, 0, 0}, {1, 1, 0, 2, 0, 3}}, 3, "no keys");
}

}  // namespace
