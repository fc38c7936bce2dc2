// SPDX-License-Identifier: Apache-2.0
// DLPack's structs as views and back, with structs of our own that have the same fields.
#include <tokenmix/interop/dlpack.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>

#include "reference/random.hpp"
#include "reference/strided.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor;
using mix::tensor_view;

namespace {

// As in dlpack.h, versions 0.8 to 1.1.
enum DLDeviceType : std::int32_t { cpu = 1, cuda = 2 };
struct DLTensor {
  void* data;
  struct {
    DLDeviceType device_type;
    std::int32_t device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code;
    std::uint8_t bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  struct {
    std::uint32_t major;
    std::uint32_t minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

static_assert(mix::dlpack_tensor_struct<DLTensor> && !mix::dlpack_tensor_struct<DLManagedTensor>);
static_assert(mix::dlpack_managed_struct<DLManagedTensor> && !mix::dlpack_versioned_struct<DLManagedTensor>);
static_assert(mix::dlpack_versioned_struct<DLManagedTensorVersioned>);

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const mix::shape_error& error) {
    return std::string("shape: ") + error.what();
  } catch (const mix::value_error& error) {
    return std::string("value: ") + error.what();
  }
  return "";
}

class dlpack_view : public testing::Test {
 protected:
  std::string refused() {
    return refusal([&] { mix::dlpack_view<float, 3>(t, "q"); });
  }

  float memory[24] = {};
  std::int64_t shape[3] = {2, 3, 4};
  std::int64_t strides[3] = {12, 4, 1};
  DLTensor t{memory, {cpu, 0}, 3, {2, 32, 1}, shape, strides, 0};
};

TEST_F(dlpack_view, is_the_same_memory) {
  const auto view = mix::dlpack_view<float, 3>(t);
  static_assert(std::is_same_v<decltype(view), const tensor_view<float, 3>>);
  EXPECT_EQ(view.data(), memory);
  EXPECT_EQ(view.shape(), (mix::extents<3>{2, 3, 4}));
  EXPECT_EQ(view.strides(), (mix::extents<3>{12, 4, 1}));
  strides[0] = -12;
  strides[1] = 0;
  t.byte_offset = 12 * sizeof(float);
  const auto odd = mix::dlpack_view<const float, 3>(t);
  EXPECT_EQ(odd.data(), memory + 12);
  EXPECT_EQ(odd.strides(), (mix::extents<3>{-12, 0, 1}));
  EXPECT_EQ(&odd(1, 2, 3), memory + 3);
}

TEST_F(dlpack_view, without_strides_is_packed) {
  t.strides = nullptr;
  EXPECT_EQ((mix::dlpack_view<float, 3>(t).strides()), (mix::extents<3>{12, 4, 1}));
}

TEST_F(dlpack_view, of_nothing_and_of_a_scalar) {
  t.data = nullptr;
  shape[1] = 0;
  EXPECT_TRUE((mix::dlpack_view<float, 3>(t).empty()));
  DLTensor scalar{memory, {cpu, 0}, 0, {2, 32, 1}, nullptr, nullptr, 4};
  EXPECT_EQ((mix::dlpack_view<float, 0>(scalar).data()), memory + 1);
}

TEST_F(dlpack_view, refuses_what_is_not_there) {
  t.data = nullptr;
  t.byte_offset = 64;
  EXPECT_EQ(refused(), "value: q is a null pointer, its shape is (2, 3, 4)");
  t.data = memory;
  t.byte_offset = 2;
  EXPECT_EQ(refused(), "value: q starts at an address that is no multiple of 4 bytes");
  t.byte_offset = 0;
  t.shape = nullptr;
  EXPECT_EQ(refused(), "value: q has no shape (a null pointer)");
  t.shape = shape;
  EXPECT_EQ(refused(), "");
}

TEST_F(dlpack_view, refuses_other_devices_ranks_and_types) {
  t.device.device_type = cuda;
  EXPECT_EQ(refused(), "value: q is on a device of type 2: only the memory of the CPU (type 1) can be read");
  t.device.device_type = cpu;
  t.ndim = 4;
  EXPECT_EQ(refused(), "shape: q has 4 axes, expected 3");
  t.ndim = -1;
  EXPECT_EQ(refused(), "shape: q has -1 axes, expected 3");
  t.ndim = 3;
  t.dtype.bits = 16;
  EXPECT_EQ(refused(), "value: q has elements of type float16 x 1, expected float32 x 1");
  t.dtype = {4, 16, 1};
  EXPECT_EQ(refused(), "value: q has elements of type bfloat16 x 1, expected float32 x 1");
  t.dtype = {2, 32, 4};
  EXPECT_EQ(refused(), "value: q has elements of type float32 x 4, expected float32 x 1");
  t.dtype = {200, 32, 1};
  EXPECT_EQ(refused(), "value: q has elements of type other32 x 1, expected float32 x 1");
}

TEST_F(dlpack_view, refuses_extents_and_strides_that_cannot_be) {
  shape[1] = -3;
  EXPECT_EQ(refused(), "shape: q has extent -3 along axis 1: extents are not negative");
  shape[1] = std::numeric_limits<std::int64_t>::max();
  EXPECT_NE(refused().find("does not fit 63 bits"), std::string::npos);
  shape[1] = 3;
  strides[0] = std::numeric_limits<std::int64_t>::min();
  EXPECT_NE(refused().find("do not fit the address space"), std::string::npos);
}

TEST_F(dlpack_view, of_every_element_type) {
  const auto accepted = [&]<class E>(std::uint8_t code, E) {
    t.dtype = {code, static_cast<std::uint8_t>(8 * sizeof(E)), 1};
    return refusal([&] { mix::dlpack_view<E, 3>(t); }).empty();
  };
  EXPECT_TRUE(accepted(0, std::int8_t{}) && accepted(0, std::int32_t{}) && accepted(0, std::int64_t{}));
  EXPECT_TRUE(accepted(1, std::uint8_t{}) && accepted(1, std::uint64_t{}));
  EXPECT_TRUE(accepted(2, float{}) && accepted(2, double{}) && accepted(2, mix::float16{}));
  EXPECT_TRUE(accepted(4, mix::bfloat16{}) && accepted(6, bool{}));
  EXPECT_FALSE(accepted(0, float{}) || accepted(1, std::int32_t{}) || accepted(2, mix::bfloat16{}) ||
               accepted(1, bool{}));
}

TEST_F(dlpack_view, of_managed_tensors_heeds_version_and_flags) {
  DLManagedTensorVersioned m{{1, 1}, nullptr, nullptr, 0, t};
  EXPECT_EQ((mix::dlpack_view<float, 3>(m).data()), memory);
  m.flags = 1;
  EXPECT_EQ(refusal([&] { mix::dlpack_view<float, 3>(m, "k"); }),
            "value: k is read-only: take a view of const elements");
  EXPECT_EQ((mix::dlpack_view<const float, 3>(m).data()), memory);
  m.flags = 2;  // copied: its reader may write
  EXPECT_EQ((mix::dlpack_view<float, 3>(m).data()), memory);
  m.version.major = 2;
  EXPECT_EQ(refusal([&] { mix::dlpack_view<const float, 3>(m, "k"); }), "value: k is of DLPack version 2, expected 1");
  const DLManagedTensor old{t, nullptr, nullptr};
  EXPECT_EQ((mix::dlpack_view<float, 3>(old).data()), memory);
}

TEST(to_dlpack, lends_a_view_in_any_layout) {
  const auto source = mix::reference::uniform<mix::bfloat16>({2, 3, 4}, 1);
  for (const auto& l : mix::reference::layouts<3>()) {
    const mix::reference::strided<mix::bfloat16, 3> copy(source, l);
    mix::dlpack_struct<DLTensor, 3> lent(copy.view());
    EXPECT_EQ(lent.get().dtype.code, 4);
    EXPECT_EQ(lent.get().dtype.bits, 16);
    const auto back = mix::dlpack_view<const mix::bfloat16, 3>(lent.get());
    EXPECT_EQ(back.data(), copy.view().data());
    EXPECT_TRUE(mix::reference::same_bits(back, source)) << l.name;
  }
}

TEST(to_dlpack, hands_a_tensor_over) {
  auto t = mix::reference::uniform<float>({2, 3, 4}, 2);
  const auto expected = t;
  const float* memory = t.data();
  using owner = std::unique_ptr<DLManagedTensorVersioned, mix::dlpack_delete>;  // a leak sanitizer watches the deleter
  const owner m(mix::to_dlpack<DLManagedTensorVersioned>(std::move(t)));
  EXPECT_EQ(m->version.major, 1u);
  EXPECT_EQ(m->flags, 0u);
  EXPECT_EQ(m->dl_tensor.data, memory);
  EXPECT_TRUE(mix::reference::same_bits(mix::dlpack_view<float, 3>(*m), expected.view()));
  EXPECT_TRUE(t.empty());  // NOLINT: a moved-from tensor is empty, that is a promise
  const std::unique_ptr<DLManagedTensor, mix::dlpack_delete> old(
      mix::to_dlpack<DLManagedTensor>(tensor<double, 1>({5})));
  EXPECT_EQ((mix::dlpack_view<double, 1>(*old).extent(0)), 5);
}

TEST(to_dlpack, marks_const_elements_as_read_only) {
  auto t = mix::reference::uniform<float>({2, 3}, 3);
  using owner = std::unique_ptr<DLManagedTensorVersioned, mix::dlpack_delete>;
  const tensor_view<const float, 2> const_view = t;
  const owner read_only(mix::to_dlpack<DLManagedTensorVersioned>(const_view));
  const owner writable(mix::to_dlpack<DLManagedTensorVersioned>(t.view()));
  EXPECT_EQ(read_only->flags, 1u);
  EXPECT_EQ(writable->flags, 0u);
  EXPECT_THROW((mix::dlpack_view<float, 2>(*read_only)), mix::value_error);
  mix::dlpack_view<float, 2> (*writable)(1, 2) = 9.f;
  EXPECT_EQ(t(1, 2), 9.f);
}

}  // namespace
