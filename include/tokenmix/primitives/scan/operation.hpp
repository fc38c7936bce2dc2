// SPDX-License-Identifier: Apache-2.0
/// @file What can be scanned with: an associative operation and its identity.
#pragma once

#include <tokenmix/primitives/scan/detail/packet.hpp>
#include <tokenmix/primitives/scan/operand.hpp>

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

template <class Operation, class C>
struct scan_value {
  using type = C;
};
template <class Operation, class C>
  requires requires { typename Operation::template value<C>; }
struct scan_value<Operation, C> {
  using type = typename Operation::template value<C>;
};

/// An operation's value with X in place of each component: X itself, unless the operation names a template `value`.
template <class Operation, class X>
using scan_value_t = typename scan_value<Operation, X>::type;

template <class Operation>
concept has_identity = requires(const Operation& operation) { operation.identity(); } ||
                       requires(const Operation& operation) { operation.identity; };

template <has_identity Operation>
constexpr auto identity_of(const Operation& operation) {
  if constexpr (requires { operation.identity(); }) {
    return operation.identity();
  } else {
    return operation.identity;
  }
}

template <class Value, class X>
inline constexpr std::size_t components = sizeof(Value) / sizeof(X);

template <class X, class Value>
TOKENMIX_ALWAYS_INLINE auto to_array(const Value& v) {
  constexpr std::size_t n = std::is_same_v<Value, X> ? 1 : components<Value, X>;
  static_assert(n <= 4, "values have at most four components");
  if constexpr (std::is_same_v<Value, X>) {
    return std::array<X, 1>{v};
  } else if constexpr (n == 1) {
    const auto& [a] = v;
    return std::array<X, 1>{a};
  } else if constexpr (n == 2) {
    const auto& [a, b] = v;
    return std::array<X, 2>{a, b};
  } else if constexpr (n == 3) {
    const auto& [a, b, c] = v;
    return std::array<X, 3>{a, b, c};
  } else {
    const auto& [a, b, c, d] = v;
    return std::array<X, 4>{a, b, c, d};
  }
}

template <class Value, class X, std::size_t N>
TOKENMIX_ALWAYS_INLINE Value from_array(const std::array<X, N>& x) {
  if constexpr (std::is_same_v<Value, X>) {
    return x[0];
  } else {
    return [&]<std::size_t... K>(std::index_sequence<K...>)
               TOKENMIX_LAMBDA_INLINE { return Value{x[K]...}; }(std::make_index_sequence<N>{});
  }
}

/// Whether an operation takes whole registers of C.
template <class Operation, class C>
constexpr bool takes_lanes() {
  using packet = typename packet_of<C>::type;
  if constexpr (std::is_void_v<packet>) {
    return false;
  } else {
    using V = scan_value_t<Operation, typename packet::type>;
    return std::is_invocable_r_v<V, const Operation&, const V&, const V&>;
  }
}

}  // namespace detail

/// An associative operation on values of elements of E, with an identity. Two members are enough:
///
///     struct longest {
///       float identity = 0;                                                      // or a function identity()
///       float operator()(float before, float now) const { return now > before ? now : before; }
///     };
///
/// The identity is what an exclusive scan begins with; it is never combined with anything. The operation need not
/// commute: the first argument is what comes earlier in the scan. It is called from several threads at a time.
///
/// An operation whose call operator takes registers (simd::batch<float>, or complex_lanes<float> for complex numbers)
/// computes on a register of independent values at a time; a template with `auto` arguments must therefore compile
/// for registers, too. One that takes plain values is called for each value, which may be any trivially copyable
/// struct.
///
/// A value of several components, each in a tensor of its own:
///
///     template <class X> struct value { X a, b; };          a value with X (a number, a register) in place of each
///     component value<T> identity() const; template <class X> value<X> operator()(const value<X>& before, const
///     value<X>& now) const;
///
/// and, where they are wanted,
///
///     lift(x)   the value of an element that the operand holds otherwise: of a plain tensor's, or another struct's
///     read(v)   what of a value is written to a plain tensor
template <class Operation, class E>
concept scan_operation =
    detail::has_identity<Operation> &&
    (detail::takes_lanes<Operation, detail::scan_number_t<E>>() ||
     std::is_invocable_r_v<detail::scan_value_t<Operation, detail::scan_number_t<E>>, const Operation&,
                           const detail::scan_value_t<Operation, detail::scan_number_t<E>>&,
                           const detail::scan_value_t<Operation, detail::scan_number_t<E>>&>);

}  // namespace tokenmix::inline TOKENMIX_ABI
