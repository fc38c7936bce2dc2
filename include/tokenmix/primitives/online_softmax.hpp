// SPDX-License-Identifier: Apache-2.0
/// @file The softmax state (m, l, acc), its merge, and the fixed tree in which states of leaves are merged.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/math.hpp>

#include <algorithm>
#include <bit>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI {

/// Keys of one leaf: inside a leaf an output is one fma chain over ascending keys under the leaf's own maximum, and leaves,
/// counted from the start of the sequence, are merged in a binary tree. So the result depends on positions alone, not on
/// who computed which part, and its error does not grow with the number of keys.
inline constexpr index_t softmax_leaf_keys = 256;

namespace detail {

template <class T>
inline constexpr T minus_infinity = -std::numeric_limits<T>::infinity();

/// m, or 0 where nothing was seen: what exponents are taken relative to.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::batch<T> finite_reference(const simd::batch<T>& m) {
  return simd::select(m == simd::batch<T>(minus_infinity<T>), simd::batch<T>(T(0)), m);
}

/// The factors that bring two states to their common maximum, which replaces the left one's.
template <class T>
struct merge_factors {
  simd::batch<T> left;
  simd::batch<T> right;
};

/// Merges m and l of `width` lanes, a multiple of the register, and hands the factors of each register to `rescale(lane, factors)`.
template <class T, class Rescale>
TOKENMIX_ALWAYS_INLINE void merge_sums(T* left_m, T* left_l, const T* right_m, const T* right_l, index_t width,
                                       Rescale&& rescale) {
  for (index_t i = 0; i < width; i += simd::lanes<T>) {
    const simd::batch<T> ml = simd::load(left_m + i);
    const simd::batch<T> mr = simd::load(right_m + i);
    const simd::batch<T> m = simd::max_or_second(ml, mr);
    const simd::batch<T> reference = finite_reference<T>(m);
    const merge_factors<T> f{simd::exp_nonpositive(ml - reference), simd::exp_nonpositive(mr - reference)};
    simd::store(left_m + i, m);
    simd::store(left_l + i, simd::fma(simd::load(left_l + i), f.left, simd::load(right_l + i) * f.right));
    rescale(i, f);
  }
}

/// The stack that merges leaf states as a binary tree over leaf numbers, whichever leaves are empty.
///
/// A state is `state_size` elements of T; `merge(left, right)` replaces left by the merge. Leaves come in ascending order; two
/// neighbours on the stack are merged as soon as the next leaf lies outside their smallest common subtree.
template <class T>
class leaf_tree {
 public:
  /// States that are alive at once for leaves 0 .. last_leaf.
  static constexpr index_t depth(index_t last_leaf) {
    return static_cast<index_t>(std::bit_width(static_cast<std::size_t>(std::max<index_t>(last_leaf, 0)))) + 1;
  }

  leaf_tree() = default;
  /// A tree for leaves 0 .. last_leaf in memory of a frame.
  leaf_tree(index_t last_leaf, index_t state_size, scratch_frame& frame)
      : states_(frame.take<T>(depth(last_leaf) * state_size)),
        leaves_(frame.take<index_t>(depth(last_leaf))),
        state_size_(state_size) {}

  /// Room for the state of the next leaf.
  template <class Merge>
  T* push(index_t leaf, Merge&& merge) {
    while (count_ >= 2 && level(leaf_of(count_ - 2), leaf_of(count_ - 1)) < level(leaf_of(count_ - 1), leaf))
      pop(merge);
    leaves_[count_] = leaf;
    return state(count_++);
  }

  /// The state of all leaves, or null if there was none.
  template <class Merge>
  T* root(Merge&& merge) {
    while (count_ >= 2) pop(merge);
    return count_ == 0 ? nullptr : state(0);
  }

 private:
  static constexpr index_t level(index_t a, index_t b) {
    return static_cast<index_t>(std::bit_width(static_cast<std::size_t>(a ^ b)));
  }
  index_t leaf_of(index_t i) const { return leaves_[i]; }
  T* state(index_t i) const { return states_ + i * state_size_; }
  template <class Merge>
  void pop(Merge&& merge) {
    merge(state(count_ - 2), state(count_ - 1));
    --count_;
  }

  T* states_ = nullptr;
  index_t* leaves_ = nullptr;
  index_t state_size_ = 0;
  index_t count_ = 0;
};

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
