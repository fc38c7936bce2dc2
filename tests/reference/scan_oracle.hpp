// SPDX-License-Identifier: Apache-2.0
/// @file The slow scan: one step after the other along every line, in long double, and the magnitudes that error
/// gates need.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

namespace tokenmix::reference {

/// Which way a scan goes through a tensor: along `axis`, segment by segment, each from its start or from its end.
struct scan_path {
  std::size_t axis = 0;
  bool reverse = false;
  std::vector<index_t> offsets{};  // empty: one segment

  index_t segments() const { return offsets.empty() ? 1 : static_cast<index_t>(offsets.size()) - 1; }
  index_t begin(index_t segment) const { return offsets.empty() ? 0 : offsets[static_cast<std::size_t>(segment)]; }
  index_t end(index_t segment, index_t steps) const {
    return offsets.empty() ? steps : offsets[static_cast<std::size_t>(segment) + 1];
  }
};

/// Goes through all lines of packed tensors of one shape.
///
///     begin(state_index)                 the state before a segment's first step; its place in a packed tensor of states
///     step(state, index, position)       absorbs the element at a place in the packed tensor
///     end(state, state_index)            after a segment's last step
template <std::size_t R, class Begin, class Step, class End>
void scan_lines(const extents<R>& shape, const scan_path& path, Begin&& begin, Step&& step, End&& end) {
  index_t before = 1;
  index_t after = 1;
  for (std::size_t axis = 0; axis < path.axis; ++axis) before *= shape[axis];
  for (std::size_t axis = path.axis + 1; axis < R; ++axis) after *= shape[axis];
  const index_t steps = shape[path.axis];
  for (index_t i = 0; i < before; ++i) {
    for (index_t j = 0; j < after; ++j) {
      for (index_t segment = 0; segment < path.segments(); ++segment) {
        const index_t state_index = (i * path.segments() + segment) * after + j;
        auto state = begin(state_index);
        const index_t first = path.begin(segment);
        const index_t last = path.end(segment, steps);
        for (index_t t = first; t < last; ++t) {
          const index_t at = path.reverse ? first + last - 1 - t : t;
          step(state, (i * steps + at) * after + j, t - first);
        }
        end(state, state_index);
      }
    }
  }
}

/// A result and the sum of the magnitudes that went into it.
struct measured {
  long double value = 0;
  long double magnitude = 0;
};

/// What a scan gives, in the order of a packed tensor. Steps outside all segments stay NaN.
struct scan_result {
  std::vector<measured> out;
  std::vector<measured> final_state;
  std::vector<index_t> position;  // of each step in its segment
};

/// h = a h + b for every line, h and its magnitude from |a|, |b| beside it. `a`, `b` and `initial` give the number at
/// a place; sums are a = 1.
template <std::size_t R, class A, class B, class Initial>
scan_result affine_scan(const extents<R>& shape, const scan_path& path, bool inclusive, A&& a, B&& b,
                        Initial&& initial) {
  index_t size = 1;
  for (const index_t extent : shape) size *= extent;
  index_t states = path.segments();
  for (std::size_t axis = 0; axis < R; ++axis) states *= axis == path.axis ? 1 : shape[axis];
  const measured unwritten{std::numeric_limits<long double>::quiet_NaN(), 0};
  scan_result result;
  result.out.assign(static_cast<std::size_t>(size), unwritten);
  result.final_state.assign(static_cast<std::size_t>(states), unwritten);
  result.position.assign(static_cast<std::size_t>(size), 0);
  scan_lines(
      shape, path,
      [&](index_t i) {
        const long double h = initial(i);
        return measured{h, std::abs(h)};
      },
      [&](measured& h, index_t i, index_t position) {
        const auto at = static_cast<std::size_t>(i);
        const long double decay = a(i);
        const long double added = b(i);
        if (!inclusive) result.out[at] = h;
        h = {decay * h.value + added, std::abs(decay) * h.magnitude + std::abs(added)};
        if (inclusive) result.out[at] = h;
        result.position[at] = position;
      },
      [&](const measured& h, index_t i) { result.final_state[static_cast<std::size_t>(i)] = h; });
  return result;
}

}  // namespace tokenmix::reference
