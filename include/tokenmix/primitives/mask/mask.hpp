// SPDX-License-Identifier: Apache-2.0
/// @file What a mask is: who sees whom, asked pair by pair and run by run.
#pragma once

#include <tokenmix/primitives/index.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A block of queries that a mask is asked about: heads [head_first, head_last) of one sequence, queries at positions
/// [query_first, query_last). Not empty.
struct query_block {
  index_t batch = 0;
  index_t head_first = 0;
  index_t head_last = 1;
  index_t query_first = 0;
  index_t query_last = 1;
  index_t queries = 0;  ///< T of the sequence
  index_t keys = 0;     ///< S of the sequence

  /// The rows of the queries in their own sequence, from 0 to T.
  constexpr index_t row_first() const { return query_first - (keys - queries); }
  constexpr index_t row_last() const { return query_last - (keys - queries); }
};

/// How many pairs of a query block with a run of keys are visible. `some` may be any number of them.
enum class coverage : unsigned char { none, some, all };

/// A run of keys [begin, end) with one coverage.
struct span {
  index_t begin = 0;
  index_t end = 0;
  coverage visible = coverage::none;

  friend constexpr bool operator==(const span&, const span&) = default;
};

/// A mask is a callable of an index that says whether the query sees the key: generic in the index, so that it answers for
/// one pair (with bool) and for a register of pairs (with simd::lane_mask, or with bool if no field with lanes matters).
/// It may also know its structure and its limits:
///
///     m.run(block, key)                       a run [key, end) of keys that have one coverage for the whole block, key < end
///                                             <= block.keys; `none` and `all` are exact, `some` is always allowed;
///                                             runs need not be maximal: spans() joins neighbours
///     m.seen_by(block, key)                   a word whose bit i says whether query query_first + i of the block sees the key, for
///                                             blocks of up to 64 queries of one head; bits beyond the last query may be anything
///     m.check(batches, heads, queries, keys)  throws if tables that the mask holds do not fit tensors of these extents
///
/// Runs are what makes masks cheap: keys of `none` are never read, keys of `all` are not asked about pair by pair. Words
/// make the rest cheaper: kernels with queries in the lanes ask once per key instead of once per register.
/// Mask types declare `using is_mask = void;` so that `&`, `|` and `!` find them.
template <class M>
concept mask_type = requires { typename std::remove_cvref_t<M>::is_mask; };

/// What can be asked as a mask: a mask type, or any callable (a lambda, say) of an index.
template <class M>
concept mask_callable = mask_type<M> || std::predicate<const std::remove_cvref_t<M>&, const index&>;

namespace detail {

template <class M>
concept has_runs = requires(const M& m, const query_block& b) {
  { m.run(b, index_t{}) } -> std::same_as<span>;
};

template <class M>
concept has_words = requires(const M& m, const query_block& b) {
  { m.seen_by(b, index_t{}) } -> std::same_as<std::uint64_t>;
};

/// The block of one pair's query.
constexpr query_block block_of(const index& where) {
  return {where.batch, where.head, where.head + 1, where.query, where.query + 1, where.queries, where.keys};
}

/// The bits of the first n of 64 queries; all if n is larger.
constexpr std::uint64_t first_queries(index_t n) {
  return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << static_cast<unsigned>(std::max<index_t>(n, 0))) - 1;
}

/// The word of a key that the queries at positions [first, last] see.
constexpr std::uint64_t seen_by_interval(const query_block& block, index_t first, index_t last) {
  return first_queries(last - block.query_first + 1) & ~first_queries(first - block.query_first);
}

/// The word of a key that all queries see, or none.
constexpr std::uint64_t seen_by_all_if(bool seen) { return seen ? ~std::uint64_t{0} : std::uint64_t{0}; }

template <class M>
concept has_check = requires(const M& m, index_t n) { m.check(n, n, n, n); };

/// How many keys a run looks at where it has to look at each: a composition may cut runs short and ask again.
inline constexpr index_t scan_limit = 64;

/// How many blocks of a size cover n tokens; does not overflow.
constexpr index_t blocks_of(index_t n, index_t size) { return n / size + (n % size != 0 ? 1 : 0); }

/// The run from `key` on of a mask whose every query sees an interval of keys: the block's queries together see
/// [some_first, some_last], and every one of them sees [all_first, all_last].
constexpr span interval_run(index_t keys, index_t key, index_t some_first, index_t some_last, index_t all_first,
                            index_t all_last) {
  if (key > some_last) return {key, keys, coverage::none};
  if (key < some_first) return {key, std::min(some_first, keys), coverage::none};
  if (all_first > all_last || key > all_last) return {key, std::min(some_last + 1, keys), coverage::some};
  if (key < all_first) return {key, std::min(all_first, keys), coverage::some};
  return {key, std::min(all_last + 1, keys), coverage::all};
}

/// Asks f(plain index) of every lane, and of no lane that stands beside the sequence (kernels pad their last register).
template <class Head, class Query, class Key, class F>
TOKENMIX_ALWAYS_INLINE constexpr auto ask_each_lane(const basic_index<Head, Query, Key>& where, const F& f) {
  using T = lane_type<basic_index<Head, Query, Key>>;
  if constexpr (std::is_void_v<T>) {
    return static_cast<bool>(f(where));
  } else {
    using lane = simd::integer_of<T>;
    struct numbers {
      alignas(64) lane of[static_cast<std::size_t>(simd::lanes<T>)];
    };
    numbers head, query, key;
    const auto unpack = [](const auto& field, numbers& to) {
      if constexpr (simd::is_positions<std::remove_cvref_t<decltype(field)>>) simd::store(to.of, field.offset);
    };
    const auto pick = [](const auto& field, const numbers& from, index_t i) -> index_t {
      if constexpr (simd::is_positions<std::remove_cvref_t<decltype(field)>>) {
        return field.base + static_cast<index_t>(from.of[i]);
      } else {
        return field;
      }
    };
    unpack(where.head, head);
    unpack(where.query, query);
    unpack(where.key, key);
    std::uint32_t word = 0;
    for (index_t i = 0; i < simd::lanes<T>; ++i) {
      const index pair{
          where.batch, pick(where.head, head, i), pick(where.query, query, i), pick(where.key, key, i), where.queries,
          where.keys};
      const index_t row = pair.query_row();
      const bool inside = row >= 0 && row < pair.queries && pair.key >= 0 && pair.key < pair.keys;
      if (inside && static_cast<bool>(f(pair))) word |= std::uint32_t{1} << i;
    }
    return simd::lane_mask<T>{simd::from_bits<T>(word)};
  }
}

template <class X>
inline constexpr bool is_lane_mask = false;
template <class T>
inline constexpr bool is_lane_mask<simd::lane_mask<T>> = true;

}  // namespace detail

/// The coverage of a block from one key on; a mask that knows no runs has one of `some` over everything.
///
/// Always at least one key and none past the last, so that a user's own run() can neither stop a walk nor lead it outside.
template <class M>
constexpr span mask_run(const M& m, const query_block& block, index_t key) {
  if constexpr (detail::has_runs<M>) {
    const span found = m.run(block, key);
    return {key, std::min(std::max(found.end, key + 1), block.keys), found.visible};
  } else {
    return {key, block.keys, coverage::some};
  }
}

/// Asks a mask about one pair (the answer is bool) or about a row of pairs (the answer is bool or lane_mask).
///
/// A callable that takes only the plain index is asked lane by lane, and never about a position outside the sequence;
/// a generic one is given the register as it is, which in the last register of a tile may hold positions past the end.
template <class M, class Index>
TOKENMIX_ALWAYS_INLINE constexpr auto mask_at(const M& m, const Index& where) {
  if constexpr (std::is_invocable_v<const M&, const Index&>) {
    using answer = std::remove_cvref_t<std::invoke_result_t<const M&, const Index&>>;
    if constexpr (detail::is_lane_mask<answer>) {
      return m(where);
    } else {
      return static_cast<bool>(m(where));
    }
  } else {
    return detail::ask_each_lane(where, m);
  }
}

/// Called by mixers at the door: lets a mask compare its tables with B, H, T and S.
template <class M>
constexpr void mask_check(const M& m, index_t batches, index_t heads, index_t queries, index_t keys) {
  if constexpr (detail::has_check<M>) m.check(batches, heads, queries, keys);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
