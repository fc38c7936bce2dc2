// SPDX-License-Identifier: Apache-2.0
/// @file Element types: float and double compute in themselves; bfloat16 and float16 are storage, computed in float.
#pragma once

#include <tokenmix/core/types.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// Round to nearest, ties to even; NaN keeps its sign and upper payload and becomes quiet.
constexpr std::uint16_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

constexpr float bfloat16_value(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

/// Round to nearest, ties to even, subnormals included; what is above 65504 + half a step becomes infinity.
constexpr std::uint16_t float16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65536 and more
  if (magnitude < 0x38800000u) {                                                    // below 2^-14: subnormal or zero
    const std::uint32_t exponent = magnitude >> 23;
    if (exponent < 102u) return sign;  // below 2^-25 rounds to zero
    const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - exponent;  // units of 2^-24
    const std::uint32_t half = 1u << (shift - 1u);
    const std::uint32_t odd = (mantissa >> shift) & 1u;
    return static_cast<std::uint16_t>(sign | ((mantissa + half - 1u + odd) >> shift));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

constexpr float float16_value(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0u) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // exact
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  if (exponent == 31u) {
    const std::uint32_t quiet = mantissa != 0u ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

/// The value as a float, such that rounding it once more, to at most 22 bits, gives the same as rounding the value
/// itself: what is not exact becomes the neighbour whose last bit is 1 (round to odd).
template <class Number>
constexpr float odd_float(Number number) {
  const auto value = static_cast<double>(number);
  const auto nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (!(back < value || back > value) || (bits & 1u) != 0u) return nearest;  // exact, NaN, or odd already
  const bool too_far_out = value < 0.0 ? back < value : back > value;
  return std::bit_cast<float>(too_far_out ? bits - 1u : bits + 1u);
}

}  // namespace detail

// May alias: memory that holds another library's 16-bit type (Eigen's, a DLPack tensor's, plain integers) is read in place.
#define TOKENMIX_MAY_ALIAS __attribute__((may_alias))

/// The upper half of a float: 8 bits of exponent, 7 of fraction. Storage only; bit-compatible with Eigen::bfloat16.
struct TOKENMIX_MAY_ALIAS bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  constexpr explicit bfloat16(float value) : bits(detail::bfloat16_bits(value)) {}
  /// Rounded once, not to float and then again.
  template <class Number>
    requires(std::is_arithmetic_v<Number>)
  constexpr explicit bfloat16(Number value) : bfloat16(detail::odd_float(value)) {}
  constexpr explicit operator float() const { return detail::bfloat16_value(bits); }
  constexpr explicit operator double() const { return static_cast<double>(detail::bfloat16_value(bits)); }
  static constexpr bfloat16 from_bits(std::uint16_t bits) { return std::bit_cast<bfloat16>(bits); }
};

/// IEEE binary16: 5 bits of exponent, 10 of fraction. Storage only; bit-compatible with Eigen::half.
struct TOKENMIX_MAY_ALIAS float16 {
  std::uint16_t bits;

  float16() = default;
  constexpr explicit float16(float value) : bits(detail::float16_bits(value)) {}
  /// Rounded once, not to float and then again.
  template <class Number>
    requires(std::is_arithmetic_v<Number>)
  constexpr explicit float16(Number value) : float16(detail::odd_float(value)) {}
  constexpr explicit operator float() const { return detail::float16_value(bits); }
  constexpr explicit operator double() const { return static_cast<double>(detail::float16_value(bits)); }
  static constexpr float16 from_bits(std::uint16_t bits) { return std::bit_cast<float16>(bits); }
};

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

namespace detail {

template <class E>
struct accumulator;
template <>
struct accumulator<float> {
  using type = float;
};
template <>
struct accumulator<double> {
  using type = double;
};
template <>
struct accumulator<bfloat16> {
  using type = float;
};
template <>
struct accumulator<float16> {
  using type = float;
};

}  // namespace detail

/// The type that elements of E are computed in: E itself, or float for the 16-bit storage types.
template <class E>
using accumulator_t = typename detail::accumulator<std::remove_cv_t<E>>::type;

/// An element of a tensor that mixers take.
template <class E>
concept element = requires { typename accumulator_t<E>; };

}  // namespace tokenmix::inline TOKENMIX_ABI
