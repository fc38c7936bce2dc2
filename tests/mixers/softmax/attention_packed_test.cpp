// SPDX-License-Identifier: Apache-2.0
// Sequences packed into one buffer, many of them empty: against the oracle, with gaps poisoned and left alone.
//
// Budget: the float gate inside sequences; outside not one byte of the output or the lse changes.
#include <mixers/softmax/sequence_cases.hpp>

namespace {

using cases::index_t;

template <class I>
void packed_sequences(std::uint64_t first_seed) {
  cases::random_numbers random(first_seed);
  const int count = cases::reduced_sweep ? 10 : 100;
  for (int n = 0; n < count; ++n) {
    const index_t sequences_count = random.integer(0, 6);
    std::vector<I> offsets{static_cast<I>(random.integer(0, 3))}, key_offsets{static_cast<I>(random.integer(0, 3))};
    const bool same = n % 3 == 0;
    for (index_t i = 0; i < sequences_count; ++i) {
      offsets.push_back(static_cast<I>(offsets.back() + random.one_of(cases::length_choices())));
      key_offsets.push_back(
          static_cast<I>(key_offsets.back() + random.one_of(cases::length_choices()) + (n % 10 == 7 ? 300 : 0)));
    }
    if (same) key_offsets = offsets;
    const auto sequences = cases::packed_sequences_of(offsets, key_offsets);
    const cases::shape size{1,  4, 2, offsets.back() + random.integer(0, 3), key_offsets.back() + random.integer(0, 3),
                            16, 8};
    if (same) key_offsets.clear();
    cases::check_sequences(
        size, mix::packed{.offsets = std::span<const I>(offsets), .key_offsets = std::span<const I>(key_offsets)},
        sequences, first_seed + static_cast<std::uint64_t>(n), "packed");
  }
}

TEST(attention_packed, packed_by_32_bit_offsets) { packed_sequences<std::int32_t>(1000); }
TEST(attention_packed, packed_by_64_bit_offsets) { packed_sequences<std::int64_t>(2000); }

TEST(attention_packed, only_empty_sequences) {
  const std::vector<std::int32_t> offsets{2, 2, 2, 2};
  cases::check_sequences({1, 2, 1, 5, 5, 8, 8}, mix::packed{.offsets = std::span<const std::int32_t>(offsets)},
                         {{0, 0, 2, 0, 2, 0}, {1, 0, 2, 0, 2, 0}, {2, 0, 2, 0, 2, 0}}, 1, "all empty");
}

}  // namespace
