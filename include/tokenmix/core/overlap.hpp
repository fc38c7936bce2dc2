// SPDX-License-Identifier: Apache-2.0
/// @file Do two strided views share memory, and does one view reach an element twice? Answered from addresses alone.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <array>
#include <cstdint>
#include <limits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A view without its type: where its elements lie.
struct memory_layout {
  std::uintptr_t address = 0;        ///< of the element at index 0
  const index_t* extents = nullptr;  ///< [rank]
  const index_t* strides = nullptr;  ///< [rank], in elements
  std::size_t rank = 0;
  index_t element_bytes = 1;
};

template <class E, std::size_t R>
memory_layout layout_of(const tensor_view<const E, R>& view) {
  return {reinterpret_cast<std::uintptr_t>(view.data()), view.shape().data(), view.strides().data(), R,
          static_cast<index_t>(sizeof(E))};
}

inline bool is_empty(const memory_layout& view) {
  for (std::size_t axis = 0; axis < view.rank; ++axis) {
    if (view.extents[axis] <= 0) return true;
  }
  return false;
}

/// Bytes reached relative to the element at index 0: [first, last). Not `valid` where the arithmetic overflows.
struct byte_range {
  index_t first = 0;
  index_t last = 0;
  bool valid = false;
};

/// For extents >= 0. An empty view reaches nothing.
inline byte_range reach_of(const memory_layout& view) {
  if (is_empty(view)) return {0, 0, true};
  byte_range range{0, view.element_bytes, false};
  for (std::size_t axis = 0; axis < view.rank; ++axis) {
    index_t step = 0;
    index_t span = 0;
    if (view.extents[axis] == 1) continue;  // whose stride is never used, whatever it is
    if (__builtin_mul_overflow(view.strides[axis], view.element_bytes, &step) ||
        __builtin_mul_overflow(view.extents[axis] - 1, step, &span)) {
      return range;
    }
    index_t& end = span < 0 ? range.first : range.last;
    if (__builtin_add_overflow(end, span, &end)) return range;
  }
  constexpr index_t widest = index_t{1} << 60;  // more than any machine addresses; sums of two widths cannot overflow
  if (range.last > widest || range.first < -widest) return range;
  constexpr auto most = std::numeric_limits<std::uintptr_t>::max();
  const auto below = std::uintptr_t{0} - static_cast<std::uintptr_t>(range.first);
  range.valid = below <= view.address && static_cast<std::uintptr_t>(range.last) <= most - view.address;
  return range;
}

/// Is there a solution of  sum of c[i] step[i] = target  with low[i] <= c[i] <= high[i]?
///
/// Steps are positive and sorted, largest first. A depth-first search that only takes coefficients which the remaining
/// terms can still correct: where the axes of a view nest, which is every layout met in practice, that leaves one or
/// two per level. The search gives up after a fixed number of steps and then answers yes, the safe side.
class bounded_sum {
 public:
  static constexpr std::size_t max_terms = 40;

  struct term {
    index_t step;
    index_t low;
    index_t high;
  };

  /// Adds a term; terms of equal steps become one. A step of zero changes no sum.
  void add(index_t step, index_t low, index_t high) {
    if (step == 0 || (low == 0 && high == 0)) return;
    std::size_t at = 0;
    while (at < count_ && terms_[at].step > step) ++at;
    if (at < count_ && terms_[at].step == step) {
      terms_[at].low += low;
      terms_[at].high += high;
      return;
    }
    if (count_ == max_terms) {
      overfull_ = true;
      return;
    }
    for (std::size_t i = count_; i > at; --i) terms_[i] = terms_[i - 1];
    terms_[at] = {step, low, high};
    ++count_;
  }

  /// Whether some choice of coefficients gives the target.
  bool reaches(index_t target) {
    prepare();
    return overfull_ || search(0, target);
  }

  /// Whether some choice of coefficients, not all zero, gives zero; for ranges that are symmetric around zero.
  bool repeats() {
    prepare();
    if (overfull_) return true;
    for (std::size_t i = 0; i < count_;
         ++i) {  // i: the first term whose coefficient is not zero; positive, by symmetry
      for (index_t c = 1; c <= terms_[i].high && c * terms_[i].step <= rest_high_[i + 1]; ++c) {
        if (search(i + 1, -c * terms_[i].step)) return true;
      }
    }
    return false;
  }

 private:
  void prepare() {
    budget_ = 4096;
    rest_low_[count_] = rest_high_[count_] = 0;
    for (std::size_t i = count_; i-- > 0;) {
      rest_low_[i] = rest_low_[i + 1] + terms_[i].low * terms_[i].step;
      rest_high_[i] = rest_high_[i + 1] + terms_[i].high * terms_[i].step;
    }
  }

  static index_t divide_up(index_t a, index_t b) { return a / b + (a % b > 0 ? 1 : 0); }
  static index_t divide_down(index_t a, index_t b) { return a / b - (a % b < 0 ? 1 : 0); }

  bool search(std::size_t i, index_t target) {
    if (target < rest_low_[i] || target > rest_high_[i]) return false;
    if (i == count_) return true;  // target == 0
    if (--budget_ < 0) return true;
    const term& t = terms_[i];
    const index_t least = divide_up(target - rest_high_[i + 1], t.step);
    const index_t most = divide_down(target - rest_low_[i + 1], t.step);
    for (index_t c = least < t.low ? t.low : least; c <= (most > t.high ? t.high : most); ++c) {
      if (search(i + 1, target - c * t.step)) return true;
    }
    return false;
  }

  std::array<term, max_terms> terms_{};
  std::array<index_t, max_terms + 1> rest_low_{};
  std::array<index_t, max_terms + 1> rest_high_{};
  std::size_t count_ = 0;
  bool overfull_ = false;
  index_t budget_ = 0;
};

/// Whether a byte of one view may be a byte of the other: exact wherever the axes nest, otherwise on the safe side.
///
/// So q, k and v sliced out of one packed buffer do not overlap, though their address ranges do. Both views' ranges
/// have been found valid by reach_of.
inline bool overlap(const memory_layout& a, const memory_layout& b) {
  if (is_empty(a) || is_empty(b)) return false;
  const byte_range reach_a = reach_of(a);
  const byte_range reach_b = reach_of(b);
  // Addresses of the lowest bytes; unsigned arithmetic is modular, and the ranges are known not to wrap.
  const std::uintptr_t low_a = a.address + static_cast<std::uintptr_t>(reach_a.first);
  const std::uintptr_t low_b = b.address + static_cast<std::uintptr_t>(reach_b.first);
  const auto width_a = static_cast<std::uintptr_t>(reach_a.last - reach_a.first);
  const auto width_b = static_cast<std::uintptr_t>(reach_b.last - reach_b.first);
  if (low_a <= low_b ? low_b - low_a >= width_a : low_a - low_b >= width_b) return false;
  // The widths fit index_t, so does the distance of two ranges that touch.
  const index_t distance = low_b >= low_a ? static_cast<index_t>(low_b - low_a) : -static_cast<index_t>(low_a - low_b);
  bounded_sum sum;  // low_a + i . steps_a + x = low_b + j . steps_b + y
  for (std::size_t axis = 0; axis < a.rank; ++axis) {
    if (a.extents[axis] == 1) continue;
    const index_t step = a.strides[axis] * a.element_bytes;
    sum.add(step < 0 ? -step : step, 0, a.extents[axis] - 1);
  }
  for (std::size_t axis = 0; axis < b.rank; ++axis) {
    if (b.extents[axis] == 1) continue;
    const index_t step = b.strides[axis] * b.element_bytes;
    sum.add(step < 0 ? -step : step, 1 - b.extents[axis], 0);
  }
  sum.add(1, 1 - b.element_bytes, a.element_bytes - 1);
  return sum.reaches(distance);
}

/// Whether two different indices of a view may be the same element: exact wherever the axes nest.
inline bool overlaps_itself(const memory_layout& view) {
  if (is_empty(view)) return false;
  bounded_sum sum;  // (i - j) . strides = 0
  for (std::size_t axis = 0; axis < view.rank; ++axis) {
    const index_t extent = view.extents[axis];
    const index_t stride = view.strides[axis];
    if (extent == 1) continue;
    if (stride == 0) return true;
    for (std::size_t other = 0; other < axis; ++other) {  // equal steps would become one term
      if (view.extents[other] > 1 && (view.strides[other] == stride || view.strides[other] == -stride)) return true;
    }
    sum.add(stride < 0 ? -stride : stride, 1 - extent, extent - 1);
  }
  return sum.repeats();
}

/// Same address, same extents, and the same strides along every axis that has more than one element.
inline bool identical(const memory_layout& a, const memory_layout& b) {
  if (a.address != b.address || a.rank != b.rank || a.element_bytes != b.element_bytes) return false;
  for (std::size_t axis = 0; axis < a.rank; ++axis) {
    if (a.extents[axis] != b.extents[axis]) return false;
    if (a.extents[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
  }
  return true;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
