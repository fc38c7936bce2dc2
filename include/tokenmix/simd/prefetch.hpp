// SPDX-License-Identifier: Apache-2.0
/// @file Touching rows before they are needed.
#pragma once

#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Rows that a loop touches a few lines at a time, a while before they are needed, so that memory works while the loop computes.
///
/// The touches are loads in the order of memory: they train the hardware's stream prefetcher, which then runs ahead by more
/// than the core's line buffers hold. Prefetch instructions do not train it and wait in those buffers for memory: measured on
/// a Sapphire-Rapids-class core they stream 512 MiB no better than no hints at all.
template <class E, index_t LinesPerStep>
class rows_ahead {
 public:
  /// All of these rows can be read.
  rows_ahead(const E* data, index_t stride, index_t rows, index_t width)
      : next_(data), left_(rows > 0 ? width : 0), stride_(stride), width_(width), rows_(rows) {
    if (stride != width || rows <= 0) return;
    left_ = rows * width;
    rows_ = 1;
  }

  TOKENMIX_ALWAYS_INLINE void operator()() {
    if (left_ < LinesPerStep * line) {
      next_row();
      return;
    }
    unroll<LinesPerStep>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      static_cast<void>(*reinterpret_cast<const volatile char*>(next_ + i * line));
    });
    next_ += LinesPerStep * line;
    left_ -= LinesPerStep * line;
  }

 private:
  static constexpr index_t line = 64 / static_cast<index_t>(sizeof(E));

  TOKENMIX_ALWAYS_INLINE void next_row() {
    if (rows_ <= 1) return;
    --rows_;
    next_ += left_ + stride_ - width_;
    left_ = width_;
  }

  const E* next_;
  index_t left_;
  index_t stride_;
  index_t width_;
  index_t rows_;
};

/// Asks for nothing.
struct nothing_ahead {
  constexpr void operator()() const {}
};

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
