// SPDX-License-Identifier: Apache-2.0
/// @file Attention along one axis of a grid of tokens.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/dilated.hpp>
#include <tokenmix/primitives/mask/fixed_pattern.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which line of a grid a token sees.
enum class grid_line : unsigned char { row, column };

/// Tokens stand in a grid, row after row of `width` tokens; a query sees its own row, or its own column.
///
///     row:     query / width == key / width
///     column:  (query - key) % width == 0
///
/// `axial{.width = w} | axial{.width = w, .along = grid_line::column}` is the criss-cross.
///
/// Errors     value_error if width is below 1.
/// Source     Ho et al. 2019, Axial attention in multidimensional transformers.
struct axial {
  using is_mask = void;
  index_t width = 1;                 ///< tokens of a row of the grid, >= 1
  grid_line along = grid_line::row;  ///< the line that is seen

  template <class Index>
  TOKENMIX_ALWAYS_INLINE constexpr auto operator()(const Index& where) const {
    return detail::ask_each_lane(where, [this](const index& pair) {
      return along == grid_line::row ? detail::floor_division(pair.query, width) == pair.key / width
                                     : (pair.query - pair.key) % width == 0;
    });
  }
  constexpr span run(const query_block& block, index_t key) const {
    if (along == grid_line::column) return dilated{.dilation = width}.run(block, key);
    return fixed_pattern{.block = width, .summary = 0}.run(block, key);
  }
  void check(index_t /*batches*/, index_t /*heads*/, index_t /*queries*/, index_t /*keys*/) const {
    if (width < 1) detail::fail_value("axial.width is ", width, ", expected 1 or more");
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
