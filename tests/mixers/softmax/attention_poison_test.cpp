// SPDX-License-Identifier: Apache-2.0
// What nobody may see does not matter, whatever it holds; what is visible reaches exactly the results that depend on it.
//
// Budget: none. Bits beside poison are the bits beside zeros.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

struct poison {
  const char* name;
  float value;
};
const std::vector<poison> poisons{{"quiet NaN", std::bit_cast<float>(0x7fc00000u)},
                                  {"negative NaN", std::bit_cast<float>(0xffc12345u)},
                                  {"signalling NaN", std::bit_cast<float>(0x7f800001u)},
                                  {"infinity", std::numeric_limits<float>::infinity()},
                                  {"minus infinity", -std::numeric_limits<float>::infinity()},
                                  {"1e38", 1e38f},
                                  {"-1e38", -1e38f},
                                  {"denormal", 1e-42f}};

// Through memory: a signalling NaN need not survive a register.
void put(mix::tensor<float, 4>& x, index_t a, index_t b, index_t c, index_t d, float value) {
  std::memcpy(x.row(a, b, c) + d, &value, 4);
}

template <class Mask>
void attend(cases::operands<>& x, const Mask& mask) {
  x.forget_results();
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mask, .lse = x.lse.view()});
}

/// A copy of a tensor with axes in any order and gaps that hold `filling`.
template <class E>
class strided_copy {
 public:
  /// `order` lists the first three axes from the slowest to the one next to the channels; `reversed` axes run backwards.
  strided_copy(const mix::tensor_view<const E, 4>& from, const std::array<std::size_t, 3>& order, index_t gap,
               const std::array<bool, 3>& reversed, E filling) {
    mix::extents<4> strides{0, 0, 0, 1};
    index_t step = from.extent(3) + gap;
    for (std::size_t n = 3; n-- > 0;) {
      strides[order[n]] = step;
      step = step * from.extent(order[n]) + gap;
    }
    memory_.assign(static_cast<std::size_t>(std::max<index_t>(step, 1)), filling);
    E* first = memory_.data();
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (!reversed[axis] || from.extent(axis) == 0) continue;
      first += (from.extent(axis) - 1) * strides[axis];
      strides[axis] = -strides[axis];
    }
    view_ = mix::tensor_view<E, 4>(first, from.shape(), strides);
    for (index_t a = 0; a < from.extent(0); ++a)
      for (index_t b = 0; b < from.extent(1); ++b)
        for (index_t c = 0; c < from.extent(2); ++c)
          for (index_t d = 0; d < from.extent(3); ++d) view_(a, b, c, d) = from(a, b, c, d);
  }
  mix::tensor_view<E, 4> view() const { return view_; }

 private:
  std::vector<E> memory_;
  mix::tensor_view<E, 4> view_;
};

// Keys that only some heads and some queries of a tile see, keys that nobody sees, in all positions of chunks and leaves.
bool visible(index_t query, index_t key) {
  return key <= query && key % 7 != 3 && !(key >= 60 && key < 130) && key != 256;
}
const auto mask = [](const auto& w) {
  return w.key <= w.query && w.key % 7 != 3 && !(w.key >= 60 && w.key < 130) && w.key != 256;
};

TEST(attention_poison, keys_and_values_that_nobody_sees) {
  for (index_t t : {1, 3, 40}) {
    cases::operands<> x({2, 4, 2, t, 300, 20, 12}, static_cast<std::uint64_t>(t));
    const auto fill = [&](float value) {
      for (index_t b = 0; b < 2; ++b)
        for (index_t h = 0; h < 2; ++h)
          for (index_t s = 0; s < 300; ++s) {
            if (visible(299, s)) continue;
            for (index_t i = 0; i < 20; ++i) put(x.k, b, h, s, i, value);
            for (index_t i = 0; i < 12; ++i) put(x.v, b, h, s, i, value);
          }
    };
    fill(0);
    attend(x, mask);
    const mix::tensor<float, 4> clean = x.out;
    const mix::tensor<float, 3> clean_lse = x.lse;
    for (const poison& p : poisons) {
      fill(p.value);
      attend(x, mask);
      cases::expect_same_bits<float, 4>(x.out, clean, p.name);
      cases::expect_same_bits<float, 3>(x.lse, clean_lse, p.name);
    }
  }
}

// Poison at one key: the queries before it (causal) share registers and tiles with those that see it.
template <class Mask>
void one_key(const Mask& causal, index_t queries, index_t keys, const std::vector<index_t>& places) {
  cases::operands<> x({1, 4, 2, queries, keys, 20, 12}, 5);
  attend(x, causal);
  const mix::tensor<float, 4> clean = x.out;
  const mix::tensor<float, 3> clean_lse = x.lse;
  for (index_t s : places) {
    for (const poison& p : poisons) {
      if (std::abs(p.value) < 1) continue;
      for (const bool in_value : {false, true}) {
        cases::operands<> y = x;
        if (in_value) {
          put(y.v, 0, 1, s, 5, p.value);
        } else {
          put(y.k, 0, 1, s, 5, p.value);
        }
        attend(y, causal);
        index_t wrong = 0;
        for (index_t h = 0; h < 4; ++h)
          for (index_t t = 0; t < queries; ++t) {
            const bool sees = h >= 2 && s <= t + keys - queries;
            for (index_t i = 0; i < 12; ++i) {
              const bool reached = sees && (!in_value || i == 5);
              const float got = y.out(0, h, t, i);
              if (!reached) {
                wrong += !cases::same_bits(got, clean(0, h, t, i));
              } else if (std::isnan(p.value)) {
                wrong += !std::isnan(got);
              } else if (in_value) {  // a weight is positive here: infinity stays what it is, and 1e38 stays large
                wrong += std::isinf(p.value) ? got != p.value : !(got * p.value > 0);
              }
            }
            const bool lse_reached = sees && !in_value;
            if (!lse_reached) wrong += !cases::same_bits(y.lse(0, h, t), clean_lse(0, h, t));
            if (lse_reached && std::isnan(p.value)) wrong += !std::isnan(y.lse(0, h, t));
          }
        EXPECT_EQ(wrong, 0) << p.name << " in " << (in_value ? "value" : "key") << " of position " << s << " of "
                            << keys;
      }
    }
  }
}

TEST(attention_poison, one_visible_key_or_value_reaches_the_queries_that_see_it) {
  one_key(mix::causal{}, 90, 90, {0, 1, 15, 16, 17, 40, 63, 64, 65, 88, 89});
  one_key(mix::causal{}, 70, 330, {0, 100, 255, 256, 257, 261, 300, 329});
  one_key(mix::causal{}, 3, 300, {0, 255, 256, 296, 297, 298, 299});
  one_key(mix::causal{}, 1, 600, {0, 255, 256, 599});
}

TEST(attention_poison, one_query_reaches_its_row_alone) {
  for (index_t t : {1, 3, 50}) {
    cases::operands<> x({2, 3, 1, t, 300, 20, 12}, 6);
    attend(x, mix::causal{});
    const mix::tensor<float, 4> clean = x.out;
    for (const poison& p : poisons) {
      for (index_t row = 0; row < t; row += 7) {
        cases::operands<> y = x;
        put(y.q, 1, 1, row, 19, p.value);
        attend(y, mix::causal{});
        index_t wrong = 0;
        for (index_t b = 0; b < 2; ++b)
          for (index_t h = 0; h < 3; ++h)
            for (index_t r = 0; r < t; ++r)
              for (index_t i = 0; i < 12; ++i) {
                const float got = y.out(b, h, r, i);
                if (b != 1 || h != 1 || r != row) {
                  wrong += !cases::same_bits(got, clean(b, h, r, i));
                } else if (std::isnan(p.value)) {
                  wrong += !std::isnan(got);
                }
              }
        EXPECT_EQ(wrong, 0) << p.name << " in query " << row << " of " << t;
      }
    }
  }
}

// A query that sees nothing gives zeros even if it is NaN itself.
TEST(attention_poison, a_query_that_sees_nothing) {
  cases::operands<> x({1, 2, 1, 40, 20, 16, 8}, 7);
  for (index_t t = 0; t < 20; ++t)
    for (index_t i = 0; i < 16; ++i) put(x.q, 0, 0, t, i, std::numeric_limits<float>::quiet_NaN());
  attend(x, mix::causal{});
  for (index_t t = 0; t < 20; ++t) {
    for (index_t i = 0; i < 8; ++i) EXPECT_TRUE(cases::same_bits(x.out(0, 0, t, i), 0.0f));
    EXPECT_EQ(x.lse(0, 0, t), -std::numeric_limits<float>::infinity());
  }
}

// Padding between rows, heads and batch elements.
TEST(attention_poison, gaps_between_rows) {
  const cases::operands<> x({2, 4, 2, 20, 270, 20, 12}, 8);
  mix::tensor<float, 4> clean({2, 4, 20, 12});
  mix::softmax_attention(x.q, x.k, x.v, clean, mix::softmax_options{.mask = mask});
  for (const poison& p : poisons) {
    const strided_copy<float> q(x.q, {0, 2, 1}, 5, {}, p.value), k(x.k, {0, 2, 1}, 3, {}, p.value),
        v(x.v, {1, 0, 2}, 9, {}, p.value);
    mix::tensor<float, 4> out({2, 4, 20, 12});
    mix::softmax_attention(q.view(), k.view(), v.view(), out, mix::softmax_options{.mask = mask});
    cases::expect_same_bits<float, 4>(out, clean, p.name);
  }
}

// Output memory is only written: what it held before, NaN included, leaves no trace. Scratch of earlier calls neither.
TEST(attention_poison, scratch_of_earlier_calls) {
  cases::operands<> x({1, 2, 1, 37, 290, 24, 16}, 9);
  attend(x, mask);
  const mix::tensor<float, 4> clean = x.out;
  cases::operands<> y({1, 2, 1, 37, 290, 24, 16}, 10);
  for (float& e : y.q) e = std::numeric_limits<float>::quiet_NaN();
  for (float& e : y.v) e = std::numeric_limits<float>::infinity();
  attend(y, mask);
  attend(x, mask);
  cases::expect_same_bits<float, 4>(x.out, clean, "after a call full of NaN");
}

}  // namespace
