// SPDX-License-Identifier: Apache-2.0
/// @file One scan as its kernels see it: values in registers, addresses, segments.
#pragma once

#include <tokenmix/primitives/scan/detail/lines.hpp>
#include <tokenmix/primitives/scan/operation.hpp>
#include <tokenmix/primitives/scan/options.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

enum class scan_kind { inclusive, exclusive };

template <class State>
struct state_operand {
  using type = State;
  static constexpr bool given = true;
  static constexpr std::size_t components = components_of_operand<State>;
  using element = std::remove_const_t<element_of_operand<State>>;
};
template <>
struct state_operand<no_state> {
  using type = no_state;
  static constexpr bool given = false;
  static constexpr std::size_t components = 0;
  using element = char;
};

/// Everything that is known at compile time, and the arithmetic of values.
template <class Operation, class In, class Out, class Initial, class Final>
struct scan_types {
  using operation_type = Operation;
  using E = std::remove_const_t<element_of_operand<In>>;
  using O = element_of_operand<Out>;
  using initial_state = state_operand<Initial>;
  using final_state = state_operand<Final>;
  using C = scan_number_t<E>;
  static constexpr bool in_lanes = takes_lanes<Operation, C>();
  using packet = typename std::conditional_t<in_lanes, packet_of<C>, std::type_identity<single_packet<C>>>::type;
  using X = typename packet::type;
  using number = typename packet::number;
  using value = scan_value_t<Operation, X>;

  static constexpr std::size_t rank = rank_of_operand<In>;
  static constexpr std::size_t parts = std::tuple_size_v<decltype(to_array<X>(std::declval<value>()))>;
  static constexpr std::size_t in_parts = components_of_operand<In>;
  static constexpr std::size_t out_parts = components_of_operand<Out>;
  static constexpr index_t lanes = packet::lanes;
  static constexpr index_t part_size = packet::planes * lanes;                    ///< numbers of a part in scratch
  static constexpr index_t value_size = static_cast<index_t>(parts) * part_size;  ///< and of a register of values

  static_assert(std::is_same_v<C, scan_number_t<O>>, "in and out must be computed in the same type");

  /// A value from the parts that an operand holds.
  template <class Operand>
  static TOKENMIX_ALWAYS_INLINE value from_parts(const Operation& operation,
                                                 const std::array<X, components_of_operand<Operand>>& x) {
    using fields = typename Operand::template fields<X>;
    if constexpr (std::is_same_v<fields, value>) {
      return from_array<value>(x);
    } else {
      static_assert(
          requires(const fields& f) { operation.lift(f); },
          "the operation takes another struct of views: affine takes an affine_view, for example");
      return operation.lift(from_array<fields>(x));
    }
  }
  /// The parts of a value that an operand holds.
  template <class Operand>
  static TOKENMIX_ALWAYS_INLINE std::array<X, components_of_operand<Operand>> to_parts(const Operation& operation,
                                                                                       const value& v) {
    using fields = typename Operand::template fields<X>;
    if constexpr (std::is_same_v<fields, value>) {
      return to_array<X>(v);
    } else {
      static_assert(std::is_same_v<fields, X>, "the operation gives another struct of views, or a plain tensor");
      return {operation.read(v)};
    }
  }

  static TOKENMIX_ALWAYS_INLINE value combine(const Operation& operation, const value& before, const value& now) {
    return static_cast<value>(operation(before, now));
  }

  static value identity(const Operation& operation) {
    using plain = scan_value_t<Operation, C>;
    const auto x = to_array<C>(static_cast<plain>(identity_of(operation)));
    static_assert(std::tuple_size_v<decltype(x)> == parts);
    std::array<X, parts> result;
    for (std::size_t k = 0; k < parts; ++k) result[k] = packet::broadcast(x[k]);
    return from_array<value>(result);
  }

  /// Values in scratch, the parts of one register `distance` numbers apart.
  static TOKENMIX_ALWAYS_INLINE value load_value(const number* p, index_t distance = part_size) {
    std::array<X, parts> x;
    for (std::size_t k = 0; k < parts; ++k) x[k] = packet::from_scratch(p + static_cast<index_t>(k) * distance);
    return from_array<value>(x);
  }
  static TOKENMIX_ALWAYS_INLINE void store_value(number* p, const value& v, index_t distance = part_size) {
    const auto x = to_array<X>(v);
    for (std::size_t k = 0; k < parts; ++k) packet::to_scratch(p + static_cast<index_t>(k) * distance, x[k]);
  }
};

/// The operands' addresses and the way through them. Views are numbered: in, out, initial, final.
template <class Operation, class In, class Out, class Initial, class Final>
struct scan_problem : scan_types<Operation, In, Out, Initial, Final> {
  using types = scan_types<Operation, In, Out, Initial, Final>;
  using in_operand = In;
  using out_operand = Out;
  static constexpr std::size_t first_out = types::in_parts;
  static constexpr std::size_t first_initial = first_out + types::out_parts;
  static constexpr std::size_t first_final = first_initial + types::initial_state::components;
  static constexpr std::size_t views = first_final + types::final_state::components;

  explicit scan_problem(const Operation& scanned_with) : operation(scanned_with) {}

  const Operation& operation;
  std::array<const typename types::E*, types::in_parts> in{};
  std::array<typename types::O*, types::out_parts> out{};
  std::array<const typename types::initial_state::element*, types::initial_state::components> initial{};
  std::array<typename types::final_state::element*, types::final_state::components> final{};
  scan_lines<views, types::rank> lines{};
  scan_segments segments{};
  bool large = false;    ///< the operands are larger than the inner caches
  bool streams = false;  ///< the result is larger than the caches, and is not read
  bool apart = false;    ///< neighbours of lines lie apart: steps and lanes change places on the way in and out

  /// Up to `lanes` values of one segment's initial state, `at` being the offsets of the first of them.
  typename types::value load_initial(const index_t* at, index_t segment, index_t n) const {
    using element = typename types::initial_state::element;
    std::array<typename types::X, types::initial_state::components> x;
    for (std::size_t k = 0; k < types::initial_state::components; ++k) {
      const std::size_t v = first_initial + k;
      const element* from = initial[k] + at[v] + segment * lines.step[v];
      element together[static_cast<std::size_t>(types::lanes)]{};
      for (index_t i = 0; i < n; ++i) together[i] = from[i * lines.lane[v]];
      x[k] = types::packet::load(together);
    }
    return types::template from_parts<Initial>(operation, x);
  }

  void store_final(const index_t* at, index_t segment, index_t n, const typename types::value& last) const {
    using element = typename types::final_state::element;
    const auto x = types::template to_parts<Final>(operation, last);
    for (std::size_t k = 0; k < types::final_state::components; ++k) {
      const std::size_t v = first_final + k;
      element* to = final[k] + at[v] + segment * lines.step[v];
      element together[static_cast<std::size_t>(types::lanes)];
      types::packet::store(together, x[k]);
      for (index_t i = 0; i < n; ++i) to[i * lines.lane[v]] = together[i];
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
