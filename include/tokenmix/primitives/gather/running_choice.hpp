// SPDX-License-Identifier: Apache-2.0
/// @file The k largest of scores that come a few at a time, for several rows, without keeping the others.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/gather/largest.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The k largest scores of each of some rows, and their keys: ties by key, NaN last.
///
/// The keys of a row come in ascending order. What is not above the k-th largest score so far cannot be among the k largest, and
/// after the first scores most are not: one comparison dismisses a register of them. The others are listed; when a list is full,
/// its k largest stay, and the threshold rises. Scratch: (2 k + 128) (sizeof(T) + sizeof(index_t)) bytes per row.
template <class T>
class running_choice {
 public:
  static constexpr index_t L = simd::lanes<T>;

  running_choice() = default;
  /// Scores from `least` on are not taken: -infinity, or NaN if all are. No row has more than `most` keys.
  running_choice(index_t rows, index_t k, index_t most, T least, scratch_frame& frame) : k_(std::min(k, most)) {
    // Rows are padded to registers: NaN may be listed in lanes that are no rows.
    const index_t padded = padded_to_lanes(rows);
    room_ = padded_to_lanes(std::min(2 * k_ + 128, most));
    thresholds_ = frame.take<T>(padded);
    counts_ = frame.take<index_t>(padded);
    scores_ = frame.take<T>(padded * room_);
    keys_ = frame.take<index_t>(padded * room_);
    std::fill_n(thresholds_, rows, least);
    std::fill(thresholds_ + rows, thresholds_ + padded, std::numeric_limits<T>::infinity());
    std::fill_n(counts_, padded, index_t{0});
  }

  /// The scores of keys [key, key + count) against rows side by side: scores (count, Vectors registers). Of visible, if it is not
  /// null, bit r of word [j][v] says whether row v L + r sees key j.
  template <index_t Vectors>
  TOKENMIX_NOINLINE void take_columns(const T* scores, index_t count, index_t key, const std::uint32_t* visible) {
    if (k_ == 0) return;
    simd::batch<T> threshold[static_cast<std::size_t>(Vectors)];
    const auto load_thresholds = [&]() TOKENMIX_LAMBDA_INLINE {
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { threshold[v] = simd::load(thresholds_ + v * L); });
    };
    load_thresholds();
    for (index_t j = 0; j < count; ++j, scores += Vectors * L) {
      std::uint64_t taken = 0;
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        // NaN is taken: it is among the k largest where numbers are few.
        taken |= static_cast<std::uint64_t>(simd::bits<T>(~(simd::load(scores + v * L) <= threshold[v]))) << (v * L);
      });
      if (taken == 0) [[likely]]
        continue;
      if (visible != nullptr) taken &= word_of<Vectors>(visible + j * Vectors);
      bool raised = false;
      for (; taken != 0; taken &= taken - 1) {
        const index_t row = std::countr_zero(taken);
        raised |= append(row, scores[row], key + j);
      }
      if (raised) load_thresholds();
    }
  }

  /// The scores of keys [key, key + count) against one row.
  TOKENMIX_NOINLINE void take_row(index_t row, const T* scores, index_t count, index_t key) {
    if (k_ == 0) return;
    for (index_t j = 0; j < count; j += L) {
      const index_t n = std::min(L, count - j);
      const auto kept = ~(simd::load_n(scores + j, n) <= simd::batch<T>(thresholds_[row]));
      for (std::uint32_t word = simd::bits<T>(kept & simd::first_lanes<T>(n)); word != 0; word &= word - 1) {
        const index_t at = j + std::countr_zero(word);
        append(row, scores[at], key + at);
      }
    }
  }

  /// Leaves no more than k in a row's list; returns how many.
  index_t finish(index_t row) {
    if (counts_[row] > k_) keep_largest(row);
    return counts_[row];
  }
  index_t count(index_t row) const { return counts_[row]; }
  /// A row's list, by ascending keys, with room for whole registers.
  T* scores(index_t row) { return scores_ + row * room_; }
  const index_t* keys(index_t row) const { return keys_ + row * room_; }

 private:
  static constexpr index_t padded_to_lanes(index_t n) { return (n + L - 1) / L * L; }

  template <index_t Vectors>
  static TOKENMIX_ALWAYS_INLINE std::uint64_t word_of(const std::uint32_t* words) {
    std::uint64_t word = 0;
    for (index_t v = 0; v < Vectors; ++v) word |= static_cast<std::uint64_t>(words[v]) << (v * L);
    return word;
  }

  // Whether the threshold of the row has risen. A register may hold scores that were above the threshold only before it rose.
  TOKENMIX_ALWAYS_INLINE bool append(index_t row, T score, index_t key) {
    const index_t at = counts_[row]++;
    scores_[row * room_ + at] = score;
    keys_[row * room_ + at] = key;
    if (at + 1 < room_) return false;
    if (room_ <= k_) return false;
    keep_largest(row);
    return true;
  }

  TOKENMIX_NOINLINE void keep_largest(index_t row) {
    T* values = scores(row);
    index_t* names = keys_ + row * room_;
    const index_t n = counts_[row];
    const largest_bound<T> bound = bound_of_largest(values, n, k_);
    index_t ties = bound.ties, kept = 0;
    if (ties == 0 && bound.value == bound.value) {
      for (index_t i = 0; i < n; ++i) {  // without branches: what is not kept is written over
        const T value = values[i];
        const index_t name = names[i];
        values[kept] = value;
        names[kept] = name;
        kept += value > bound.value ? 1 : 0;
      }
    } else {
      for (index_t i = 0; i < n; ++i) {
        if (!bound.is_above(values[i]) && !(bound.is_tied(values[i]) && ties-- > 0)) continue;
        values[kept] = values[i];
        names[kept++] = names[i];
      }
    }
    counts_[row] = kept;
    if (bound.value == bound.value || bound.ties == 0) thresholds_[row] = *std::min_element(values, values + kept);
  }

  index_t k_ = 0;
  index_t room_ = 0;
  T* thresholds_ = nullptr;  // (rows, padded)
  index_t* counts_ = nullptr;
  T* scores_ = nullptr;      // (rows, room)
  index_t* keys_ = nullptr;  // (rows, room)
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
