// SPDX-License-Identifier: Apache-2.0
/// @file The check that every list of indices goes through.
#pragma once

#include <tokenmix/core/check.hpp>

#include <span>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Every index is in [0, limit); the message names the first that is not.
inline void check_indices(const char* name, std::span<const index_t> indices, const char* of, index_t limit) {
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i] < 0 || indices[i] >= limit) {
      fail_value(name, "[", i, "] is ", indices[i], ": ", of, " has ", limit, " rows");
    }
  }
}

/// offsets[0] = 0 <= ... <= offsets[n] = rows.
inline void check_segments(const char* name, std::span<const index_t> offsets, const char* of, index_t rows) {
  if (offsets.empty()) fail_shape(name, " is empty: n segments need n + 1 offsets");
  index_t before = 0;
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    if (offsets[i] < before || offsets[i] > rows || (i == 0 && offsets[i] != 0)) {
      fail_value(name, "[", i, "] is ", offsets[i], ", expected ", before, " to ", i == 0 ? 0 : rows,
                 ": offsets start at 0 and do not decrease, ", of, " has ", rows);
    }
    before = offsets[i];
  }
  if (before != rows) {
    fail_value(name, "[", offsets.size() - 1, "] is ", before, ", expected ", rows, ": the segments cover ", of);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
