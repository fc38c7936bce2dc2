// SPDX-License-Identifier: Apache-2.0
/// @file Composition of score modifiers: a | b applies a, then b.
#pragma once

#include <tokenmix/primitives/score/score.hpp>

#include <type_traits>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// score -> second(first(score)).
template <class First, class Second>
struct composed_score {
  using is_score = void;
  static constexpr bool reads_query = tokenmix::reads_query<First> || tokenmix::reads_query<Second>;

  [[no_unique_address]] First first;
  [[no_unique_address]] Second second;

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE constexpr Score operator()(const Score& score, const Index& where) const {
    return score_at(second, score_at(first, score, where), where);
  }

  /// Prepares the parts that want it; the others are copied, or borrowed if they are large.
  template <class T>
    requires(prepares_tiles<First, T> || prepares_tiles<Second, T>)
  TOKENMIX_ALWAYS_INLINE auto prepare(const score_tile<T>& tile, scratch_frame& frame) const {
    using prepared_first = decltype(score_prepare(first, tile, frame));
    using prepared_second = decltype(score_prepare(second, tile, frame));
    return composed_score<prepared_first, prepared_second>{score_prepare(first, tile, frame),
                                                           score_prepare(second, tile, frame)};
  }

  void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    detail::score_check_shape(first, batches, heads, queries, keys);
    detail::score_check_shape(second, batches, heads, queries, keys);
  }
  void check_channels(index_t channels) const {
    detail::score_check_channels(first, channels);
    detail::score_check_channels(second, channels);
  }
};

/// Makes any callable (score, index) -> score a modifier type, so that two lambdas compose: `score_function{f} | g`.
template <class F>
struct score_function {
  using is_score = void;
  [[no_unique_address]] F function;

  template <class Score, class Index>
  TOKENMIX_ALWAYS_INLINE constexpr Score operator()(const Score& score, const Index& where) const {
    return score_at(function, score, where);
  }
};
template <class F>
score_function(F) -> score_function<F>;

namespace detail {

// Whether a generic lambda can be called cannot be asked without compiling its body, so anything that may hold a call
// operator passes, but for masks: those are no functions of a score.
template <class X>
concept score_operand =
    (std::is_class_v<X> || (std::is_pointer_v<X> && std::is_function_v<std::remove_pointer_t<X>>)) &&
    !requires { typename X::is_mask; };

}  // namespace detail

/// Left to right. At least one side is a modifier type; the other may be a lambda. Parts are held by value.
template <class First, class Second>
  requires((score_modifier<First> || score_modifier<Second>) && detail::score_operand<First> &&
           detail::score_operand<Second>)
constexpr composed_score<First, Second> operator|(First first, Second second) {
  return {std::move(first), std::move(second)};
}

}  // namespace tokenmix::inline TOKENMIX_ABI
