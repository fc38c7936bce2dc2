// SPDX-License-Identifier: Apache-2.0
/// @file Rows of positions and of truth values: what masks and scores compute with when an index field is a register.
#pragma once

#include <tokenmix/simd/batch.hpp>

#include <algorithm>
#include <concepts>

namespace tokenmix::inline TOKENMIX_ABI::simd {

/// One truth value per lane. `&&`, `||` and `!` work on all lanes (nothing is short-circuited) and mix with bool.
template <class T>
struct lane_mask {
  mask<T> value;

  friend TOKENMIX_ALWAYS_INLINE lane_mask operator&&(lane_mask a, lane_mask b) { return {a.value & b.value}; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator||(lane_mask a, lane_mask b) { return {a.value | b.value}; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator!(lane_mask a) { return {~a.value}; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator&&(lane_mask a, bool b) { return {a.value & mask<T>(b)}; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator&&(bool a, lane_mask b) { return b && a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator||(lane_mask a, bool b) { return {a.value | mask<T>(b)}; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask operator||(bool a, lane_mask b) { return b || a; }
};

/// A row of positions (or of differences of positions): a 64-bit base that all lanes share and a small number per lane.
///
/// T is the type that the kernel computes in: there are as many lanes as in batch<T>. Lane values stay within 2^30 of
/// the base; that holds for the rows of a tile, and for what masks make of them by +, - and comparison.
template <class T>
struct positions {
  using lane = integer_of<T>;

  index_t base = 0;
  batch<lane> offset = batch<lane>(lane(0));

  /// first, first + 1, first + 2, ...
  static TOKENMIX_ALWAYS_INLINE positions consecutive(index_t first) { return {first, iota<lane>()}; }

  /// One position per lane, each computed by f(lane number).
  template <class F>
  static positions generate(F&& f) {
    alignas(64) lane numbers[static_cast<std::size_t>(lanes<T>)];
    const index_t base = f(index_t{0});
    for (index_t i = 0; i < lanes<T>; ++i) numbers[i] = static_cast<lane>(f(i) - base);
    return {base, load(numbers)};
  }

  /// The position in one lane.
  index_t operator[](index_t i) const {
    alignas(64) lane numbers[static_cast<std::size_t>(lanes<T>)];
    store(numbers, offset);
    return base + static_cast<index_t>(numbers[i]);
  }

  friend TOKENMIX_ALWAYS_INLINE positions operator+(positions a, index_t b) { return {a.base + b, a.offset}; }
  friend TOKENMIX_ALWAYS_INLINE positions operator+(index_t a, positions b) { return {a + b.base, b.offset}; }
  friend TOKENMIX_ALWAYS_INLINE positions operator+(positions a, positions b) {
    return {a.base + b.base, a.offset + b.offset};
  }
  friend TOKENMIX_ALWAYS_INLINE positions operator-(positions a) { return {-a.base, batch<lane>(lane(0)) - a.offset}; }
  friend TOKENMIX_ALWAYS_INLINE positions operator-(positions a, index_t b) { return {a.base - b, a.offset}; }
  friend TOKENMIX_ALWAYS_INLINE positions operator-(index_t a, positions b) {
    return {a - b.base, batch<lane>(lane(0)) - b.offset};
  }
  friend TOKENMIX_ALWAYS_INLINE positions operator-(positions a, positions b) {
    return {a.base - b.base, a.offset - b.offset};
  }

  /// Products, quotients (towards zero) and remainders go lane by lane in 64 bits, as for plain integers.
  friend positions operator*(positions a, index_t b) {
    return a.transform([b](index_t x) { return x * b; });
  }
  friend positions operator*(index_t a, positions b) { return b * a; }
  friend positions operator/(positions a, index_t b) {
    return a.transform([b](index_t x) { return x / b; });
  }
  friend positions operator%(positions a, index_t b) {
    return a.transform([b](index_t x) { return x % b; });
  }

  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<(positions a, index_t b) { return a.compare_less(b); }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<=(positions a, index_t b) { return !(a > b); }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>(positions a, index_t b) {
    return {mask_cast<T>(a.offset > batch<lane>(clamped(b - a.base)))};
  }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>=(positions a, index_t b) { return !(a < b); }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator==(positions a, index_t b) {
    return {mask_cast<T>(a.offset == batch<lane>(clamped(b - a.base)))};
  }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator!=(positions a, index_t b) { return !(a == b); }

  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<(index_t a, positions b) { return b > a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<=(index_t a, positions b) { return b >= a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>(index_t a, positions b) { return b < a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>=(index_t a, positions b) { return b <= a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator==(index_t a, positions b) { return b == a; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator!=(index_t a, positions b) { return b != a; }

  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<(positions a, positions b) { return a - b < 0; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator<=(positions a, positions b) { return a - b <= 0; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>(positions a, positions b) { return a - b > 0; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator>=(positions a, positions b) { return a - b >= 0; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator==(positions a, positions b) { return a - b == 0; }
  friend TOKENMIX_ALWAYS_INLINE lane_mask<T> operator!=(positions a, positions b) { return a - b != 0; }

  /// f applied to every lane's position.
  template <class F>
  positions transform(F&& f) const {
    alignas(64) lane numbers[static_cast<std::size_t>(lanes<T>)];
    store(numbers, offset);
    return generate([&](index_t i) { return static_cast<index_t>(f(base + static_cast<index_t>(numbers[i]))); });
  }

 private:
  static constexpr lane limit = lane(1) << 30;

  // Lanes stay within 2^30 of the base, so a farther number compares like the nearest one outside that range.
  static constexpr lane clamped(index_t difference) {
    return static_cast<lane>(std::clamp<index_t>(difference, -limit - 1, index_t{limit} + 1));
  }
  TOKENMIX_ALWAYS_INLINE lane_mask<T> compare_less(index_t b) const {
    return {mask_cast<T>(batch<lane>(clamped(b - base)) > offset)};
  }
};

/// The absolute values.
template <class T>
TOKENMIX_ALWAYS_INLINE positions<T> abs(positions<T> p) {
  return p.transform([](index_t x) { return x < 0 ? -x : x; });
}

/// Positions or differences as numbers of the computing type, correctly rounded below 2^31.
template <class T>
TOKENMIX_ALWAYS_INLINE batch<T> to_batch(positions<T> p) {
  using lane = integer_of<T>;
  if constexpr (sizeof(T) == 4) {
    return xsimd::to_float(p.offset + batch<lane>(static_cast<lane>(p.base)));
  } else {
    alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
    for (index_t i = 0; i < lanes<T>; ++i) numbers[i] = static_cast<T>(p[i]);
    return load(numbers);
  }
}

/// f(position) of every lane: a look-up in a table, say.
template <class T, class F>
TOKENMIX_ALWAYS_INLINE batch<T> gather(positions<T> p, F&& f) {
  alignas(64) integer_of<T> numbers[static_cast<std::size_t>(lanes<T>)];
  store(numbers, p.offset);
  alignas(64) T values[static_cast<std::size_t>(lanes<T>)];
  for (index_t i = 0; i < lanes<T>; ++i) values[i] = static_cast<T>(f(p.base + static_cast<index_t>(numbers[i])));
  return load(values);
}

template <class X>
inline constexpr bool is_positions = false;
template <class T>
inline constexpr bool is_positions<positions<T>> = true;

}  // namespace tokenmix::inline TOKENMIX_ABI::simd
