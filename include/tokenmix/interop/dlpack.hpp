// SPDX-License-Identifier: Apache-2.0
/// @file DLPack tensors as views, and views and tensors as DLPack's. Needs no dlpack.h: any struct with its fields does.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/tensor.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// DLTensor, or a struct with its fields.
template <class T>
concept dlpack_tensor_struct = requires(T& t) {
  { t.data } -> std::convertible_to<const void*>;
  t.device.device_type;
  t.device.device_id;
  { t.ndim } -> std::convertible_to<std::int64_t>;
  { t.dtype.code } -> std::convertible_to<int>;
  { t.dtype.bits } -> std::convertible_to<int>;
  { t.dtype.lanes } -> std::convertible_to<int>;
  { t.shape } -> std::convertible_to<const std::int64_t*>;
  { t.strides } -> std::convertible_to<const std::int64_t*>;
  { t.byte_offset } -> std::convertible_to<std::uint64_t>;
};

/// DLManagedTensor (before version 1) ...
template <class T>
concept dlpack_managed_struct = requires(T& t) {
  requires dlpack_tensor_struct<std::remove_reference_t<decltype(t.dl_tensor)>>;
  { t.manager_ctx } -> std::convertible_to<const void*>;
  t.deleter(&t);
};

/// ... and DLManagedTensorVersioned, which has a version and flags.
template <class T>
concept dlpack_versioned_struct = dlpack_managed_struct<T> && requires(T& t) {
  { t.version.major } -> std::convertible_to<std::uint32_t>;
  { t.flags } -> std::convertible_to<std::uint64_t>;
};

namespace detail {

// DLPack's numbers, which are its ABI.
inline constexpr int dlpack_cpu = 1;
inline constexpr std::uint32_t dlpack_major = 1;
inline constexpr std::uint64_t dlpack_read_only = 1;

struct dlpack_type {
  int code;
  int bits;
};

template <class E>
constexpr dlpack_type dlpack_type_of() {
  constexpr int bits = static_cast<int>(8 * sizeof(E));
  if constexpr (std::is_same_v<E, bool>) {
    return {6, bits};
  } else if constexpr (std::is_same_v<E, bfloat16>) {
    return {4, bits};
  } else if constexpr (std::is_floating_point_v<E> || std::is_same_v<E, float16>) {
    return {2, bits};
  } else {
    static_assert(std::is_integral_v<E>, "tokenmix: DLPack has no type code for these elements.");
    return {std::is_signed_v<E> ? 0 : 1, bits};
  }
}

inline const char* dlpack_code_name(int code) {
  constexpr const char* names[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  return code >= 0 && code < 7 ? names[code] : "other";
}

inline std::string dlpack_type_text(int code, int bits) { return dlpack_code_name(code) + std::to_string(bits); }

}  // namespace detail

/// A DLPack tensor as a view: `dlpack_view<const float, 4>(dl_tensor, "q")` is (B, H, T, D).
///
/// Shapes     as the tensor's; strides too (none: packed); byte_offset is added. Rank and element type are the caller's,
///            and are compared with the tensor's.
/// Errors     shape_error if the rank is another, an extent is negative or the elements do not fit the address space;
///            value_error if the tensor is not in the memory of the CPU, has other elements, lanes, no data, or an
///            address that is no multiple of alignof(E); for a managed tensor with a version also if it is of another
///            major version, or read-only and E is not const. `name` stands in the messages. Ownership stays.
template <class E, std::size_t R, dlpack_tensor_struct Tensor>
tensor_view<E, R> dlpack_view(const Tensor& t, const char* name = "tensor") {
  using value = std::remove_const_t<E>;
  constexpr detail::dlpack_type type = detail::dlpack_type_of<value>();
  const auto device = static_cast<std::int64_t>(t.device.device_type);
  const auto ndim = static_cast<std::int64_t>(t.ndim);
  const int code = t.dtype.code;
  const int bits = t.dtype.bits;
  const int lanes = t.dtype.lanes;
  if (device != detail::dlpack_cpu) {
    detail::fail_value(name, " is on a device of type ", device, ": only the memory of the CPU (type 1) can be read");
  }
  if (code != type.code || bits != type.bits || lanes != 1) {
    detail::fail_value(name, " has elements of type ", detail::dlpack_type_text(code, bits), " x ", lanes,
                       ", expected ", detail::dlpack_type_text(type.code, type.bits), " x 1");
  }
  if (ndim != static_cast<std::int64_t>(R)) detail::fail_shape(name, " has ", ndim, " axes, expected ", R);

  extents<R> shape{};
  if constexpr (R > 0) {
    if (t.shape == nullptr) detail::fail_value(name, " has no shape (a null pointer)");
    for (std::size_t axis = 0; axis < R; ++axis) shape[axis] = static_cast<index_t>(t.shape[axis]);
  }
  extents<R> strides = detail::packed_strides<R>(shape);
  if (t.strides != nullptr) {
    for (std::size_t axis = 0; axis < R; ++axis) strides[axis] = static_cast<index_t>(t.strides[axis]);
  }
  auto address = reinterpret_cast<std::uintptr_t>(t.data);
  if (address != 0) address += static_cast<std::uintptr_t>(t.byte_offset);
  const tensor_view<E, R> view(reinterpret_cast<E*>(address), shape, strides);
  detail::check_view(name, view);
  if (address % alignof(value) != 0 && !view.empty()) {
    detail::fail_value(name, " starts at an address that is no multiple of ", alignof(value), " bytes");
  }
  return view;
}

template <class E, std::size_t R, dlpack_managed_struct Managed>
tensor_view<E, R> dlpack_view(const Managed& managed, const char* name = "tensor") {
  if constexpr (dlpack_versioned_struct<Managed>) {
    const auto major = static_cast<std::uint32_t>(managed.version.major);
    if (major != detail::dlpack_major) {
      detail::fail_value(name, " is of DLPack version ", major, ", expected ", detail::dlpack_major);
    }
    if (!std::is_const_v<E> && (managed.flags & detail::dlpack_read_only) != 0u) {
      detail::fail_value(name, " is read-only: take a view of const elements");
    }
  }
  return dlpack_view<E, R>(managed.dl_tensor, name);
}

/// Calls a managed tensor's own deleter: `std::unique_ptr<DLManagedTensorVersioned, dlpack_delete>` owns one.
struct dlpack_delete {
  template <dlpack_managed_struct Managed>
  void operator()(Managed* managed) const {
    if (managed->deleter != nullptr) managed->deleter(managed);
  }
};

namespace detail {

template <class Tensor, std::size_t R>
struct dlpack_fields {
  std::array<std::int64_t, R> shape{};
  std::array<std::int64_t, R> strides{};

  // The tensor points into this object, which must stay where it is.
  template <class E>
  void fill(Tensor& t, const tensor_view<const E, R>& view) {
    constexpr dlpack_type type = dlpack_type_of<E>();
    check_view("view", view);
    for (std::size_t axis = 0; axis < R; ++axis) {
      shape[axis] = static_cast<std::int64_t>(view.extent(axis));
      strides[axis] = static_cast<std::int64_t>(view.stride(axis));
    }
    t.data = const_cast<E*>(view.data());  // DLPack has no const; flags say read-only
    t.device.device_type = static_cast<std::remove_reference_t<decltype(t.device.device_type)>>(dlpack_cpu);
    t.device.device_id = 0;
    t.ndim = static_cast<std::remove_reference_t<decltype(t.ndim)>>(R);
    t.dtype.code = static_cast<std::remove_reference_t<decltype(t.dtype.code)>>(type.code);
    t.dtype.bits = static_cast<std::remove_reference_t<decltype(t.dtype.bits)>>(type.bits);
    t.dtype.lanes = 1;
    t.shape = shape.data();
    t.strides = strides.data();
    t.byte_offset = 0;
  }
};

template <class Managed, class E, std::size_t R, class Owner>
Managed* dlpack_export(const tensor_view<const E, R>& view, bool read_only, Owner&& owner) {
  struct holder {
    Managed managed{};
    dlpack_fields<std::remove_reference_t<decltype(managed.dl_tensor)>, R> fields;
    std::remove_cvref_t<Owner> owner;
  };
  auto held = std::make_unique<holder>();
  held->fields.fill(held->managed.dl_tensor, view);
  held->owner = std::forward<Owner>(owner);
  held->managed.manager_ctx = held.get();
  held->managed.deleter = [](Managed* self) { delete static_cast<holder*>(self->manager_ctx); };
  if constexpr (dlpack_versioned_struct<Managed>) {
    held->managed.version.major = dlpack_major;
    held->managed.version.minor = 0;
    held->managed.flags = read_only ? dlpack_read_only : 0u;
  }
  return &held.release()->managed;
}

struct nothing {};

}  // namespace detail

/// A view as a DLTensor, to be lent for the time of a call: `f(&dlpack_struct<DLTensor, 4>(q).get())`.
///
/// It holds shape and strides, so it is neither copied nor moved. DLPack's struct has no const: who gets it must know.
template <dlpack_tensor_struct Tensor, std::size_t R>
class dlpack_struct {
 public:
  template <class E>
  explicit dlpack_struct(const tensor_view<const E, R>& view) {
    fields_.fill(tensor_, view);
  }
  dlpack_struct(const dlpack_struct&) = delete;
  dlpack_struct& operator=(const dlpack_struct&) = delete;

  Tensor& get() { return tensor_; }

 private:
  Tensor tensor_{};
  detail::dlpack_fields<Tensor, R> fields_;
};

/// A tensor handed over to DLPack: the struct owns it and frees it when its deleter is called.
///
///     DLManagedTensorVersioned* m = to_dlpack<DLManagedTensorVersioned>(std::move(out));
template <dlpack_managed_struct Managed, class E, std::size_t R>
Managed* to_dlpack(tensor<E, R>&& owner) {
  const tensor_view<const E, R> view = owner;  // its memory does not move with the tensor
  return detail::dlpack_export<Managed, E, R>(view, false, std::move(owner));
}

/// A view lent to DLPack: its memory must outlive the struct. A view of const elements is marked read-only, which needs
/// DLManagedTensorVersioned.
template <dlpack_managed_struct Managed, class E, std::size_t R>
Managed* to_dlpack(const tensor_view<const E, R>& view) {
  static_assert(dlpack_versioned_struct<Managed>,
                "tokenmix: a DLManagedTensor cannot say that it is read-only: take DLManagedTensorVersioned.");
  return detail::dlpack_export<Managed, E, R>(view, true, detail::nothing{});
}
template <dlpack_managed_struct Managed, class E, std::size_t R>
  requires(!std::is_const_v<E>)
Managed* to_dlpack(const tensor_view<E, R>& view) {
  return detail::dlpack_export<Managed, E, R>(view, false, detail::nothing{});
}

}  // namespace tokenmix::inline TOKENMIX_ABI
