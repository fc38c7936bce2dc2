// SPDX-License-Identifier: Apache-2.0
// States of parts of the keys, merged and read, against attention over all keys.
//
// Budget: bits where parts are aligned subtrees of the tree of leaves; the float gate (twice: merging rounds once more) for parts
// cut anywhere. An empty state is the identity, bit for bit, on both sides.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

/// A state and its memory, full of NaN until written.
template <class T>
struct owned_state {
  mix::tensor<T, 3> m, l;
  mix::tensor<T, 4> acc;

  explicit owned_state(const cases::shape& s)
      : m({s.batch, s.heads, s.queries}, cases::untouched<T>()),
        l({s.batch, s.heads, s.queries}, cases::untouched<T>()),
        acc({s.batch, s.heads, s.queries, s.value_width}, cases::untouched<T>()) {}
  mix::softmax_state<T> view() { return {.m = m, .l = l, .acc = acc}; }
};

/// The state of keys [first, last).
template <class E>
auto state_of(const cases::operands<E>& x, index_t first, index_t last) {
  owned_state<mix::accumulator_t<E>> state(x.size);
  mix::softmax_attention_state(
      mix::softmax_inputs<E, E>{
          .q = x.q, .k = x.k.slice(2, first, last - first), .v = x.v.slice(2, first, last - first)},
      state.view());
  return state;
}

template <class T>
void expect_equal_states(const owned_state<T>& a, const owned_state<T>& b, const std::string& label) {
  cases::expect_same_bits<T, 3>(a.m, b.m, label + ", m");
  cases::expect_same_bits<T, 3>(a.l, b.l, label + ", l");
  cases::expect_same_bits<T, 4>(a.acc, b.acc, label + ", acc");
}

std::vector<cases::shape> shapes() {
  return {{1, 4, 2, 1, 700, 16, 8}, {2, 2, 1, 5, 520, 16, 9}, {1, 2, 2, 50, 300, 16, 8}};
}

TEST(state, of_all_keys_has_the_bits_of_attention) {
  for (const cases::shape& size : shapes()) {
    cases::operands<> x(size, 1);
    mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = x.lse.view()});
    auto state = state_of(x, 0, size.keys);
    mix::tensor<float, 4> out(x.out.shape());
    mix::tensor<float, 3> lse(x.lse.shape());
    mix::finish(state.view(), out.view(), lse.view());
    cases::expect_same_bits<float, 4>(out, x.out, size.text());
    const auto expected = reference::softmax_attention(problem_of(x));
    x.lse = lse;
    expect_lse_within_gate(x, expected, size.text());
    mix::finish(state.view(), state.acc.view());  // in place
    cases::expect_same_bits<float, 4>(state.acc, x.out, size.text() + " in place");
  }
}

TEST(state, parts_cut_anywhere_merge_within_the_gate) {
  for (const cases::shape& size : shapes()) {
    cases::operands<> x(size, 2, 3);
    const auto expected = reference::softmax_attention(problem_of(x));
    for (index_t cut :
         {index_t{0}, index_t{1}, index_t{17}, index_t{255}, index_t{256}, index_t{257}, size.keys - 1, size.keys}) {
      if (cut > size.keys) continue;
      auto left = state_of(x, 0, cut), right = state_of(x, cut, size.keys);
      mix::merge(left.view(), right.view());
      mix::finish(left.view(), x.out.view(), x.lse.view());
      expect_within_gate<float, float, float>(x.out, x, expected, size.text() + " cut at " + std::to_string(cut), 2);
      expect_lse_within_gate(x, expected, size.text() + " cut at " + std::to_string(cut), 2);
    }
    // Many parts, merged from the left: one after the other.
    auto sum = state_of(x, 0, 0);
    for (index_t first = 0; first < size.keys; first += 37) {
      auto part = state_of(x, first, std::min(size.keys, first + 37));
      mix::merge(sum.view(), part.view());
    }
    mix::finish(sum.view(), x.out.view(), x.lse.view());
    expect_within_gate<float, float, float>(x.out, x, expected, size.text() + " in parts of 37", 3);
    expect_lse_within_gate(x, expected, size.text() + " in parts of 37", 3);
  }
}

TEST(state, aligned_subtrees_merge_to_the_bits_of_one_call) {
  const cases::shape size{1, 4, 2, 3, 7 * cases::leaf + 50, 16, 8};
  cases::operands<> x(size, 3);
  mix::softmax_attention(x.q, x.k, x.v, x.out);
  const index_t n = cases::leaf;
  const auto merged = [](auto left, auto right) {
    mix::merge(left.view(), right.view());
    return left;
  };
  // ((0 1) (2 3)) ((4 5) (6 7))
  auto root =
      merged(merged(merged(state_of(x, 0, n), state_of(x, n, 2 * n)), state_of(x, 2 * n, 4 * n)),
             merged(state_of(x, 4 * n, 6 * n), merged(state_of(x, 6 * n, 7 * n), state_of(x, 7 * n, size.keys))));
  mix::tensor<float, 4> out(x.out.shape());
  mix::finish(root.view(), out.view());
  cases::expect_same_bits<float, 4>(out, x.out, "eight leaves in their tree");
}

TEST(state, empty_is_the_identity) {
  for (const cases::shape& size : shapes()) {
    const cases::operands<> x(size, 4);
    const auto some = state_of(x, 0, size.keys);
    auto left = some, empty = state_of(x, 0, 0);
    for (float m : empty.m) EXPECT_EQ(m, -std::numeric_limits<float>::infinity());
    for (float l : empty.l) EXPECT_EQ(l, 0.0f);
    for (float a : empty.acc) EXPECT_TRUE(cases::same_bits(a, 0.0f));
    mix::merge(left.view(), empty.view());
    expect_equal_states(left, some, "empty on the right");
    auto right = some;
    mix::merge(empty.view(), right.view());
    expect_equal_states(empty, some, "empty on the left");
    auto nothing = state_of(x, 0, 0), more = state_of(x, 0, 0);
    mix::merge(nothing.view(), more.view());
    mix::tensor<float, 4> out({size.batch, size.heads, size.queries, size.value_width}, cases::untouched<float>());
    mix::tensor<float, 3> lse({size.batch, size.heads, size.queries});
    mix::finish(nothing.view(), out.view(), lse.view());
    for (float y : out) EXPECT_TRUE(cases::same_bits(y, 0.0f));
    for (float y : lse) EXPECT_EQ(y, -std::numeric_limits<float>::infinity());
  }
}

// Very negative and very large maxima: the difference of two of them is the only exponent, and it is never positive.
TEST(state, maxima_far_apart) {
  const cases::shape size{1, 1, 1, 1, 2, 1, 1};
  for (const auto& [a, b] :
       {std::array<float, 2>{-3e38f, 3e38f}, {3e38f, -3e38f}, {-3e38f, -3e38f}, {-1e31f, -1e4f}, {100, -100}}) {
    cases::operands<> x(size, 5);
    x.q(0, 0, 0, 0) = 1;
    x.k(0, 0, 0, 0) = a;
    x.k(0, 0, 1, 0) = b;
    x.v(0, 0, 0, 0) = 1;
    x.v(0, 0, 1, 0) = 2;
    auto left = state_of(x, 0, 1), right = state_of(x, 1, 2);
    mix::merge(left.view(), right.view());
    mix::finish(left.view(), x.out.view());
    EXPECT_EQ(x.out(0, 0, 0, 0), a > b ? 1.0f : a < b ? 2.0f : 1.5f);
  }
}

TEST(state, storage_types_keep_float_states_and_nan_stays) {
  const cases::shape size{1, 2, 1, 3, 40, 16, 8};
  cases::operands<mix::bfloat16> x(size, 6);
  auto left = state_of(x, 0, 11), right = state_of(x, 11, 40);
  mix::merge(left.view(), right.view());
  mix::finish(left.view(), x.out.view());
  expect_within_gate<mix::bfloat16, mix::bfloat16, mix::bfloat16>(x.out, x, reference::softmax_attention(problem_of(x)),
                                                                  "bfloat16", 2);

  cases::operands<> y(size, 7);
  y.k(0, 0, 30, 3) = std::numeric_limits<float>::quiet_NaN();
  auto a = state_of(y, 0, 20), b = state_of(y, 20, 40);
  mix::merge(a.view(), b.view());
  mix::finish(a.view(), y.out.view());
  for (float o : y.out) EXPECT_TRUE(std::isnan(o));
}

}  // namespace
