// SPDX-License-Identifier: Apache-2.0
/// @file What a score modifier is: a function of a score and its index, applied before the softmax.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/primitives/index.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// A score modifier is a callable (score, index) -> score in natural units: score = scale * q.k, and what comes out goes to
/// the softmax as it is. Scores come as registers (simd::batch<T>), the index with lanes in its head, query or key field; or
/// both are plain numbers. A lambda that takes (T, mix::index) is accepted too and runs lane by lane.
///
/// A modifier may be asked about pairs that do not count: keys that a mask hides, and padding lanes, whose positions lie
/// beyond the last query or key. What it answers there is thrown away; it must not read outside its operands for it.
///
/// Modifier types declare `using is_score = void;` so that `|` finds them. They may also have
///
///     m.prepare(tile, frame)   what they need for one tile of queries and keys, computed once (the scratch frame gives
///                              memory); the result is the callable that is used on this tile. Such tiles have
///                              consecutive queries of one head in the lanes.
///     M::reads_query           true if `prepare` is the only way, because the score depends on the query itself
///     m.check(batches, heads, queries, keys) throws shape_error or value_error if the modifier's tables do not fit
///     m.check_channels(channels)             the same for the width of a query, where it matters
template <class S>
concept score_modifier = requires { typename S::is_score; };

/// What `prepare` may look at: queries in the lanes, channels and keys along memory.
template <class T>
struct score_tile {
  index_t batch;        ///< sequence
  index_t head;         ///< query head
  index_t query_first;  ///< position of lane 0 of the first register
  index_t query_count;  ///< valid queries; those in the padding lanes hold zeros
  index_t key_first;    ///< position of the first key
  index_t key_count;
  index_t queries;        ///< T of the sequence
  index_t keys;           ///< S of the sequence
  index_t channels;       ///< D
  index_t width;          ///< lanes of the tile, a multiple of simd::lanes<T>
  const T* scaled_query;  // (D, width): scale * q, channel-major
  T scale;
};

/// A modifier that wants to see each tile of a kernel that computes in T.
template <class S, class T>
concept prepares_tiles =
    requires(const S& s, const score_tile<T>& tile, scratch_frame& frame) { s.prepare(tile, frame); };

namespace detail {

template <class S>
constexpr bool reads_query_of() {
  if constexpr (requires { S::reads_query; }) {
    return S::reads_query;
  } else {
    return false;
  }
}

}  // namespace detail

/// The modifier depends on the query itself: it can only be used on tiles that it has prepared.
template <class S>
inline constexpr bool reads_query = detail::reads_query_of<S>();

/// Applies a modifier (or lambda) to a register of scores.
template <class S, class T, class Index>
TOKENMIX_ALWAYS_INLINE simd::batch<T> score_at(const S& modifier, const simd::batch<T>& score, const Index& where) {
  if constexpr (std::is_invocable_v<const S&, const simd::batch<T>&, const Index&>) {
    return modifier(score, where);
  } else {
    alignas(64) T values[static_cast<std::size_t>(simd::lanes<T>)];
    simd::store(values, score);
    for (index_t i = 0; i < simd::lanes<T>; ++i)
      values[i] = static_cast<T>(modifier(values[i], detail::lane_of(where, i)));
    return simd::load(values);
  }
}

/// Applies a modifier (or lambda) to one score.
template <class S, std::floating_point T>
constexpr T score_at(const S& modifier, T score, const index& where) {
  return static_cast<T>(modifier(score, where));
}

namespace detail {

/// Stands for a modifier that is too large to copy for every tile.
template <class S>
struct borrowed_score {
  using is_score = void;
  const S* modifier;

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE Score operator()(const Score& score, const Index& where) const {
    return score_at(*modifier, score, where);
  }
};

template <class S>
inline constexpr bool copied_for_each_tile = std::is_trivially_copyable_v<S> && sizeof(S) <= 256;

}  // namespace detail

/// The callable to use on one tile: what `prepare` gives, or the modifier itself.
///
/// It is valid until the frame ends and as long as the modifier lives.
template <class S, class T>
TOKENMIX_ALWAYS_INLINE auto score_prepare(const S& modifier, const score_tile<T>& tile, scratch_frame& frame) {
  if constexpr (prepares_tiles<S, T>) {
    return modifier.prepare(tile, frame);
  } else {
    static_assert(!reads_query<S>, "this modifier depends on the query and has no prepare() for this type");
    if constexpr (detail::copied_for_each_tile<S>) {
      return modifier;
    } else {
      return detail::borrowed_score<S>{&modifier};
    }
  }
}

namespace detail {

template <class S>
void score_check_shape(const S& modifier, index_t batches, index_t heads, index_t queries, index_t keys) {
  if constexpr (requires { modifier.check(batches, heads, queries, keys); }) {
    modifier.check(batches, heads, queries, keys);
  }
}

template <class S>
void score_check_channels(const S& modifier, index_t channels) {
  if constexpr (requires { modifier.check_channels(channels); }) modifier.check_channels(channels);
}

}  // namespace detail

/// Checks a modifier's tables against the shapes of a call, at the mixer's door: throws shape_error or value_error.
template <class S>
void score_check(const S& modifier, index_t batches, index_t heads, index_t queries, index_t keys, index_t channels) {
  detail::score_check_shape(modifier, batches, heads, queries, keys);
  detail::score_check_channels(modifier, channels);
}

/// Leaves scores as they are.
struct plain_score {
  using is_score = void;
  template <class Score, class Index>
  constexpr Score operator()(const Score& score, const Index& /*where*/) const {
    return score;
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
