// SPDX-License-Identifier: Apache-2.0
/// @file Loops over registers, written out: an array that is only indexed by constants stays in registers.
#pragma once

#include <tokenmix/core/types.hpp>

#include <type_traits>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {
template <class F, index_t... I>
TOKENMIX_ALWAYS_INLINE void call_with_each(F&& f, std::integer_sequence<index_t, I...>) {
  (static_cast<void>(f(std::integral_constant<index_t, I>{})), ...);
}
}  // namespace detail

/// f(0), f(1), ..., f(N - 1), each with a constant that converts to index_t.
template <index_t N, class F>
TOKENMIX_ALWAYS_INLINE void unroll(F&& f) {
  detail::call_with_each(f, std::make_integer_sequence<index_t, N>{});
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
