// SPDX-License-Identifier: Apache-2.0
// Multidimensional spans as views and back, with spans of our own that have std::mdspan's members.
#include <tokenmix/interop/mdspan.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "reference/random.hpp"
#include "reference/strided.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor_view;

namespace {

// The members that the standard gives mdspan, as few as are used.
template <class Index, std::size_t... Static>
struct extents {
  using index_type = Index;
  static constexpr std::size_t rank() { return sizeof...(Static); }
  static constexpr std::size_t static_extent(std::size_t axis) { return std::array{Static...}[axis]; }
  explicit extents(const std::array<Index, sizeof...(Static)>& e) : values(e) {}
  Index extent(std::size_t axis) const { return values[axis]; }
  std::array<Index, sizeof...(Static)> values{};
};
constexpr std::size_t dynamic = std::numeric_limits<std::size_t>::max();

enum class order { right, left };

template <class Extents, order Order>
struct packed_mapping {
  explicit packed_mapping(const Extents& e) : shape(e) {}
  typename Extents::index_type stride(std::size_t axis) const {
    typename Extents::index_type s = 1;
    if (Order == order::right) {
      for (std::size_t i = axis + 1; i < Extents::rank(); ++i) s *= shape.extent(i);
    } else {
      for (std::size_t i = 0; i < axis; ++i) s *= shape.extent(i);
    }
    return s;
  }
  Extents shape;
};
template <class Extents>
struct strided_mapping {
  using strides_type = std::array<typename Extents::index_type, Extents::rank()>;
  strided_mapping(const Extents& e, const strides_type& s) : shape(e), strides(s) {}
  typename Extents::index_type stride(std::size_t axis) const { return strides[axis]; }
  Extents shape;
  strides_type strides;
};

template <class E, class Mapping, class Extents, class Reference = E&>
struct span {
  using element_type = E;
  using extents_type = Extents;
  using mapping_type = Mapping;
  using reference = Reference;
  static constexpr std::size_t rank() { return Extents::rank(); }
  span(E* p, const Mapping& m) : data(p), mapping(m) {}
  auto extent(std::size_t axis) const { return mapping.shape.extent(axis); }
  auto stride(std::size_t axis) const { return mapping.stride(axis); }
  E* data_handle() const { return data; }
  E* data;
  Mapping mapping;
};

template <class Index>
using three = extents<Index, dynamic, dynamic, dynamic>;
template <class E, class Extents = three<index_t>>
using right = span<E, packed_mapping<Extents, order::right>, Extents>;
template <class E, class Extents = three<index_t>>
using left = span<E, packed_mapping<Extents, order::left>, Extents>;
template <class E, class Extents = three<index_t>>
using strided = span<E, strided_mapping<Extents>, Extents>;

static_assert(mix::strided_mdspan<right<float>> && mix::strided_mdspan<left<const float>>);
static_assert(!mix::strided_mdspan<float*> && !mix::strided_mdspan<tensor_view<float, 2>>);
static_assert(!mix::strided_mdspan<span<float, strided_mapping<three<int>>, three<int>, float>>);  // computed elements

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const mix::shape_error& error) {
    return error.what();
  }
  return "";
}

TEST(mdspan_view, of_layout_right_and_stride) {
  auto t = mix::reference::uniform<float>({2, 3, 4}, 1);
  const right<float> packed(t.data(), packed_mapping<three<index_t>, order::right>(three<index_t>({2, 3, 4})));
  const auto view = mix::mdspan_view(packed);
  static_assert(std::is_same_v<decltype(view), const tensor_view<float, 3>>);
  EXPECT_EQ(view.data(), t.data());
  EXPECT_EQ(view.shape(), t.shape());
  EXPECT_EQ(view.strides(), t.strides());

  using unsigned_extents = three<std::uint32_t>;
  const strided<const float, unsigned_extents> gaps(t.data(), {unsigned_extents({2, 2, 3}), {12, 4, 1}});
  static_assert(std::is_same_v<decltype(mix::mdspan_view(gaps)), tensor_view<const float, 3>>);
  EXPECT_EQ(mix::mdspan_view(gaps).strides(), (mix::extents<3>{12, 4, 1}));
  EXPECT_EQ(mix::mdspan_view(gaps)(1, 1, 2), t(1, 1, 2));
}

TEST(mdspan_view, refuses_channels_that_are_not_contiguous) {
  auto t = mix::reference::uniform<float>({2, 3, 4}, 1);
  const auto left_of = [&](index_t a, index_t b, index_t c) {
    return left<float>(t.data(), packed_mapping<three<index_t>, order::left>(three<index_t>({a, b, c})));
  };
  EXPECT_EQ(refusal([&] { mix::mdspan_view(left_of(2, 3, 4)); }),
            "mdspan has stride 6 along its last axis (is it layout_left?): it must be contiguous (stride 1)");
  EXPECT_EQ(refusal([&] { mix::mdspan_view(left_of(1, 1, 4)); }), "");
  EXPECT_EQ(refusal([&] { mix::mdspan_view(left_of(2, 3, 1)); }), "");
  const strided<float> odd(t.data(), {three<index_t>({2, 3, 2}), {12, 4, 2}});
  EXPECT_EQ(refusal([&] { mix::mdspan_view(odd); }),
            "mdspan has stride 2 along its last axis: it must be contiguous (stride 1)");
}

TEST(to_mdspan, gives_the_same_memory_in_any_layout) {
  const auto source = mix::reference::uniform<float>({2, 3, 4}, 2);
  for (const auto& l : mix::reference::layouts<3>()) {
    mix::reference::strided<float, 3> copy(source, l);
    const bool reversed = copy.view().stride(0) < 0 || copy.view().stride(1) < 0;
    if (reversed) {
      EXPECT_NE(refusal([&] { mix::to_mdspan<strided<float>>(copy.view()); }).find("strides are positive"),
                std::string::npos);
      continue;
    }
    const auto back = mix::mdspan_view(mix::to_mdspan<strided<float>>(copy.view()));
    EXPECT_EQ(back.data(), copy.view().data());
    EXPECT_EQ(back.shape(), copy.view().shape());
    EXPECT_EQ(back.strides(), copy.view().strides());
    if (l.name == "packed") {
      EXPECT_EQ(mix::to_mdspan<right<float>>(copy.view()).data_handle(), copy.view().data());
    } else {
      EXPECT_NE(refusal([&] { mix::to_mdspan<right<float>>(copy.view()); }).find("layout_stride"), std::string::npos);
    }
  }
  static_assert(std::is_same_v<decltype(mix::to_mdspan<strided<const float>>(source)), strided<const float>>);
  EXPECT_EQ(mix::to_mdspan<strided<const float>>(source).data_handle(), source.data());
}

template <class Span, class View>
concept gives = requires(const View& view) { mix::to_mdspan<Span>(view); };
static_assert(gives<strided<float>, tensor_view<float, 3>> && gives<strided<const float>, tensor_view<float, 3>>);
static_assert(!gives<strided<float>, tensor_view<const float, 3>>);  // const stays const

TEST(to_mdspan, refuses_what_the_span_cannot_say) {
  auto t = mix::reference::uniform<float>({2, 3, 4}, 3);
  using fixed = extents<index_t, dynamic, 3, 4>;
  EXPECT_EQ((mix::to_mdspan<right<float, fixed>>(t).extent(0)), 2);
  EXPECT_EQ(refusal([&] { mix::to_mdspan<right<float, fixed>>(t.slice(1, 0, 2)); }),
            "view has extent 2 along axis 1, the span's type has 3");
  using small = three<std::int8_t>;
  EXPECT_EQ((mix::to_mdspan<strided<float, small>>(t).stride(0)), 12);
  const tensor_view<float, 3> wide(t.data(), {1, 1, 200});
  EXPECT_NE(refusal([&] { mix::to_mdspan<strided<float, small>>(wide); }).find("index type"), std::string::npos);
  const tensor_view<float, 3> broadcast(t.data(), {2, 3, 4}, {0, 4, 1});
  EXPECT_EQ(refusal([&] { mix::to_mdspan<strided<float>>(broadcast); }),
            "view has stride 0 along axis 0: a span's strides are positive");
  const tensor_view<float, 3> unused(t.data(), {1, 3, 4}, {-7, 4, 1});
  EXPECT_EQ(refusal([&] { mix::to_mdspan<strided<float>>(unused); }), "");
}

}  // namespace
