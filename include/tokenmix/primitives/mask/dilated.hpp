// SPDX-License-Identifier: Apache-2.0
/// @file Every n-th key, counted from the query.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>

#include <bit>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

constexpr bool is_multiple(index_t x, index_t of) { return x % of == 0; }

/// Lane by lane; a division per lane would cost more than the score that it guards.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::lane_mask<T> is_multiple(simd::positions<T> x, index_t of) {
  // Lanes are within 2^30 of the base, so with the base reduced and a multiple of at least 2^30 added they are in [0, 2^32).
  constexpr index_t reach = index_t{1} << 30;
  if (of > reach) return x.transform([of](index_t p) { return index_t{p % of != 0}; }) == 0;
  const index_t remainder = x.base % of;
  const auto shift = static_cast<std::uint32_t>(remainder + (remainder < 0 ? of : 0) + (reach + of - 1) / of * of);

  // n = 2^zeros odd divides x in 32 bits exactly if x / odd (a product with the inverse), rotated, is at most (2^32 - 1) / n.
  const auto divisor = static_cast<std::uint32_t>(of);
  const int zeros = std::countr_zero(divisor);
  const std::uint32_t odd = divisor >> zeros;
  std::uint32_t inverse = odd;  // right in 3 bits, doubled by each step
  for (int step = 0; step < 4; ++step) inverse *= 2u - odd * inverse;
  const std::uint32_t largest = ~std::uint32_t{0} / divisor;

  alignas(64) simd::integer_of<T> offset[static_cast<std::size_t>(simd::lanes<T>)];
  simd::store(offset, x.offset);
  std::uint32_t word = 0;
  for (index_t i = 0; i < simd::lanes<T>; ++i) {
    const std::uint32_t quotient = (static_cast<std::uint32_t>(offset[i]) + shift) * inverse;
    word |= std::uint32_t{std::rotr(quotient, zeros) <= largest} << i;
  }
  return {simd::from_bits<T>(word)};
}

}  // namespace detail

/// A query sees every `dilation`-th key, counted from its own position in both directions.
///
///     (query - key) % dilation == 0
///
/// `causal{} & window{.left = 7 * 4} & dilated{.dilation = 4}` is a dilated window of 8 keys. Runs of a single query skip the
/// keys between; a block of `dilation` and more consecutive queries sees some of every key.
///
/// Source     Child et al. 2019, Sparse Transformers ("strided"); Beltagy et al. 2020, Longformer ("dilated").
struct dilated {
  using is_mask = void;
  index_t dilation = 1;  ///< >= 1

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::is_multiple(where.query - where.key, dilation);
  }
  constexpr span run(const query_block& block, index_t key) const {
    const index_t count = block.query_last - block.query_first;
    if (dilation == 1) return {key, block.keys, coverage::all};
    if (count >= dilation) return {key, block.keys, coverage::some};
    const index_t remainder = (key - block.query_first) % dilation;
    const index_t phase = remainder < 0 ? remainder + dilation : remainder;  // from 0; the queries take [0, count)
    if (phase >= count) return {key, std::min(key + (dilation - phase), block.keys), coverage::none};
    return {key, std::min(key + (count - phase), block.keys), count == 1 ? coverage::all : coverage::some};
  }
  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (dilation < 1) detail::fail_value("dilated.dilation is ", dilation, ", expected 1 or more");
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
