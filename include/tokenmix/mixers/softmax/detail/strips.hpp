// SPDX-License-Identifier: Apache-2.0
/// @file The part of a chunk of keys that each register of a tile's queries sees.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/tile_product.hpp>

#include <array>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Registers [vector, vector + vectors) of a tile against keys [key, key + keys) of a chunk.
struct strip {
  index_t vector = 0, vectors = 0;
  index_t key = 0, keys = 0;
};

/// A chunk cut where a border of the mask runs across it: what is in no strip is not visible, and is not computed.
class strips {
 public:
  static constexpr strips whole(index_t vectors, index_t keys) {
    strips all;
    all.add({0, vectors, 0, keys});
    all.whole_ = true;
    return all;
  }

  /// From the words (keys, vectors) of a mask. The chunk stays whole unless an eighth of it can be left out: narrow products
  /// have more loads to each of their fmas.
  static strips of(const std::uint32_t* visible, index_t vectors, index_t keys) {
    if (vectors == 1) return whole(vectors, keys);
    strips cut;
    index_t computed = 0;
    for (index_t v = 0; v < vectors; ++v) {
      index_t first = 0, end = keys;
      while (first < end && visible[first * vectors + v] == 0) ++first;
      while (end > first && visible[(end - 1) * vectors + v] == 0) --end;
      computed += end - first;
      if (first < end) cut.add({v, 1, first, end - first});
    }
    return 8 * computed > 7 * vectors * keys ? whole(vectors, keys) : cut;
  }

  constexpr bool whole() const { return whole_; }
  const strip* begin() const { return strips_.data(); }
  const strip* end() const { return strips_.data() + count_; }

 private:
  constexpr void add(const strip& s) {
    if (count_ > 0) {
      strip& last = strips_[static_cast<std::size_t>(count_ - 1)];
      if (last.vector + last.vectors == s.vector && last.key == s.key && last.keys == s.keys) {
        last.vectors += s.vectors;
        return;
      }
    }
    strips_[static_cast<std::size_t>(count_++)] = s;
  }

  std::array<strip, static_cast<std::size_t>(simd::max_tile_vectors)> strips_{};
  index_t count_ = 0;
  bool whole_ = false;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
