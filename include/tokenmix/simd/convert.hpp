// SPDX-License-Identifier: Apache-2.0
/// @file Elements of any storage type as registers of the type that they are computed in, and back.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/simd/narrow.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

namespace detail {

template <class E>
struct computed {
  using type = accumulator_t<E>;
};
template <>
struct computed<std::int8_t> {
  using type = float;
};

}  // namespace detail

/// The type that E is computed in: accumulator_t, and float for 8-bit codes.
template <class E>
using computed_t = typename detail::computed<std::remove_cv_t<E>>::type;

/// The numbers at p, one per lane.
///
/// Numerics   every number of E is one of T: exact. A NaN of a 16-bit type becomes quiet and keeps sign and payload.
/// Errors     reads lanes<T> elements, no alignment needed.
template <class T, class E>
TOKENMIX_ALWAYS_INLINE batch<T> load_as(const E* p) {
  static_assert(std::is_same_v<T, computed_t<E>>);
  if constexpr (std::is_same_v<T, E>) {
    return load(p);
  } else if constexpr (std::is_same_v<E, bfloat16>) {
    return detail::widen_bfloat16(detail::load_halves(p));
  } else if constexpr (std::is_same_v<E, float16>) {
    return detail::widen_float16(detail::load_halves(p));
  } else {
    return detail::widen_int8(detail::load_quarters(p));
  }
}

/// The first n numbers at p, n in [0, lanes<T>], then zeros. Reads n elements and not one byte more.
template <class T, class E>
TOKENMIX_ALWAYS_INLINE batch<T> load_as_n(const E* p, index_t n) {
  static_assert(std::is_same_v<T, computed_t<E>>);
  if constexpr (std::is_same_v<T, E>) {
    return load_n(p, n);
  } else if constexpr (std::is_same_v<E, bfloat16>) {
    return detail::widen_bfloat16(detail::load_halves_n(p, n));
  } else if constexpr (std::is_same_v<E, float16>) {
    return detail::widen_float16(detail::load_halves_n(p, n));
  } else {
    return detail::widen_int8(detail::load_quarters_n(p, n));
  }
}

/// Writes every lane to p as E.
///
/// Numerics   rounded to nearest, ties to even, subnormals kept; NaN stays NaN with its sign. Above the largest number
///            of a floating type lies infinity; 8-bit codes saturate at -128 and 127 and are 0 for NaN.
template <class E, class T>
TOKENMIX_ALWAYS_INLINE void store_as(E* p, const xsimd::batch<T, arch>& value) {
  static_assert(std::is_same_v<T, computed_t<E>>);
  if constexpr (std::is_same_v<T, E>) {
    store(p, value);
  } else if constexpr (std::is_same_v<E, bfloat16>) {
    detail::store_halves(p, detail::narrow_bfloat16(value));
  } else if constexpr (std::is_same_v<E, float16>) {
    detail::store_halves(p, detail::narrow_float16(value));
  } else {
    detail::store_quarters(p, detail::narrow_int8(value));
  }
}

/// Writes lanes [0, n) to p as E, n in [0, lanes<T>], and not one byte more.
template <class E, class T>
TOKENMIX_ALWAYS_INLINE void store_as_n(E* p, const xsimd::batch<T, arch>& value, index_t n) {
  static_assert(std::is_same_v<T, computed_t<E>>);
  if constexpr (std::is_same_v<T, E>) {
    store_n(p, value, n);
  } else if constexpr (std::is_same_v<E, bfloat16>) {
    detail::store_halves_n(p, detail::narrow_bfloat16(value), n);
  } else if constexpr (std::is_same_v<E, float16>) {
    detail::store_halves_n(p, detail::narrow_float16(value), n);
  } else {
    detail::store_quarters_n(p, detail::narrow_int8(value), n);
  }
}

/// One number as another type, with the bits that store_as and load_as give.
template <class To, class From>
TOKENMIX_ALWAYS_INLINE To to(From value) {
  if constexpr (std::is_same_v<To, std::int8_t>) {
    if (!(value == value)) return 0;
    const From bounded = value < From(-128) ? From(-128) : value > From(127) ? From(127) : value;
    // Adding and taking away 1.5 * 2^23 rounds to an integer, ties to even.
    const float shifted = static_cast<float>(bounded) + 0x1.8p23f;
    return static_cast<std::int8_t>(shifted - 0x1.8p23f);
  } else {
    return static_cast<To>(value);
  }
}

/// n consecutive elements from one type to another; one of the two is the type that the other is computed in.
///
/// Aliasing   none.
/// Errors     reads and writes n elements, no more.
template <class From, class To>
TOKENMIX_ALWAYS_INLINE void convert_row(const From* from, To* to, index_t n) {
  constexpr bool widens = std::is_same_v<computed_t<From>, To>;
  using T = std::conditional_t<widens, To, From>;
  index_t i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    if constexpr (widens) {
      store(to + i, load_as<T>(from + i));
    } else {
      store_as(to + i, load(from + i));
    }
  }
  if (i < n) {
    if constexpr (widens) {
      store_n(to + i, load_as_n<T>(from + i, n - i), n - i);
    } else {
      store_as_n(to + i, load_n(from + i, n - i), n - i);
    }
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
