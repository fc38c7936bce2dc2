// SPDX-License-Identifier: Apache-2.0
/// @file The lines that a scan runs along, and the segments and blocks that each line is cut into.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/order.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>  // std::abs
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// Steps of one block of a scan. Blocks are counted from the start of their segment; inside one, values are combined
/// in a chain, and chains of blocks are combined by a scan of the same kind: the result depends on positions alone,
/// not on who computed which part, and its error does not grow with the number of steps.
inline constexpr index_t scan_block_steps = 128;

namespace detail {

/// What is left of V views of one shape without the scanned axis: as few axes as their strides allow, the longest
/// strides first.
template <std::size_t V, std::size_t R>
struct scan_lines {
  static constexpr std::size_t axes = R > 1 ? R - 1 : 1;

  index_t outer = 1;                    ///< lines are `outer` times `width`
  index_t width = 1;                    ///< extent of the last axis, along which lines stand in lanes
  std::array<index_t, V> step{};        ///< strides along the scanned axis
  std::array<index_t, V> lane{};        ///< strides along the last axis
  std::array<index_t, axes> extents{};  ///< of the outer axes
  std::array<std::array<index_t, axes>, V> strides{};
  std::size_t count = 0;  ///< of outer axes

  /// The offsets of all views for outer index i.
  void offsets(index_t i, index_t* to) const {
    for (std::size_t v = 0; v < V; ++v) to[v] = 0;
    for (std::size_t axis = count; axis-- > 0;) {
      const index_t at = i % extents[axis];
      i /= extents[axis];
      for (std::size_t v = 0; v < V; ++v) to[v] += at * strides[v][axis];
    }
  }
};

/// An axis of V views: its extent, and the stride of each of them.
template <std::size_t V>
struct common_axis {
  index_t extent = 1;
  std::array<index_t, V> strides{};
};

/// Lines of views, all of `shape`, with these strides. Axes are sorted by the strides of view `main`; `prefers(axis)`
/// is true of an axis that should be the last.
template <std::size_t V, std::size_t R, class Prefers>
scan_lines<V, R> lines_of(const extents<R>& shape, std::size_t scanned, const std::array<extents<R>, V>& strides,
                          std::size_t main, Prefers&& prefers) {
  std::array<common_axis<V>, R> axes{};
  std::size_t n = 0;
  for (std::size_t axis = 0; axis < R; ++axis) {
    if (axis == scanned || shape[axis] == 1) continue;
    axes[n].extent = shape[axis];
    for (std::size_t v = 0; v < V; ++v) axes[n].strides[v] = strides[v][axis];
    ++n;
  }
  const auto length = [&](const common_axis<V>& axis) { return std::abs(axis.strides[main]); };
  for (std::size_t i = 1; i < n; ++i) {  // equal strides keep their order
    for (std::size_t j = i; j > 0 && length(axes[j - 1]) < length(axes[j]); --j) std::swap(axes[j - 1], axes[j]);
  }
  for (std::size_t axis = n; axis-- > 1;) {  // an axis that continues the one inside it becomes one with it
    bool continues = true;
    for (std::size_t v = 0; v < V; ++v) {
      continues = continues && axes[axis - 1].strides[v] == axes[axis].strides[v] * axes[axis].extent;
    }
    if (!continues) continue;
    axes[axis].extent *= axes[axis - 1].extent;
    std::copy(axes.begin() + static_cast<index_t>(axis), axes.begin() + static_cast<index_t>(n),
              axes.begin() + static_cast<index_t>(axis) - 1);
    --n;
  }
  for (std::size_t axis = n; axis-- > 0;) {
    if (!prefers(axes[axis])) continue;
    std::rotate(axes.begin() + static_cast<index_t>(axis), axes.begin() + static_cast<index_t>(axis) + 1,
                axes.begin() + static_cast<index_t>(n));
    break;
  }
  if (n == 0) {  // a single line: a lane axis of extent 1
    axes[0].strides.fill(1);
    n = 1;
  }
  scan_lines<V, R> result;
  result.width = axes[n - 1].extent;
  result.lane = axes[n - 1].strides;
  result.count = n - 1;
  for (std::size_t axis = 0; axis + 1 < n; ++axis) {
    result.extents[axis] = axes[axis].extent;
    result.outer *= axes[axis].extent;
    for (std::size_t v = 0; v < V; ++v) result.strides[v][axis] = axes[axis].strides[v];
  }
  for (std::size_t v = 0; v < V; ++v) result.step[v] = strides[v][scanned];
  return result;
}

/// Segments of the scanned axis, and their blocks numbered over all segments.
struct scan_segments {
  index_t count = 0;
  const index_t* starts = nullptr;  ///< (count + 1) steps
  const index_t* blocks = nullptr;  ///< (count + 1): segment i has blocks [blocks[i], blocks[i + 1])
  order direction = order::forward;

  static constexpr index_t blocks_of(index_t steps) { return (steps + scan_block_steps - 1) / scan_block_steps; }

  /// Segment i is [start(i), start(i + 1)).
  template <class Start>
  static scan_segments of(index_t count, order direction, scratch_frame& frame, Start&& start) {
    index_t* starts = frame.take<index_t>(count + 1);
    index_t* blocks = frame.take<index_t>(count + 1);
    starts[0] = start(index_t{0});
    blocks[0] = 0;
    for (index_t i = 0; i < count; ++i) {
      starts[i + 1] = start(i + 1);
      blocks[i + 1] = blocks[i] + blocks_of(starts[i + 1] - starts[i]);
    }
    return {count, starts, blocks, direction};
  }

  index_t steps(index_t segment) const { return starts[segment + 1] - starts[segment]; }
  index_t total_blocks() const { return blocks[count]; }
  index_t most_blocks() const {
    index_t most = 0;
    for (index_t i = 0; i < count; ++i) most = std::max(most, blocks[i + 1] - blocks[i]);
    return most;
  }
  /// The segment of a block.
  index_t segment_of(index_t block) const { return std::upper_bound(blocks, blocks + count + 1, block) - blocks - 1; }
  /// Steps of a block of a segment.
  index_t steps_of_block(index_t segment, index_t block) const {
    return std::min(scan_block_steps, steps(segment) - (block - blocks[segment]) * scan_block_steps);
  }
  /// The place along the scanned axis of a segment's position t.
  index_t place(index_t segment, index_t t) const {
    return direction == order::forward ? starts[segment] + t : starts[segment + 1] - 1 - t;
  }
  index_t sign() const { return direction == order::forward ? 1 : -1; }
  /// The first block, from `block` on, that begins a segment.
  index_t next_start(index_t block) const { return *std::lower_bound(blocks, blocks + count + 1, block); }
};

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
