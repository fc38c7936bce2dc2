// SPDX-License-Identifier: Apache-2.0
/// @file The algebra of masks: &, | and ! of masks and lambdas, answered pair by pair and run by run without allocation.
#pragma once

#include <tokenmix/primitives/mask/mask.hpp>

#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// Sees what both see.
template <class A, class B>
struct mask_and {
  using is_mask = void;
  [[no_unique_address]] A a;
  [[no_unique_address]] B b;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return mask_at(a, where) && mask_at(b, where);
  }

  /// none if either is, to that one's end; all if both are; otherwise some.
  constexpr span run(const query_block& block, index_t key) const {
    const span of_a = mask_run(a, block, key);
    if (of_a.visible == coverage::none) return of_a;
    const span of_b = mask_run(b, block, key);
    if (of_b.visible == coverage::none) return of_b;
    return {key, std::min(of_a.end, of_b.end), std::min(of_a.visible, of_b.visible)};
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const
    requires(detail::has_words<A> && detail::has_words<B>)
  {
    return a.seen_by(block, key) & b.seen_by(block, key);
  }

  constexpr void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    mask_check(a, batches, heads, queries, keys);
    mask_check(b, batches, heads, queries, keys);
  }
};

/// Sees what either sees.
template <class A, class B>
struct mask_or {
  using is_mask = void;
  [[no_unique_address]] A a;
  [[no_unique_address]] B b;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return mask_at(a, where) || mask_at(b, where);
  }

  /// all if either is, to that one's end; none if both are; otherwise some.
  constexpr span run(const query_block& block, index_t key) const {
    const span of_a = mask_run(a, block, key);
    if (of_a.visible == coverage::all) return of_a;
    const span of_b = mask_run(b, block, key);
    if (of_b.visible == coverage::all) return of_b;
    return {key, std::min(of_a.end, of_b.end), std::max(of_a.visible, of_b.visible)};
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const
    requires(detail::has_words<A> && detail::has_words<B>)
  {
    return a.seen_by(block, key) | b.seen_by(block, key);
  }

  constexpr void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    mask_check(a, batches, heads, queries, keys);
    mask_check(b, batches, heads, queries, keys);
  }
};

/// Sees what the other does not.
template <class A>
struct mask_not {
  using is_mask = void;
  [[no_unique_address]] A a;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return !mask_at(a, where);
  }

  /// none and all change places.
  constexpr span run(const query_block& block, index_t key) const {
    span of_a = mask_run(a, block, key);
    if (of_a.visible != coverage::some) {
      of_a.visible = of_a.visible == coverage::none ? coverage::all : coverage::none;
    }
    return of_a;
  }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const
    requires detail::has_words<A>
  {
    return ~a.seen_by(block, key);
  }

  constexpr void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    mask_check(a, batches, heads, queries, keys);
  }
};

/// Makes any callable of an index a mask type, so that two lambdas, or two masks of your own namespace, compose:
/// `mask_function{f} & g`. Runs and checks, if f has them, are kept.
template <class F>
struct mask_function {
  using is_mask = void;
  [[no_unique_address]] F function;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return mask_at(function, where);
  }
  constexpr span run(const query_block& block, index_t key) const { return mask_run(function, block, key); }
  constexpr std::uint64_t seen_by(const query_block& block, index_t key) const
    requires detail::has_words<F>
  {
    return function.seen_by(block, key);
  }
  constexpr void check(index_t batches, index_t heads, index_t queries, index_t keys) const {
    mask_check(function, batches, heads, queries, keys);
  }
};
template <class F>
mask_function(F) -> mask_function<F>;

/// At least one side is a mask type; the other may be a lambda. Parts are held by value.
template <class A, class B>
  requires((mask_type<A> || mask_type<B>) && mask_callable<A> && mask_callable<B>)
constexpr mask_and<A, B> operator&(A a, B b) {
  return {std::move(a), std::move(b)};
}

template <class A, class B>
  requires((mask_type<A> || mask_type<B>) && mask_callable<A> && mask_callable<B>)
constexpr mask_or<A, B> operator|(A a, B b) {
  return {std::move(a), std::move(b)};
}

template <mask_type A>
constexpr mask_not<A> operator!(A a) {
  return {std::move(a)};
}

}  // namespace tokenmix::inline TOKENMIX_ABI
