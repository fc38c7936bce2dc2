// SPDX-License-Identifier: Apache-2.0
/// @file The same tensor in other memory: permuted, sliced out of poison, reversed, broadcast; and its way back.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace tokenmix::reference {

/// How a tensor of rank R lies in memory.
template <std::size_t R>
struct layout {
  std::string name;
  std::array<std::size_t, R> order{};  ///< of the axes in memory, outermost first
  extents<R> before{};                 ///< by axis: elements of poison in front of the tensor's ...
  extents<R> after{};                  ///< ... and behind it: the tensor is a slice of a larger one
  std::array<bool, R> reversed{};      ///< by axis: the stride is negative
};

/// No gaps, last axis contiguous.
template <std::size_t R>
layout<R> packed_layout() {
  layout<R> l;
  l.name = "packed";
  for (std::size_t axis = 0; axis < R; ++axis) l.order[axis] = axis;
  return l;
}

/// The layouts that a function which takes any strides must give the same bits for. The last axis stays contiguous.
///
///     for (const auto& l : layouts<4>()) {
///       strided<float, 4> k2(k, l);
///       f(q, k2.view(), out);
///       EXPECT_TRUE(same_bits(out, expected)) << l.name;
///     }
template <std::size_t R>
std::vector<layout<R>> layouts() {
  std::vector<layout<R>> all{packed_layout<R>()};

  layout<R> sliced = packed_layout<R>();
  sliced.name = "sliced";
  for (std::size_t axis = 0; axis < R; ++axis) {
    sliced.before[axis] = static_cast<index_t>(axis % 2 + 1);
    sliced.after[axis] = static_cast<index_t>(2 * axis + 1);
  }
  all.push_back(sliced);

  if constexpr (R >= 2) {
    layout<R> reversed = packed_layout<R>();
    reversed.name = "reversed";
    for (std::size_t axis = 0; axis + 1 < R; ++axis) reversed.reversed[axis] = true;
    all.push_back(reversed);
  }
  if constexpr (R >= 3) {
    layout<R> swapped = packed_layout<R>();
    swapped.name = R == 4 ? "(B, T, H, D)" : "two axes swapped";
    std::swap(swapped.order[R - 3], swapped.order[R - 2]);
    all.push_back(swapped);

    layout<R> everything = sliced;
    everything.name = "rotated, sliced, every other axis reversed";
    for (std::size_t axis = 0; axis + 1 < R; ++axis) {
      everything.order[axis] = (axis + 1) % (R - 1);
      everything.reversed[axis] = axis % 2 == 0;
    }
    all.push_back(everything);
  }
  return all;
}

/// A copy of a tensor in the memory that a layout says, amid poison: bytes of 0xff, which are NaN in every float type.
template <class E, std::size_t R>
class strided {
  static_assert(std::is_trivially_copyable_v<E>);

 public:
  strided(const extents<R>& shape, const layout<R>& l) {
    index_t step = 1;
    index_t start = 0;
    extents<R> strides{};
    for (std::size_t i = R; i-- > 0;) {
      const std::size_t axis = l.order[i];
      const index_t extent = shape[axis];
      const index_t first = l.before[axis] + (l.reversed[axis] && extent > 0 ? extent - 1 : 0);
      start += first * step;
      strides[axis] = l.reversed[axis] ? -step : step;
      step *= l.before[axis] + extent + l.after[axis];
    }
    memory_.resize(static_cast<std::size_t>(step) * sizeof(E) + alignof(E));
    memory_.shrink_to_fit();  // so that an address sanitizer sees the end
    std::memset(memory_.data(), 0xff, memory_.size());
    view_ = tensor_view<E, R>(reinterpret_cast<E*>(memory_.data()) + (step > 0 ? start : 0), shape, strides);
  }
  strided(const tensor_view<const E, R>& source, const layout<R>& l) : strided(source.shape(), l) {
    copy(source, view_);
  }
  strided(strided&&) noexcept = default;
  strided(const strided&) = delete;

  tensor_view<E, R> view() const { return view_; }

  /// Whether all bytes that are not the tensor's still are poison.
  bool gaps_untouched() const {
    std::vector<unsigned char> expected(memory_.size(), 0xff);
    mark(view_, reinterpret_cast<const unsigned char*>(memory_.data()), expected);
    return expected == memory_;
  }

  /// Writes one view's elements to another of the same shape.
  template <std::size_t S>
  static void copy(const tensor_view<const E, S>& from, const tensor_view<E, S>& to) {
    if constexpr (S == 0) {
      std::memcpy(to.data(), from.data(), sizeof(E));
    } else {
      for (index_t i = 0; i < from.extent(0); ++i) copy<S - 1>(from.part(i), to.part(i));
    }
  }

 private:
  template <std::size_t S>
  static void mark(const tensor_view<const E, S>& v, const unsigned char* base, std::vector<unsigned char>& bytes) {
    if constexpr (S == 0) {
      const auto* p = reinterpret_cast<const unsigned char*>(v.data());
      std::memcpy(bytes.data() + (p - base), p, sizeof(E));
    } else {
      for (index_t i = 0; i < v.extent(0); ++i) mark<S - 1>(v.part(i), base, bytes);
    }
  }

  std::vector<unsigned char> memory_;
  tensor_view<E, R> view_;
};

/// A packed copy of any view.
template <class E, std::size_t R>
tensor<E, R> packed_copy(const tensor_view<const E, R>& source) {
  tensor<E, R> result(source.shape());
  strided<E, R>::copy(source, result);
  return result;
}

/// The view whose axis, of extent 1, is repeated n times by a stride of zero.
template <class E, std::size_t R>
tensor_view<const E, R> broadcast(const tensor_view<const E, R>& source, std::size_t axis, index_t n) {
  extents<R> shape = source.shape();
  extents<R> strides = source.strides();
  shape[axis] = n;
  strides[axis] = 0;
  return tensor_view<const E, R>(source.data(), shape, strides);
}

namespace detail {

/// The first index at which two views of the same shape differ is left in `at`.
template <std::size_t R, class E, std::size_t S>
bool same_bits(const tensor_view<const E, S>& a, const tensor_view<const E, S>& b, extents<R>& at) {
  if constexpr (S == 0) {
    return std::memcmp(a.data(), b.data(), sizeof(E)) == 0;
  } else {
    index_t& i = at[R - S];
    for (i = 0; i < a.extent(0); ++i) {
      if (!same_bits<R, E, S - 1>(a.part(i), b.part(i), at)) return false;
    }
    return true;
  }
}

}  // namespace detail

/// Whether two views hold the same bits; says where the first difference is.
template <class E, std::size_t R>
::testing::AssertionResult same_bits(const tensor_view<const E, R>& a, const tensor_view<const E, R>& b) {
  if (a.shape() != b.shape()) return ::testing::AssertionFailure() << "the shapes differ";
  extents<R> at{};
  if (detail::same_bits<R, E, R>(a, b, at)) return ::testing::AssertionSuccess();
  auto failure = ::testing::AssertionFailure() << "first difference at (";
  index_t from_a = 0;
  index_t from_b = 0;
  for (std::size_t axis = 0; axis < R; ++axis) {
    failure << (axis > 0 ? ", " : "") << at[axis];
    from_a += at[axis] * a.stride(axis);
    from_b += at[axis] * b.stride(axis);
  }
  failure << ")";
  if constexpr (requires(E e) { static_cast<double>(e); }) {
    failure << ": " << static_cast<double>(a.data()[from_a]) << " and " << static_cast<double>(b.data()[from_b]);
  }
  return failure;
}

}  // namespace tokenmix::reference
