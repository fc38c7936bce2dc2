// SPDX-License-Identifier: Apache-2.0
/// @file Up to sixteen bytes, loaded and stored without touching a byte beyond them.
#pragma once

#include <tokenmix/core/types.hpp>

#include <bit>
#include <cstdint>
#include <cstring>  // std::memcpy

namespace tokenmix::inline TOKENMIX_ABI::simd::detail {

static_assert(std::endian::native == std::endian::little);

/// Sixteen bytes in memory order: the first eight, then the rest.
struct sixteen_bytes {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

template <class Word>
TOKENMIX_ALWAYS_INLINE Word load_word(const unsigned char* p) {
  Word word;
  std::memcpy(&word, p, sizeof(Word));
  return word;
}

template <class Word>
TOKENMIX_ALWAYS_INLINE void store_word(unsigned char* p, std::uint64_t bytes) {
  const auto word = static_cast<Word>(bytes);
  std::memcpy(p, &word, sizeof(Word));
}

// Shifts by 64 are not defined; two halves of an even shift are.
TOKENMIX_ALWAYS_INLINE std::uint64_t shift_left(std::uint64_t word, index_t bytes) {
  return (word << (4 * bytes)) << (4 * bytes);
}
TOKENMIX_ALWAYS_INLINE std::uint64_t shift_right(std::uint64_t word, index_t bytes) {
  return (word >> (4 * bytes)) >> (4 * bytes);
}

/// The n bytes at p, n in [0, 16], and zeros behind them. Two words that overlap cover every n, so there is no loop.
TOKENMIX_ALWAYS_INLINE sixteen_bytes load_bytes(const void* from, index_t n) {
  const auto* p = static_cast<const unsigned char*>(from);
  if (n >= 8) return {load_word<std::uint64_t>(p), shift_right(load_word<std::uint64_t>(p + n - 8), 16 - n)};
  if (n >= 4) return {load_word<std::uint32_t>(p) | shift_left(load_word<std::uint32_t>(p + n - 4), n - 4), 0};
  if (n >= 2) return {load_word<std::uint16_t>(p) | shift_left(load_word<std::uint16_t>(p + n - 2), n - 2), 0};
  if (n == 1) return {*p, 0};
  return {};
}

/// Writes the first n bytes to p, n in [0, 16].
TOKENMIX_ALWAYS_INLINE void store_bytes(void* to, sixteen_bytes bytes, index_t n) {
  auto* p = static_cast<unsigned char*>(to);
  if (n >= 8) {
    store_word<std::uint64_t>(p, bytes.low);
    store_word<std::uint64_t>(p + n - 8, shift_right(bytes.low, n - 8) | shift_left(bytes.high, 16 - n));
  } else if (n >= 4) {
    store_word<std::uint32_t>(p, bytes.low);
    store_word<std::uint32_t>(p + n - 4, shift_right(bytes.low, n - 4));
  } else if (n >= 2) {
    store_word<std::uint16_t>(p, bytes.low);
    store_word<std::uint16_t>(p + n - 2, shift_right(bytes.low, n - 2));
  } else if (n == 1) {
    *p = static_cast<unsigned char>(bytes.low);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd::detail
