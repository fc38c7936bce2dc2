// SPDX-License-Identifier: Apache-2.0
/// @file How elements stand in registers while an operation computes on them: lanes, complex lanes, or one by one.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/primitives/scan/complex_lanes.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/pairs.hpp>
#include <tokenmix/simd/stream.hpp>

#include <algorithm>
#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <class E>
struct scan_number {
  using type = E;
};
template <element E>
struct scan_number<E> {
  using type = accumulator_t<E>;
};

/// What elements of E are computed in: float for 16-bit storage, E itself otherwise.
template <class E>
using scan_number_t = typename scan_number<std::remove_const_t<E>>::type;

// A packet is `lanes` elements. In scratch it is `planes * lanes` numbers, plane after plane.

/// Real numbers in the lanes of a register.
template <class T>
struct real_packet {
  using number = T;
  using type = simd::batch<T>;
  static constexpr index_t lanes = simd::lanes<T>;
  static constexpr index_t planes = 1;
  static constexpr bool in_lanes = true;

  template <class E>
  static TOKENMIX_ALWAYS_INLINE type load(const E* p) {
    return simd::load_as<T>(p);
  }
  template <class E>
  static TOKENMIX_ALWAYS_INLINE type load_n(const E* p, index_t n) {
    return simd::load_as_n<T>(p, n);
  }
  template <class E>
  static TOKENMIX_ALWAYS_INLINE type broadcast(E value) {
    return type(simd::to<T>(value));
  }
  template <class E>
  static TOKENMIX_ALWAYS_INLINE void store(E* p, const type& x) {
    simd::store_as(p, x);
  }
  template <class E>
  static TOKENMIX_ALWAYS_INLINE void store_n(E* p, const type& x, index_t n) {
    simd::store_as_n(p, x, n);
  }
  /// Whether elements of E can be written past the caches; to an address that can_stream_to.
  template <class E>
  static constexpr bool streams = std::is_same_v<E, T>;
  template <class E>
  static bool can_stream_to(const E* p) {
    if constexpr (streams<E>) return simd::can_stream_to(p);
    return false;
  }
  static TOKENMIX_ALWAYS_INLINE void stream(T* p, const type& x) { simd::stream(p, x); }
  static TOKENMIX_ALWAYS_INLINE type from_scratch(const T* p) { return simd::load(p); }
  static TOKENMIX_ALWAYS_INLINE void to_scratch(T* p, const type& x) { simd::store(p, x); }
  static TOKENMIX_ALWAYS_INLINE type select(const simd::mask<T>& m, const type& a, const type& b) {
    return simd::select(m, a, b);
  }
};

/// Complex numbers, real and imaginary parts in two registers.
template <class T>
struct complex_packet {
  using number = T;
  using type = complex_lanes<T>;
  static constexpr index_t lanes = simd::lanes<T>;
  static constexpr index_t planes = 2;
  static constexpr bool in_lanes = true;

  static TOKENMIX_ALWAYS_INLINE type load(const std::complex<T>* p) {
    const T* q = reinterpret_cast<const T*>(p);
    const simd::pairs<T> x = simd::separate<T>(simd::load(q), simd::load(q + lanes));
    return {x.first, x.second};
  }
  static TOKENMIX_ALWAYS_INLINE type load_n(const std::complex<T>* p, index_t n) {
    const T* q = reinterpret_cast<const T*>(p);
    const index_t low = std::min(2 * n, lanes);
    const simd::pairs<T> x = simd::separate<T>(simd::load_n(q, low), simd::load_n(q + low, 2 * n - low));
    return {x.first, x.second};
  }
  static TOKENMIX_ALWAYS_INLINE type broadcast(std::complex<T> value) { return type(value); }
  static TOKENMIX_ALWAYS_INLINE void store(std::complex<T>* p, const type& x) {
    T* q = reinterpret_cast<T*>(p);
    simd::batch<T> low;
    simd::batch<T> high;
    simd::join(simd::pairs<T>{x.re, x.im}, low, high);
    simd::store(q, low);
    simd::store(q + lanes, high);
  }
  static TOKENMIX_ALWAYS_INLINE void store_n(std::complex<T>* p, const type& x, index_t n) {
    T* q = reinterpret_cast<T*>(p);
    const index_t first = std::min(2 * n, lanes);
    simd::batch<T> low;
    simd::batch<T> high;
    simd::join(simd::pairs<T>{x.re, x.im}, low, high);
    simd::store_n(q, low, first);
    simd::store_n(q + first, high, 2 * n - first);
  }
  template <class E>
  static constexpr bool streams = false;
  template <class E>
  static bool can_stream_to(const E* /*p*/) {
    return false;
  }
  static TOKENMIX_ALWAYS_INLINE type from_scratch(const T* p) { return {simd::load(p), simd::load(p + lanes)}; }
  static TOKENMIX_ALWAYS_INLINE void to_scratch(T* p, const type& x) {
    simd::store(p, x.re);
    simd::store(p + lanes, x.im);
  }
  static TOKENMIX_ALWAYS_INLINE type select(const simd::mask<T>& m, const type& a, const type& b) {
    return {simd::select(m, a.re, b.re), simd::select(m, a.im, b.im)};
  }
};

/// Values one by one: for operations that take plain values only.
template <class C>
struct single_packet {
  static_assert(std::is_trivially_copyable_v<C>,
                "a scan's values are kept in scratch memory: they must be trivially copyable");
  using number = C;
  using type = C;
  static constexpr index_t lanes = 1;
  static constexpr index_t planes = 1;
  static constexpr bool in_lanes = false;

  template <class E>
  static C load(const E* p) {
    return static_cast<C>(*p);
  }
  template <class E>
  static C load_n(const E* p, index_t /*n*/) {
    return static_cast<C>(*p);
  }
  template <class E>
  static C broadcast(const E& value) {
    return static_cast<C>(value);
  }
  template <class E>
  static void store(E* p, const C& x) {
    *p = static_cast<E>(x);
  }
  template <class E>
  static void store_n(E* p, const C& x, index_t /*n*/) {
    *p = static_cast<E>(x);
  }
  template <class E>
  static constexpr bool streams = false;
  template <class E>
  static bool can_stream_to(const E* /*p*/) {
    return false;
  }
  static C from_scratch(const C* p) { return *p; }
  static void to_scratch(C* p, const C& x) { *p = x; }
};

/// The packet of numbers of C that stand in lanes, if there is one.
template <class C>
struct packet_of {
  using type = void;
};
template <>
struct packet_of<float> {
  using type = real_packet<float>;
};
template <>
struct packet_of<double> {
  using type = real_packet<double>;
};
template <>
struct packet_of<std::complex<float>> {
  using type = complex_packet<float>;
};
template <>
struct packet_of<std::complex<double>> {
  using type = complex_packet<double>;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
