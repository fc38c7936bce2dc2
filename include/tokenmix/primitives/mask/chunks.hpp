// SPDX-License-Identifier: Apache-2.0
/// @file Chunks of tokens that see themselves and some of their neighbours.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Positions are cut into chunks of `size`, counted from the first key; a query sees the keys of its own chunk, of `before`
/// chunks before it and of `after` chunks after it.
///
///     floor(query / size) - before <= floor(key / size) <= floor(query / size) + after
///
/// `causal{} & chunks{.size = C, .before = 1}` is a chunk and the previous one, up to the query. Aligned to the end, as `causal` is:
/// queries are the last T of S positions, and chunks are those of the keys.
struct chunks {
  using is_mask = void;
  index_t size = 1;    ///< >= 1
  index_t before = 0;  ///< >= 0
  index_t after = 0;   ///< >= 0

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    // What stands still is divided, what has lanes is compared; where both have, lane by lane.
    if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(where.query)>>) {
      const index_t chunk = chunk_of(where.query);
      return where.key >= first(chunk - before) && where.key < first(chunk + after + 1);
    } else if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(where.key)>>) {
      const index_t chunk = chunk_of(where.key);
      return where.query >= first(chunk - after) && where.query < first(chunk + before + 1);
    } else {
      const auto of_query = where.query.transform([this](index_t p) { return chunk_of(p); });
      const auto of_key = where.key.transform([this](index_t p) { return chunk_of(p); });
      return of_key >= of_query - before && of_key <= of_query + after;
    }
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t one = chunk_of(block.query_first), last = chunk_of(block.query_last - 1);
    return detail::interval_run(block.keys, key, first(one - before), first(last + after + 1) - 1, first(last - before),
                                first(one + after + 1) - 1);
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const {
    const index_t chunk = chunk_of(key);
    return detail::seen_by_interval(block, first(chunk - after), first(chunk + before + 1) - 1);
  }
  constexpr void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (size < 1) detail::fail_value("chunks.size is ", size, ", expected 1 or more tokens");
    if (before < 0) detail::fail_value("chunks.before is ", before, ", expected 0 or more chunks");
    if (after < 0) detail::fail_value("chunks.after is ", after, ", expected 0 or more chunks");
  }

 private:
  constexpr index_t chunk_of(index_t position) const {
    return position >= 0 ? position / size : -((size - 1 - position) / size);
  }
  // Chunks beyond all positions begin where no position is, and nothing overflows.
  constexpr index_t first(index_t chunk) const {
    constexpr index_t far = index_t{1} << 60;
    index_t position = 0;
    if (chunk > far || chunk < -far || __builtin_mul_overflow(chunk, size, &position)) return chunk < 0 ? -far : far;
    return std::clamp(position, -far, far);
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
