// SPDX-License-Identifier: Apache-2.0
/// @file Orders in which a scan visits the cells of a grid, as lists of positions in its rows.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

namespace tokenmix::inline TOKENMIX_ABI {

/// A grid of cells; cell (row, column) is position row * columns + column.
struct grid {
  index_t rows = 0;
  index_t columns = 0;

  constexpr index_t size() const { return rows * columns; }
};

namespace detail {

inline void check_grid(const grid& g) {
  if (g.rows < 0 || g.columns < 0)
    fail_value("grid is ", g.rows, " x ", g.columns, ": its rows and columns are not negative");
  if (g.columns > 0 && g.rows > std::numeric_limits<std::int32_t>::max() / g.columns)
    fail_value("grid is ", g.rows, " x ", g.columns, ": its positions do not fit 32 bits");
}

inline void check_path_length(std::span<std::int32_t> path, const grid& g) {
  check_grid(g);
  if (static_cast<index_t>(path.size()) != g.size())
    fail_shape("path has ", static_cast<index_t>(path.size()), " entries, the grid has ", g.size(), " cells");
}

}  // namespace detail

/// Row after row, each from its first column.
inline void row_path(const grid& g, std::span<std::int32_t> path /* (L) */) {
  detail::check_path_length(path, g);
  for (std::size_t i = 0; i < path.size(); ++i) path[i] = static_cast<std::int32_t>(i);
}

/// Column after column, each from its first row.
inline void column_path(const grid& g, std::span<std::int32_t> path /* (L) */) {
  detail::check_path_length(path, g);
  std::size_t n = 0;
  for (index_t c = 0; c < g.columns; ++c)
    for (index_t r = 0; r < g.rows; ++r) path[n++] = static_cast<std::int32_t>(r * g.columns + c);
}

/// Row after row, every second one backwards: neighbours on the path are neighbours on the grid.
inline void row_snake_path(const grid& g, std::span<std::int32_t> path /* (L) */) {
  detail::check_path_length(path, g);
  std::size_t n = 0;
  for (index_t r = 0; r < g.rows; ++r)
    for (index_t c = 0; c < g.columns; ++c)
      path[n++] = static_cast<std::int32_t>(r * g.columns + (r % 2 == 0 ? c : g.columns - 1 - c));
}

/// Column after column, every second one backwards.
inline void column_snake_path(const grid& g, std::span<std::int32_t> path /* (L) */) {
  detail::check_path_length(path, g);
  std::size_t n = 0;
  for (index_t c = 0; c < g.columns; ++c)
    for (index_t r = 0; r < g.rows; ++r)
      path[n++] = static_cast<std::int32_t>((c % 2 == 0 ? r : g.rows - 1 - r) * g.columns + c);
}

/// Windows one after the other, row after row of them; inside each its rows. Windows at the border are cut off.
inline void window_path(const grid& g, const grid& window, std::span<std::int32_t> path /* (L) */) {
  detail::check_path_length(path, g);
  if (window.rows < 1 || window.columns < 1)
    detail::fail_value("window is ", window.rows, " x ", window.columns, ": expected at least 1 x 1");
  std::size_t n = 0;
  for (index_t top = 0; top < g.rows; top += std::min(window.rows, g.rows))
    for (index_t left = 0; left < g.columns; left += std::min(window.columns, g.columns))
      for (index_t r = top; r < std::min(g.rows, top + std::min(window.rows, g.rows)); ++r)
        for (index_t c = left; c < std::min(g.columns, left + std::min(window.columns, g.columns)); ++c)
          path[n++] = static_cast<std::int32_t>(r * g.columns + c);
}

/// VMamba's lists: rows, columns. Scanned both ways they are its four paths, in its order.
///
/// Source     Liu et al. 2024 (VMamba), section 4.3: the cross-scan.
inline tensor<std::int32_t, 2> cross_paths(const grid& g) {
  detail::check_grid(g);
  tensor<std::int32_t, 2> paths({2, g.size()});
  const auto n = static_cast<std::size_t>(g.size());
  row_path(g, {paths.row(0), n});
  column_path(g, {paths.row(1), n});
  return paths;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
