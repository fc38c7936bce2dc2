// SPDX-License-Identifier: Apache-2.0
/// @file Tensor views with strides, and the owning tensor.
#pragma once

#include <tokenmix/core/aligned_array.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// One number per axis: extents, strides or an index.
template <std::size_t R>
using extents = std::array<index_t, R>;

namespace detail {

// Both products are modular, so that extents which are too large (check_view and tensor refuse them) or which belong
// to an empty view, such as (2^40, 2^40, 0), are no undefined behaviour on the way to the check.

template <std::size_t R>
constexpr index_t product(const extents<R>& e) {
  std::size_t n = 1;
  for (index_t extent : e) n *= static_cast<std::size_t>(extent);
  return static_cast<index_t>(n);
}

/// Strides of a tensor without gaps whose last axis is contiguous.
template <std::size_t R>
constexpr extents<R> packed_strides(const extents<R>& e) {
  extents<R> strides{};
  std::size_t step = 1;
  for (std::size_t axis = R; axis-- > 0;) {
    strides[axis] = static_cast<index_t>(step);
    step *= static_cast<std::size_t>(e[axis]);
  }
  return strides;
}

}  // namespace detail

template <class E, std::size_t R>
class tensor_view;

/// A window on elements that somebody else owns: a pointer, R extents, R strides (in elements; any sign, zero repeats).
///
/// Axes are named by the function that takes the view, (B, H, T, D) as a rule. Copying a view copies no element.
/// Nothing here checks an index: a mixer checks the whole view at its door (core/check.hpp).
template <class E, std::size_t R>
class tensor_view<const E, R> {
 public:
  using element_type = const E;
  using value_type = E;
  static constexpr std::size_t rank = R;

  constexpr tensor_view() = default;
  constexpr tensor_view(const E* data, const extents<R>& extents)
      : tensor_view(data, extents, detail::packed_strides<R>(extents)) {}
  constexpr tensor_view(const E* data, const extents<R>& extents, const tokenmix::extents<R>& strides)
      : data_(const_cast<E*>(data)), extents_(extents), strides_(strides) {}

  constexpr const E* data() const { return data_; }
  constexpr index_t extent(std::size_t axis) const { return extents_[axis]; }
  constexpr index_t stride(std::size_t axis) const { return strides_[axis]; }
  constexpr const extents<R>& shape() const { return extents_; }
  constexpr const extents<R>& strides() const { return strides_; }
  constexpr index_t size() const { return detail::product<R>(extents_); }
  constexpr bool empty() const { return size() == 0; }

  /// The distance in elements from the first element to the one at an index.
  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  constexpr index_t offset(Index... at) const {
    index_t sum = 0;
    [[maybe_unused]] std::size_t axis = 0;
    ((sum += static_cast<index_t>(at) * strides_[axis++]), ...);
    return sum;
  }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) == R)
  constexpr const E& operator()(Index... at) const {
    return data_[offset(at...)];
  }

  /// The address of the row (of the remaining axes) at a leading index: `row(b, h, t)` of a (B, H, T, D) view.
  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  constexpr const E* row(Index... at) const {
    return data_ + offset(at...);
  }

  /// The view of the remaining axes at a leading index: `part(b, h)` of a (B, H, T, D) view is (T, D).
  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  constexpr auto part(Index... at) const {
    constexpr std::size_t n = sizeof...(Index);
    return tensor_view<const E, R - n>(data_ + offset(at...), trailing<R - n>(extents_), trailing<R - n>(strides_));
  }

  /// The last axis is contiguous (or has at most one element).
  constexpr bool channels_contiguous() const {
    if constexpr (R == 0) {
      return true;
    } else {
      return extents_[R - 1] <= 1 || strides_[R - 1] == 1;
    }
  }

  /// The same elements with axes in another order: axis i of the result is axis order[i] of this view.
  constexpr tensor_view permuted(const std::array<std::size_t, R>& order) const {
    return tensor_view(data_, permuted_of(extents_, order), permuted_of(strides_, order));
  }

  /// Elements [first, first + count) along one axis.
  constexpr tensor_view slice(std::size_t axis, index_t first, index_t count) const {
    extents<R> e = extents_;
    e[axis] = count;
    return tensor_view(data_ + first * strides_[axis], e, strides_);
  }

 protected:
  static constexpr extents<R> permuted_of(const extents<R>& values, const std::array<std::size_t, R>& order) {
    extents<R> result{};
    for (std::size_t axis = 0; axis < R; ++axis) result[axis] = values[order[axis]];
    return result;
  }
  template <std::size_t S>
  static constexpr extents<S> trailing(const extents<R>& values) {
    extents<S> result{};
    for (std::size_t axis = 0; axis < S; ++axis) result[axis] = values[R - S + axis];
    return result;
  }

  E* data_ = nullptr;  // never written through here: only tensor_view<E, R> hands it out as mutable
  extents<R> extents_{};
  extents<R> strides_{};
};

/// A view whose elements may be written. Converts to the view of const elements, which is its base.
template <class E, std::size_t R>
class tensor_view : public tensor_view<const E, R> {
  using base = tensor_view<const E, R>;

 public:
  using element_type = E;

  constexpr tensor_view() = default;
  constexpr tensor_view(E* data, const extents<R>& extents) : base(data, extents) {}
  constexpr tensor_view(E* data, const extents<R>& extents, const tokenmix::extents<R>& strides)
      : base(data, extents, strides) {}

  constexpr E* data() const { return this->data_; }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) == R)
  constexpr E& operator()(Index... at) const {
    return this->data_[this->offset(at...)];
  }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  constexpr E* row(Index... at) const {
    return this->data_ + this->offset(at...);
  }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  constexpr auto part(Index... at) const {
    constexpr std::size_t n = sizeof...(Index);
    return tensor_view<E, R - n>(row(at...), base::template trailing<R - n>(this->extents_),
                                 base::template trailing<R - n>(this->strides_));
  }

  constexpr tensor_view permuted(const std::array<std::size_t, R>& order) const {
    return tensor_view(this->data_, base::permuted_of(this->extents_, order), base::permuted_of(this->strides_, order));
  }

  constexpr tensor_view slice(std::size_t axis, index_t first, index_t count) const {
    extents<R> e = this->extents_;
    e[axis] = count;
    return tensor_view(this->data_ + first * this->strides_[axis], e, this->strides_);
  }
};

/// A tensor that owns its elements, without gaps, last axis contiguous, zero at the start. Copies are deep.
///
/// A const tensor hands out const elements, except where it is passed as its base, the view of mutable elements.
template <class E, std::size_t R>
class tensor : public tensor_view<E, R> {
  using base = tensor_view<E, R>;
  using const_base = tensor_view<const E, R>;

 public:
  tensor() : tensor(extents<R>{}) {}
  /// shape_error if an extent is negative or the size in bytes does not fit.
  explicit tensor(const extents<R>& shape) : base(nullptr, shape), elements_(checked_size(shape)) { point(); }
  tensor(const extents<R>& shape, E value) : base(nullptr, shape), elements_(checked_size(shape), value) { point(); }

  tensor(const tensor& other) : base(other), elements_(other.elements_) { point(); }
  tensor(tensor&& other) noexcept : base(other), elements_(std::move(other.elements_)) { other.forget(); }
  tensor& operator=(tensor other) noexcept {
    swap(*this, other);
    return *this;
  }
  ~tensor() = default;

  friend void swap(tensor& a, tensor& b) noexcept {
    std::swap(static_cast<base&>(a), static_cast<base&>(b));
    a.elements_.swap(b.elements_);
  }

  base view() { return *this; }
  const_base view() const { return *this; }
  E* data() { return this->data_; }
  const E* data() const { return this->data_; }
  E* begin() { return this->data_; }
  E* end() { return this->data_ + this->size(); }
  const E* begin() const { return this->data_; }
  const E* end() const { return this->data_ + this->size(); }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) == R)
  E& operator()(Index... at) {
    return this->data_[this->offset(at...)];
  }
  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) == R)
  const E& operator()(Index... at) const {
    return this->data_[this->offset(at...)];
  }

  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  E* row(Index... at) {
    return this->data_ + this->offset(at...);
  }
  template <std::convertible_to<index_t>... Index>
    requires(sizeof...(Index) <= R)
  const E* row(Index... at) const {
    return this->data_ + this->offset(at...);
  }

  template <std::convertible_to<index_t>... Index>
  auto part(Index... at) {
    return view().part(at...);
  }
  template <std::convertible_to<index_t>... Index>
  auto part(Index... at) const {
    return view().part(at...);
  }

  base permuted(const std::array<std::size_t, R>& order) { return view().permuted(order); }
  const_base permuted(const std::array<std::size_t, R>& order) const { return view().permuted(order); }
  base slice(std::size_t axis, index_t first, index_t count) { return view().slice(axis, first, count); }
  const_base slice(std::size_t axis, index_t first, index_t count) const { return view().slice(axis, first, count); }

 private:
  static std::size_t checked_size(const extents<R>& shape) {
    bool is_empty = false;
    bool too_large = false;
    index_t bytes = static_cast<index_t>(sizeof(E));
    for (std::size_t axis = 0; axis < R; ++axis) {
      if (shape[axis] < 0) {
        detail::fail_shape("shape has extent ", shape[axis], " at axis ", axis, ": extents are not negative");
      }
      is_empty = is_empty || shape[axis] == 0;
      too_large = too_large || __builtin_mul_overflow(bytes, shape[axis], &bytes);
    }
    if (is_empty) return 0;
    if (too_large) detail::fail_shape("shape is too large: the size in bytes does not fit 63 bits");
    return static_cast<std::size_t>(detail::product<R>(shape));
  }
  void point() { this->data_ = elements_.data(); }
  void forget() { static_cast<base&>(*this) = base(); }

  detail::aligned_array<E> elements_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI
