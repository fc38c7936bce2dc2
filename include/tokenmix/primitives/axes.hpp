// SPDX-License-Identifier: Apache-2.0
/// @file One value for each axis of a grid of tokens: its size, its window, its dilation.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <initializer_list>

namespace tokenmix::inline TOKENMIX_ABI {

/// One to three values, the outermost axis first: `axes{56, 56}` is a grid of 56 rows of 56 tokens. Empty stands for a default.
template <class V>
class axes {
 public:
  static constexpr index_t most = 3;

  constexpr axes() = default;
  constexpr axes(std::initializer_list<V> values) : rank_(static_cast<index_t>(values.size())) {
    if (rank_ > most) detail::fail_shape("axes has ", rank_, " values: a grid has one to three axes");
    index_t i = 0;
    for (const V& value : values) values_[i++] = value;
  }

  constexpr index_t rank() const { return rank_; }
  constexpr V operator[](index_t i) const { return values_[i]; }

 private:
  V values_[static_cast<std::size_t>(most)]{};
  index_t rank_ = 0;
};
axes(std::initializer_list<int>) -> axes<index_t>;

}  // namespace tokenmix::inline TOKENMIX_ABI
