// SPDX-License-Identifier: Apache-2.0
/// @file Touching rows before they are needed.
#pragma once

#include <tokenmix/simd/unroll.hpp>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// Rows that a loop asks for a few lines at a time, a while before they are needed, so that memory works while the loop
/// computes.
///
/// They are asked for in the order of memory and into the second cache: into the first, a decode step over 512 MiB reached
/// 10.6 GB/s where this reached 13.7 (Zen 4); on a Sapphire-Rapids-class core the ways differ by less than its noise.
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
    unroll<LinesPerStep>([&](auto i) TOKENMIX_LAMBDA_INLINE { __builtin_prefetch(next_ + i * line, 0, 2); });
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

/// Short rows far apart that will be needed or written later: a list of them, prefetched some lines at a time.
///
/// Where rows are shorter than a page there is no stream for the hardware to find, and a load that waits for memory would hold up
/// the computation behind it: here prefetch instructions are what helps, a few between one block of a computation and the next.
class lines_ahead {
 public:
  static constexpr index_t most_runs = 12;

  void clear() { count_ = at_ = left_ = 0; }

  /// `rows` rows of `width` elements each, `stride` apart. Any address may be named; what is beyond the room is left out.
  template <class E>
  void add(const E* first, index_t stride, index_t rows, index_t width) {
    if (rows <= 0 || width <= 0 || count_ == most_runs) return;
    constexpr auto bytes = static_cast<index_t>(sizeof(E));
    const bool joined = stride == width;
    runs_[count_++] = {reinterpret_cast<const char*>(first), stride * bytes, joined ? 1 : rows,
                       ((joined ? rows : 1) * width * bytes + line - 1) / line};
    if (at_ + 1 == count_) begin();
  }

  /// Asks for the next `n` lines.
  TOKENMIX_ALWAYS_INLINE void fetch(index_t n) {
    while (n > 0 && at_ < count_) {
      const index_t now = n < left_ ? n : left_;
      for (index_t i = 0; i < now; ++i) __builtin_prefetch(next_ + i * line, 0, 2);
      next_ += now * line;
      left_ -= now;
      n -= now;
      if (left_ == 0) next_row();
    }
  }

 private:
  static constexpr index_t line = 64;
  struct run {
    const char* first;
    index_t stride;
    index_t rows;
    index_t lines;
  };

  void begin() {
    next_ = runs_[at_].first;
    left_ = runs_[at_].lines;
  }
  void next_row() {
    run& r = runs_[at_];
    if (--r.rows > 0) {
      r.first += r.stride;
    } else if (++at_ == count_) {
      return;
    }
    begin();
  }

  const char* next_ = nullptr;
  index_t left_ = 0;
  index_t at_ = 0;
  index_t count_ = 0;
  run runs_[most_runs];
};

/// Asks for a row that is needed at once, with others that lie elsewhere: so that memory is not waited for row by row.
template <class E>
TOKENMIX_ALWAYS_INLINE void prefetch_row(const E* row, index_t width) {
  constexpr index_t line = 64 / static_cast<index_t>(sizeof(E));
  for (index_t i = 0; i < width; i += line) __builtin_prefetch(row + i, 0, 3);
}

/// Asks for nothing.
struct nothing_ahead {
  constexpr void operator()() const {}
};

/// Asks for what both ask for.
template <class First, class Second>
struct both_ahead {
  First first;
  Second second;

  TOKENMIX_ALWAYS_INLINE void operator()() {
    first();
    second();
  }
};
template <class First, class Second>
both_ahead(First, Second) -> both_ahead<First, Second>;

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
