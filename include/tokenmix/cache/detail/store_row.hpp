// SPDX-License-Identifier: Apache-2.0
/// @file A row of a cache, rounded to what the cache stores.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/simd/convert.hpp>

#include <algorithm>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <class K, class E>
void store_row(const K* from, E* to, index_t n) {
  if constexpr (std::is_same_v<K, E>) {
    std::copy(from, from + n, to);
  } else if constexpr (std::is_same_v<K, accumulator_t<E>> || std::is_same_v<E, accumulator_t<K>>) {
    simd::convert_row(from, to, n);
  } else {
    for (index_t i = 0; i < n; ++i) to[i] = E(static_cast<accumulator_t<E>>(static_cast<accumulator_t<K>>(from[i])));
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
