// SPDX-License-Identifier: Apache-2.0
// Door checks: what they refuse, what they let through, and every sentence they say.
#include <tokenmix/core/check.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <tokenmix/core/dtype.hpp>

#include "reference/random.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::tensor;
using mix::tensor_view;
using namespace mix::detail;  // NOLINT: what is tested here is internal
using mix::detail::overlap;

namespace {

constexpr index_t huge = index_t{1} << 40;
constexpr index_t most = std::numeric_limits<index_t>::max();
constexpr index_t least = std::numeric_limits<index_t>::min();

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

// --- check_view -----------------------------------------------------------------------------------------------------

template <std::size_t R>
std::string refusal_of_view(const float* data, const mix::extents<R>& shape, const mix::extents<R>& strides) {
  return refusal([&] { check_view("k", tensor_view<const float, R>(data, shape, strides)); });
}

TEST(check_view, lets_through_what_can_be_addressed) {
  float x[64] = {};
  EXPECT_EQ(refusal_of_view<2>(x, {3, 4}, {4, 1}), "");
  EXPECT_EQ(refusal_of_view<2>(x + 20, {3, 4}, {-8, 1}), "");
  EXPECT_EQ(refusal_of_view<2>(x, {huge, 4}, {0, 1}), "");
  EXPECT_EQ(refusal_of_view<2>(x, {1, 4}, {least, 1}), "");  // the stride of one element is not used
  EXPECT_EQ(refusal_of_view<0>(x, {}, {}), "");
}

TEST(check_view, lets_empty_views_through_whatever_else_they_say) {
  EXPECT_EQ(refusal_of_view<2>(nullptr, {0, 4}, {4, 1}), "");
  EXPECT_EQ(refusal_of_view<3>(nullptr, {huge, huge, 0}, {most, least, 1}), "");
  EXPECT_EQ(refusal_of_view<3>(nullptr, {0, huge, huge}, {most, least, 1}), "");
}

TEST(check_view, refuses_negative_extents_null_and_sizes_that_do_not_fit) {
  float x = 0;
  EXPECT_EQ(refusal_of_view<2>(&x, {3, -4}, {4, 1}), "shape: k has extent -4 along axis 1: extents are not negative");
  EXPECT_EQ(refusal_of_view<2>(&x, {0, -4}, {4, 1}), "shape: k has extent -4 along axis 1: extents are not negative");
  EXPECT_EQ(refusal_of_view<2>(&x, {least, 4}, {4, 1}),
            "shape: k has extent -9223372036854775808 along axis 0: extents are not negative");
  EXPECT_EQ(refusal_of_view<2>(nullptr, {3, 4}, {4, 1}), "value: k is a null pointer, its shape is (3, 4)");
  EXPECT_EQ(refusal_of_view<2>(&x, {huge, huge}, {0, 0}),
            "shape: k is (1099511627776, 1099511627776): the number of elements does not fit 63 bits");
  EXPECT_EQ(refusal_of_view<4>(&x, {huge, 1 << 24, 2, 1}, {0, 0, 0, 1}),  // 2^65
            "shape: k is (1099511627776, 16777216, 2, 1): the number of elements does not fit 63 bits");
}

TEST(check_view, refuses_addresses_that_do_not_fit) {
  float x[4] = {};
  const auto refused = [&](const mix::extents<2>& shape, const mix::extents<2>& strides) {
    return refusal_of_view<2>(x, shape, strides).find("do not fit the address space") != std::string::npos;
  };
  EXPECT_TRUE(refused({2, 1}, {most, 1}));                 // the stride in bytes
  EXPECT_TRUE(refused({2, 1}, {least, 1}));                // likewise
  EXPECT_TRUE(refused({3, 1}, {most / 8, 1}));             // extent x stride
  EXPECT_TRUE(refused({2, 2}, {most / 5, most / 5}));      // the sum over axes
  EXPECT_TRUE(refused({2, 2}, {least / 5, least / 5}));    // likewise, downwards
  EXPECT_TRUE(refused({2, 1}, {-(index_t{1} << 57), 1}));  // below address 0
  EXPECT_EQ(
      refusal_of_view<2>(x, {huge, 4}, {huge, 1}),
      "shape: k is (1099511627776, 4) with strides (1099511627776, 1): its elements do not fit the address space");
}

// Fuzz: nothing overflows on the way to the answer (an undefined-behaviour sanitizer watches), nothing crashes.
TEST(check_view, survives_any_numbers) {
  mix::reference::random_source random(1);
  float x[4] = {};
  const index_t corners[] = {0,        1,         2,        3,    -1,    most,      least,
                             most / 2, least / 2, most / 4, huge, -huge, least + 1, most - 1};
  const auto draw = [&] { return corners[random.integer(0, 13)]; };
  int accepted = 0;
  for (int i = 0; i < 20000; ++i) {
    mix::extents<3> shape, strides;
    for (index_t& e : shape) e = random.integer(0, 2) == 0 ? draw() : random.integer(0, 4);
    for (index_t& s : strides) s = random.integer(0, 2) == 0 ? draw() : random.integer(-9, 9);
    const tensor_view<const float, 3> view(x, shape, strides);
    if (!refusal([&] { check_view("k", view); }).empty()) continue;
    ++accepted;
    overlap(layout_of(view), layout_of(tensor_view<const float, 1>(x, {4})));
    overlap(layout_of(view), layout_of(view));
    overlaps_itself(layout_of(view));
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_LT(accepted, 19000);
}

// --- Overlap, against the sets of bytes -------------------------------------------------------------------------------

struct random_layout {
  index_t start = 0;
  std::vector<index_t> shape, strides;
  index_t bytes = 1;

  explicit random_layout(mix::reference::random_source& random) {
    start = random.integer(520, 560);  // three axes reach 3 x 3 x 7 x 8 = 504 bytes either way
    const index_t sizes[] = {1, 2, 4, 8};
    bytes = sizes[random.integer(0, 3)];
    for (index_t axis = random.integer(0, 3); axis-- > 0;) {
      shape.push_back(random.integer(0, 12) == 0 ? 0 : random.integer(1, 4));
      strides.push_back(random.integer(-7, 7));
    }
  }
  memory_layout layout() const {
    return {static_cast<std::uintptr_t>(start), shape.data(), strides.data(), shape.size(), bytes};
  }
  // How often each byte is reached.
  std::vector<int> reached() const {
    std::vector<int> counts(1200, 0);
    visit(0, start, counts);
    return counts;
  }
  void visit(std::size_t axis, index_t at, std::vector<int>& counts) const {
    if (axis == shape.size()) {
      for (index_t i = 0; i < bytes; ++i) ++counts[static_cast<std::size_t>(at + i)];
      return;
    }
    for (index_t i = 0; i < shape[axis]; ++i) visit(axis + 1, at + i * strides[axis] * bytes, counts);
  }
};

TEST(overlap, is_what_the_sets_of_bytes_say) {
  mix::reference::random_source random(2);
  int yes = 0, no = 0;
  for (int i = 0; i < 30000; ++i) {
    const random_layout a(random), b(random);
    const auto in_a = a.reached(), in_b = b.reached();
    bool expected = false;
    for (std::size_t byte = 0; byte < in_a.size(); ++byte) expected = expected || (in_a[byte] > 0 && in_b[byte] > 0);
    ASSERT_EQ(overlap(a.layout(), b.layout()), expected) << i;
    ASSERT_EQ(overlap(b.layout(), a.layout()), expected) << i;
    ++(expected ? yes : no);
  }
  EXPECT_GT(yes, 3000);
  EXPECT_GT(no, 3000);
}

TEST(overlap, of_a_view_with_itself_is_what_the_sets_of_bytes_say) {
  mix::reference::random_source random(3);
  int yes = 0, no = 0;
  for (int i = 0; i < 30000; ++i) {
    const random_layout a(random);
    bool expected = false;
    for (int count : a.reached()) expected = expected || count > 1;
    ASSERT_EQ(overlaps_itself(a.layout()), expected) << i;
    ++(expected ? yes : no);
  }
  EXPECT_GT(yes, 3000);
  EXPECT_GT(no, 3000);
}

template <class E, std::size_t R>
std::string overlap_refusal(const tensor_view<E, R>& out, const tensor_view<E, R>& in,
                            aliasing allowed = aliasing::none) {
  return refusal([&] { check_overlap("out", out, "q", in, allowed); });
}

TEST(check_overlap, packed_qkv_interleaves_without_overlap) {
  constexpr index_t B = 2, T = 5, H = 3, D = 4;
  tensor<float, 5> packed({B, T, 4, H, D});  // (B, T, {q, k, v, out}, H, D)
  const auto part = [&](index_t i) {
    return packed.slice(2, i, 1).permuted({2, 0, 3, 1, 4}).part(0);  // (B, H, T, D)
  };
  for (index_t i = 0; i < 4; ++i) {
    for (index_t j = 0; j < 4; ++j) {
      if (i != j) {
        EXPECT_EQ(overlap_refusal(part(i), part(j)), "");
      }
    }
  }
  EXPECT_EQ(overlap_refusal(part(1), part(1)), "shape: out overlaps q: it must share no element with it");
  EXPECT_EQ(overlap_refusal(part(1), part(1), aliasing::identical), "");
  // Heads 1 and 2 of one view, and heads 0 and 1 of another: they share head 1.
  EXPECT_EQ(overlap_refusal(part(0).slice(1, 1, 2), part(0).slice(1, 0, 2)),
            "shape: out overlaps q: it must share no element with it");
  EXPECT_EQ(overlap_refusal(part(0).slice(1, 1, 2), part(0).slice(1, 0, 2), aliasing::identical),
            "shape: out overlaps q: it must be q itself or share no element with it");
  EXPECT_EQ(overlap_refusal(part(0).slice(1, 1, 2), part(0).slice(1, 0, 1)), "");
  EXPECT_EQ(overlap_refusal(part(0).slice(3, 0, 2), part(0).slice(3, 2, 2)), "");  // other channels of one head
  EXPECT_EQ(overlap_refusal(part(0).slice(3, 0, 3), part(0).slice(3, 2, 2)),
            "shape: out overlaps q: it must share no element with it");
}

TEST(check_overlap, identical_means_address_extents_and_strides) {
  tensor<float, 2> t({4, 4});
  const auto view = t.view();
  EXPECT_EQ(overlap_refusal(view, view, aliasing::identical), "");
  EXPECT_NE(overlap_refusal(view, view.permuted({1, 0}), aliasing::identical), "");
  EXPECT_NE(overlap_refusal(view, view.slice(0, 0, 3), aliasing::identical), "");
  const tensor_view<float, 2> row(t.data(), {1, 4}, {4, 1}), same_row(t.data(), {1, 4}, {99, 1});
  EXPECT_EQ(overlap_refusal(row, same_row, aliasing::identical), "");
  const tensor_view<const std::int32_t, 2> other_type(reinterpret_cast<const std::int32_t*>(t.data()), {2, 4});
  EXPECT_NE(refusal([&] { check_overlap("out", view, "q", other_type); }), "");
}

TEST(check_overlap, empty_views_share_nothing) {
  tensor<float, 2> t({4, 4});
  EXPECT_EQ(overlap_refusal(t.view(), t.slice(0, 1, 0)), "");
  EXPECT_EQ(overlap_refusal(t.slice(0, 1, 0), t.view()), "");
}

// Strides that no tensor has: the search gives up and errs on the safe side, in bounded time.
TEST(check_overlap, gives_up_in_bounded_time) {
  std::vector<float> memory(1);
  const index_t n = 100;
  const tensor_view<const float, 6> odd(memory.data(), {n, n, n, n, n, n},
                                        {30030, 2310, 210 * 13, 4620, 6006, 2 * 4290});
  const tensor_view<const float, 1> other(memory.data() + 1, {1});
  overlap(layout_of(odd), layout_of(other));
  EXPECT_TRUE(overlaps_itself(layout_of(odd)));
}

TEST(check_writable_strides, refuses_what_reaches_an_element_twice) {
  float x[64] = {};
  const auto refused = [&](const mix::extents<2>& shape, const mix::extents<2>& strides) {
    return refusal([&] { check_writable_strides("out", tensor_view<float, 2>(x + 32, shape, strides)); });
  };
  EXPECT_EQ(refused({4, 4}, {0, 1}),
            "shape: out is (4, 4) with strides (0, 1): an output must not reach an element twice");
  EXPECT_EQ(refused({4, 4}, {3, 1}),
            "shape: out is (4, 4) with strides (3, 1): an output must not reach an element twice");
  EXPECT_NE(refused({4, 4}, {1, 1}), "");
  EXPECT_NE(refused({4, 4}, {1, -1}), "");
  EXPECT_EQ(refused({4, 4}, {4, 1}), "");
  EXPECT_EQ(refused({4, 4}, {-4, 1}), "");
  EXPECT_EQ(refused({4, 4}, {5, 1}), "");
  EXPECT_EQ(refused({1, 4}, {0, 1}), "");
  EXPECT_EQ(refused({0, 4}, {0, 0}), "");
  EXPECT_EQ(refused({2, 2}, {2, 3}), "");  // 0 2 3 5: odd, but no element twice
  EXPECT_NE(refused({4, 3}, {2, 3}), "");  // 3 x 2 = 2 x 3
}

// --- Sentences ------------------------------------------------------------------------------------------------------

TEST(check, extents_shapes_and_heads) {
  const tensor<float, 4> q({2, 8, 16, 64}), k({2, 3, 16, 32});  // (B, H, T, D), (B, Hk, S, D)
  const tensor<mix::bfloat16, 4> v({2, 3, 16, 64});             // (B, Hk, S, Dv)
  EXPECT_EQ(refusal([&] { check_head_groups("q", q, 1, "k", k, 1); }),
            "shape: k has 3 heads, q has 8: the number of query heads must be a multiple of the number of key heads");
  EXPECT_EQ(refusal([&] { check_head_groups("v", q, 1, "k", k, 1, "value"); }),
            "shape: k has 3 heads, v has 8: the number of value heads must be a multiple of the number of key heads");
  EXPECT_EQ(refusal([&] { check_same_extent("k", k, 3, "q", q, 3, "channels"); }),
            "shape: k has 32 channels, q has 64: they must be equal");
  EXPECT_EQ(refusal([&] { check_same_extent("v", v, 2, "k", k, 2, "tokens"); }), "");
  EXPECT_EQ(refusal([&] { check_extent("slopes", q, 1, "elements", 4, "q has 4 heads"); }),
            "shape: slopes has 8 elements, expected 4: q has 4 heads");
  EXPECT_EQ(refusal([&] { check_extent("slopes", q, 1, "elements", 4, "q has " + std::to_string(4) + " heads"); }),
            "shape: slopes has 8 elements, expected 4: q has 4 heads");
  EXPECT_EQ(refusal([&] { check_extent("slopes", q, 1, "elements", 8, "q has 8 heads"); }), "");
  EXPECT_EQ(refusal([&] { check_same_shape("k", k, "q", q); }),
            "shape: k is (2, 3, 16, 32), q is (2, 8, 16, 64): they must have the same shape");
  EXPECT_EQ(refusal([&] { check_same_shape("q", q, "q", q); }), "");
  EXPECT_EQ(refusal([&] { check_shape<float, 4>("lse", q, {2, 8, 16, 1}, "(B, H, T, 1)"); }),
            "shape: lse is (2, 8, 16, 64), expected (B, H, T, 1) = (2, 8, 16, 1)");
  EXPECT_EQ(shape_text(mix::extents<0>{}), "()");
  EXPECT_EQ(shape_text(mix::extents<1>{7}), "(7)");
}

TEST(check, heads_may_be_none) {
  const auto heads = [](index_t n) { return tensor<float, 2>({n, 1}); };
  const auto refused = [&](index_t h, index_t hk) {
    return refusal([&] { check_head_groups("q", heads(h), 0, "k", heads(hk), 0); }) != "";
  };
  EXPECT_FALSE(refused(0, 0));
  EXPECT_FALSE(refused(0, 3));
  EXPECT_TRUE(refused(3, 0));
  EXPECT_FALSE(refused(6, 3));
  EXPECT_FALSE(refused(3, 1));
  EXPECT_TRUE(refused(3, 6));
}

TEST(check, inputs_and_outputs) {
  tensor<float, 2> t({4, 6});
  const auto across = t.permuted({1, 0});
  EXPECT_EQ(refusal([&] { check_input("k", t); }), "");
  EXPECT_EQ(refusal([&] { check_output("out", t); }), "");
  EXPECT_EQ(refusal([&] { check_input("k", across); }),
            "shape: k has stride 6 along its last axis: it must be contiguous (stride 1)");
  EXPECT_NE(refusal([&] { check_output("out", across); }), "");
  const tensor_view<float, 2> repeated(t.data(), {9, 6}, {0, 1});
  EXPECT_EQ(refusal([&] { check_input("k", repeated); }), "");
  EXPECT_NE(refusal([&] { check_output("out", repeated); }), "");
  EXPECT_NE(refusal([&] { check_input("k", tensor_view<float, 2>(nullptr, {1, 1})); }), "");
  EXPECT_NE(refusal([&] { check_output("k", tensor_view<float, 2>(nullptr, {1, 1})); }), "");
}

}  // namespace
