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
  /// Only scores above `least` are taken, all if it is NaN. No row has more than `most` keys.
  running_choice(index_t rows, index_t k, index_t most, T least, scratch_frame& frame) : k_(std::min(k, most)) {
    // Rows are padded to registers: NaN may be listed in lanes that are no rows.
    const index_t padded = padded_to_lanes(rows);
    room_ = padded_to_lanes(std::min(2 * k_ + 128, most));
    thresholds_ = frame.take<T>(padded);
    counts_ = frame.take<index_t>(padded);
    score_stride_ = odd_lines<T>(room_);
    key_stride_ = odd_lines<index_t>(room_);
    scores_ = frame.take<T>(padded * score_stride_);
    keys_ = frame.take<index_t>(padded * key_stride_);
    std::fill_n(thresholds_, rows, least);
    std::fill(thresholds_ + rows, thresholds_ + padded, std::numeric_limits<T>::infinity());
    std::fill_n(counts_, padded, index_t{0});
  }

  /// The scores of keys [key, key + count) against rows side by side: scores (count, Vectors registers). Of visible, if it is not
  /// null, bit r of word [j][v] says whether row v L + r sees key j.
  template <index_t Vectors>
  TOKENMIX_NOINLINE void take_columns(const T* scores, index_t count, index_t key, const std::uint32_t* visible) {
    if (k_ == 0) return;
    constexpr index_t width = Vectors * L;
    for (index_t first = 0; first < count; first += keys_at_a_time) {
      // Where the taken scores stand is written down without a branch that could be guessed wrong; `ahead` are written in any case.
      std::uint16_t taken[static_cast<std::size_t>(keys_at_a_time * width + ahead)];
      const index_t n = list_taken<Vectors>(scores + first * width, std::min(keys_at_a_time, count - first),
                                            visible == nullptr ? nullptr : visible + first * Vectors, taken);
      for (index_t i = 0; i < n; ++i) {
        const index_t at = taken[i];
        append(at % width, scores[first * width + at], key + first + at / width);
      }
    }
  }

  /// The scores of keys [key, key + count) against one row; of visible, if it is not null, bit i of word [j] says whether the row sees
  /// key j L + i.
  TOKENMIX_NOINLINE void take_row(index_t row, const T* scores, index_t count, index_t key,
                                  const std::uint32_t* visible) {
    if (k_ == 0) return;
    for (index_t j = 0; j < count; j += L) {
      const index_t n = std::min(L, count - j);
      const auto taken = ~(simd::load_n(scores + j, n) <= simd::batch<T>(thresholds_[row]));
      std::uint32_t word = simd::bits<T>(taken & simd::first_lanes<T>(n));
      if (visible != nullptr) word &= visible[j / L];
      for (; word != 0; word &= word - 1) {
        const index_t at = j + std::countr_zero(word);
        append(row, scores[at], key + at);
      }
    }
  }

  /// Leaves no more than k in a row's list; returns how many.
  index_t finish(index_t row) {
    if (counts_[row] > k_) keep_largest(row, k_);
    return counts_[row];
  }
  index_t count(index_t row) const { return counts_[row]; }
  /// A row's list, by ascending keys, with room for whole registers.
  T* scores(index_t row) { return scores_ + row * score_stride_; }
  const index_t* keys(index_t row) const { return keys_ + row * key_stride_; }

 private:
  static constexpr index_t padded_to_lanes(index_t n) { return (n + L - 1) / L * L; }

  static constexpr index_t keys_at_a_time = 64;
  static constexpr index_t ahead = 4;

  template <index_t Vectors>
  TOKENMIX_ALWAYS_INLINE index_t list_taken(const T* scores, index_t count, const std::uint32_t* visible,
                                            std::uint16_t* taken) const {
    simd::batch<T> threshold[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { threshold[v] = simd::load(thresholds_ + v * L); });
    index_t n = 0;
    for (index_t j = 0; j < count; ++j, scores += Vectors * L) {
      std::uint64_t word = 0, seen = 0;
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        // NaN is taken: it is among the k largest where numbers are few.
        word |= static_cast<std::uint64_t>(simd::bits<T>(~(simd::load(scores + v * L) <= threshold[v]))) << (v * L);
        if (visible != nullptr) seen |= static_cast<std::uint64_t>(visible[j * Vectors + v]) << (v * L);
      });
      if (visible != nullptr) word &= seen;
      const index_t next = n + std::popcount(word);
      const auto write = [&](index_t to) TOKENMIX_LAMBDA_INLINE {
        taken[to] = static_cast<std::uint16_t>(j * Vectors * L + std::countr_zero(word));
        word &= word - 1;
      };
      simd::unroll<ahead>([&](auto i) TOKENMIX_LAMBDA_INLINE { write(n + i); });
      for (n += ahead; n < next; ++n) write(n);
      n = next;
    }
    return n;
  }

  /// The ends of the lists are written in turn, and must not fall into the same few sets of the cache.
  template <class E>
  static constexpr index_t odd_lines(index_t n) {
    constexpr index_t line = 64 / static_cast<index_t>(sizeof(E));
    return ((n + line - 1) / line | 1) * line;
  }

  TOKENMIX_ALWAYS_INLINE void append(index_t row, T score, index_t key) {
    const index_t at = counts_[row]++;
    scores_[row * score_stride_ + at] = score;
    keys_[row * key_stride_ + at] = key;
    if (at + 1 == room_ && room_ > k_) keep_largest(row, k_ + (room_ - k_) / 32);
  }

  // Leaves the k largest in a list, or up to `most`: they are found sooner.
  TOKENMIX_NOINLINE void keep_largest(index_t row, index_t most) {
    T* values = scores(row);
    index_t* names = keys_ + row * key_stride_;
    const index_t n = counts_[row];
    const largest_bound<T> bound = bound_of_largest(values, n, k_, most);
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
  index_t score_stride_ = 0;
  index_t key_stride_ = 0;
  T* thresholds_ = nullptr;  // (rows, padded)
  index_t* counts_ = nullptr;
  T* scores_ = nullptr;      // (rows, room), rows apart by their stride
  index_t* keys_ = nullptr;  // (rows, room)
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
