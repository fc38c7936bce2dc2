// SPDX-License-Identifier: Apache-2.0
/// @file What a mask or a score modifier is asked about: one (query, key) pair, or a row of pairs at once.
#pragma once

#include <tokenmix/simd/lanes.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// Where a score stands: batch, query head, query and key.
///
/// Query and key are positions in their own sequence, on one axis: key s is at position s, and of T queries over S keys
/// the last stands at the last key, so query row t is at position t + S - T (negative for the first rows where T > S).
/// Any of the fields head, query and key may be a row of SIMD lanes (`simd::positions`) instead of a number, so a callable is
/// written once, generic in the index, with `&&`, `||`, `!` and `mix::select` in the places of branches.
template <class Head = index_t, class Query = index_t, class Key = index_t>
struct basic_index {
  index_t batch = 0;    ///< the sequence: batch element, or number of the packed sequence
  Head head{};          ///< query head
  Query query{};        ///< position of the query
  Key key{};            ///< position of the key
  index_t queries = 0;  ///< T of this sequence
  index_t keys = 0;     ///< S of this sequence

  /// The query's row in its own sequence, from 0 to T - 1.
  constexpr auto query_row() const { return query - (keys - queries); }
};

/// The plain index of one pair: what a mask or score that knows no lanes takes.
using index = basic_index<>;

/// The index of one register of pairs while a kernel that computes in T runs with queries in the lanes, or with keys.
template <class T>
using query_lanes_index = basic_index<index_t, simd::positions<T>, index_t>;
template <class T>
using key_lanes_index = basic_index<index_t, index_t, simd::positions<T>>;

namespace detail {

template <class X>
concept whole_number = std::integral<X> && !std::same_as<X, bool>;

/// What a choice by a row of lanes among an A and a B is made of: positions, truth values or scores.
template <class T, class A, class B>
struct selected_lanes;
template <class T, class A, class B>
  requires((std::same_as<A, simd::positions<T>> || whole_number<A>) &&
           (std::same_as<B, simd::positions<T>> || whole_number<B>))
struct selected_lanes<T, A, B> {
  using type = simd::positions<T>;
};
template <class T, class A, class B>
  requires((std::same_as<A, simd::lane_mask<T>> || std::same_as<A, bool>) &&
           (std::same_as<B, simd::lane_mask<T>> || std::same_as<B, bool>))
struct selected_lanes<T, A, B> {
  using type = simd::lane_mask<T>;
};
template <class T, class A, class B>
  requires((std::same_as<A, simd::batch<T>> || std::floating_point<A>) &&
           (std::same_as<B, simd::batch<T>> || std::floating_point<B>))
struct selected_lanes<T, A, B> {
  using type = simd::batch<T>;
};

/// The type T of a row of lanes; void for a number.
template <class X>
struct lanes_of_value {
  using type = void;
};
template <class T>
struct lanes_of_value<simd::positions<T>> {
  using type = T;
};
template <class T>
struct lanes_of_value<simd::lane_mask<T>> {
  using type = T;
};
template <class T>
struct lanes_of_value<simd::batch<T>> {
  using type = T;
};

/// The same value in every lane.
template <class T>
TOKENMIX_ALWAYS_INLINE void spread(index_t value, simd::positions<T>& to) {
  to = {value, simd::batch<simd::integer_of<T>>(simd::integer_of<T>(0))};
}
template <class T>
TOKENMIX_ALWAYS_INLINE void spread(bool value, simd::lane_mask<T>& to) {
  to = {simd::mask<T>(value)};
}
template <class T, std::floating_point X>
TOKENMIX_ALWAYS_INLINE void spread(X value, simd::batch<T>& to) {
  to = simd::batch<T>(static_cast<T>(value));
}
template <class To, class X>
TOKENMIX_ALWAYS_INLINE To spread_to(const X& value) {
  if constexpr (std::same_as<X, To>) {
    return value;
  } else {
    To result;
    spread(value, result);
    return result;
  }
}

template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> blend(simd::lane_mask<T> m, const simd::batch<T>& a, const simd::batch<T>& b) {
  return simd::select(m.value, a, b);
}
template <class T>
TOKENMIX_ALWAYS_INLINE simd::lane_mask<T> blend(simd::lane_mask<T> m, simd::lane_mask<T> a, simd::lane_mask<T> b) {
  return (m && a) || (!m && b);
}
template <class T>
TOKENMIX_ALWAYS_INLINE simd::positions<T> blend(simd::lane_mask<T> m, simd::positions<T> a, simd::positions<T> b) {
  using lane = simd::integer_of<T>;
  // The base is the one closer to zero: the other, if it is no position but "no limit", saturates beyond all positions.
  static constexpr index_t far = index_t{1} << 29;
  const bool base_is_a = (a.base < 0 ? -(a.base + 1) : a.base) <= (b.base < 0 ? -(b.base + 1) : b.base);
  const index_t base = base_is_a ? a.base : b.base;
  const auto moved = [base](simd::positions<T> p) {
    index_t distance = 0;
    if (__builtin_sub_overflow(p.base, base, &distance)) distance = p.base < 0 ? -far : far;
    return p.offset + simd::batch<lane>(static_cast<lane>(std::clamp<index_t>(distance, -far, far)));
  };
  return {base, simd::select(simd::mask_cast<lane>(m.value), moved(a), moved(b))};
}

}  // namespace detail

/// m ? a : b, lane by lane where m is a row of lanes. a and b are positions or whole numbers, truth values, or scores; one
/// that has no lanes is the same in all of them.
template <class X>
constexpr X select(bool m, X a, X b) {
  return m ? a : b;
}
template <class A, class B>
  requires(!std::same_as<A, B>)
constexpr auto select(bool m, A a, B b) {
  using of_a = typename detail::lanes_of_value<A>::type;
  using of_b = typename detail::lanes_of_value<B>::type;
  if constexpr (std::is_void_v<of_a> && std::is_void_v<of_b>) {
    return m ? a : b;
  } else {
    using lanes = typename detail::selected_lanes<std::conditional_t<std::is_void_v<of_a>, of_b, of_a>, A, B>::type;
    return m ? detail::spread_to<lanes>(a) : detail::spread_to<lanes>(b);
  }
}
template <class T, class A, class B>
  requires requires { typename detail::selected_lanes<T, A, B>::type; }
TOKENMIX_ALWAYS_INLINE auto select(simd::lane_mask<T> m, A a, B b) {
  using lanes = typename detail::selected_lanes<T, A, B>::type;
  return detail::blend(m, detail::spread_to<lanes>(a), detail::spread_to<lanes>(b));
}

namespace detail {

template <class Field>
struct lane_type_of_field {
  using type = void;
};
template <class T>
struct lane_type_of_field<simd::positions<T>> {
  using type = T;
};
template <class Index>
struct lane_type_of;
template <class Head, class Query, class Key>
struct lane_type_of<basic_index<Head, Query, Key>> {
  using of_head = typename lane_type_of_field<Head>::type;
  using of_query = typename lane_type_of_field<Query>::type;
  using of_key = typename lane_type_of_field<Key>::type;
  using type = std::conditional_t<!std::is_void_v<of_query>, of_query,
                                  std::conditional_t<!std::is_void_v<of_key>, of_key, of_head>>;
};

/// The type that the kernel behind an index with lanes computes in; void for the plain index.
template <class Index>
using lane_type = typename lane_type_of<Index>::type;

/// The plain index in lane i of an index with lanes.
template <class Head, class Query, class Key>
constexpr index lane_of(const basic_index<Head, Query, Key>& where, index_t i) {
  const auto pick = [i](const auto& field) -> index_t {
    if constexpr (simd::is_positions<std::remove_cvref_t<decltype(field)>>) {
      return field[i];
    } else {
      return field;
    }
  };
  return {where.batch, pick(where.head), pick(where.query), pick(where.key), where.queries, where.keys};
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
