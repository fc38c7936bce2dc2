// SPDX-License-Identifier: Apache-2.0
// The algebra & | ! of masks and lambdas: answers in every kind of lanes, runs of random compositions, and what must not compile.
#include "primitives/mask/mask_testing.hpp"

#include <memory>

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::mask_shape;
using mix::testing::sweep_shapes;

namespace {

/// A mask that is any table, and whose runs are legal but as vague and as short as chance has it.
struct vague_mask {
  using is_mask = void;
  std::shared_ptr<const mix::testing::truth_table> truth;
  unsigned seed = 0;

  bool operator()(const mix::index& i) const { return (*truth)(i.batch, i.head, i.query - i.keys + i.queries, i.key); }
  mix::span run(const mix::query_block& block, index_t key) const {
    std::mt19937 random(seed + static_cast<unsigned>(key));
    const auto chance = [&](unsigned of) { return random() % of == 0; };
    const mix::coverage exact = truth->of_block(block, key);
    const mix::coverage said = chance(4) ? mix::coverage::some : exact;
    index_t end = key + 1;
    while (end < block.keys && !chance(8) && (said == mix::coverage::some || truth->of_block(block, end) == exact))
      ++end;
    return {key, end, said};
  }
};

vague_mask random_mask(const mask_shape& shape, std::mt19937& random) {
  const unsigned kind = random() % 4;
  const index_t a = static_cast<index_t>(random() % 12), b = static_cast<index_t>(random() % 12);
  const unsigned seed = static_cast<unsigned>(random());
  const auto plain = [&](const mix::index& i) {
    switch (kind) {
      case 0:
        return i.key <= i.query + a - b;
      case 1:
        return i.key >= i.query - a && i.key < i.query + b;
      case 2:
        return (i.key / (a + 1) + i.query_row() / (b + 1) + i.head) % 2 == 0;
      default:
        return (static_cast<unsigned>(i.key * 7919 + i.query_row() * 104729 + i.head * 31) ^ seed) % 5 < 2;
    }
  };
  return {std::make_shared<mix::testing::truth_table>(plain, shape), seed};
}

TEST(algebra, compositions_of_any_masks) {
  sweep_shapes(
      exactness::correct,
      [](const auto& shape, auto& random, const auto& expect) {
        const mix::mask_function a{random_mask(shape, random)}, b{random_mask(shape, random)},
            c{random_mask(shape, random)};
        expect(a, [&](const mix::index& i) { return a(i); });
        expect(a & b, [&](const mix::index& i) { return a(i) && b(i); });
        expect(a | b, [&](const mix::index& i) { return a(i) || b(i); });
        expect(!a, [&](const mix::index& i) { return !a(i); });
        expect(c | !(a & !b), [&](const mix::index& i) { return !(a(i) && !b(i)) || c(i); });
        expect((a | b) & !(c & a), [&](const mix::index& i) { return (a(i) || b(i)) && !(c(i) && a(i)); });
      },
      1, 2);
}

// What no part sees is never visited, and what all parts see is never asked about, whatever the shape.
TEST(algebra, exact_where_the_parts_say_none_or_all) {
  sweep_shapes(exactness::full, [](const auto&, auto&, const auto& expect) {
    expect(mix::causal{} & mix::window{.left = 5},
           [](const mix::index& i) { return i.key <= i.query && i.key >= i.query - 5; });
    expect(mix::causal{} & mix::first_keys{3}, [](const mix::index& i) { return i.key <= i.query && i.key < 3; });
    expect(!mix::causal{}, [](const mix::index& i) { return i.key > i.query; });
    expect(!mix::window{.left = 2, .right = 3},
           [](const mix::index& i) { return i.key < i.query - 2 || i.key > i.query + 3; });
    expect(mix::causal{} | mix::all_keys{}, [](const mix::index&) { return true; });
    expect(mix::causal{} & !mix::all_keys{}, [](const mix::index&) { return false; });
    expect(mix::all_keys{} & mix::causal{}, [](const mix::index& i) { return i.key <= i.query; });
  });
  sweep_shapes(exactness::none, [](const auto&, auto&, const auto& expect) {
    expect(mix::causal{} & (mix::window{.left = 4} | mix::first_keys{2}),
           [](const mix::index& i) { return i.key <= i.query && (i.key >= i.query - 4 || i.key < 2); });
    expect(mix::causal{} | mix::first_keys{7}, [](const mix::index& i) { return i.key <= i.query || i.key < 7; });
  });
}

bool plain_function(const mix::index& i) { return (i.key + i.query) % 3 != 0; }

struct functor {
  index_t period;
  template <class Index>
  auto operator()(const Index& i) const {
    return i.key % period == 0;
  }
};

// Lambdas of every shape, alone and in compositions: generic or of the plain index, with lanes in any field.
TEST(lambdas, of_every_shape) {
  const auto expect_both = [](const auto& lambda, const auto& plain, const auto& expect) {
    expect(lambda, plain);
    expect(mix::causal{} & lambda, [&](const mix::index& i) { return i.key <= i.query && plain(i); });
    expect(lambda | mix::first_keys{2}, [&](const mix::index& i) { return plain(i) || i.key < 2; });
    expect(!(mix::mask_function{lambda} & mix::window{.left = 3}),
           [&](const mix::index& i) { return !(plain(i) && i.key >= i.query - 3); });
  };
  const index_t width = 4;
  sweep_shapes(
      exactness::correct,
      [&](const auto&, auto&, const auto& expect) {
        expect_both([](auto i) { return i.key <= i.query; }, [](const mix::index& i) { return i.key <= i.query; },
                    expect);
        expect_both([width](const auto& i) { return i.query - i.key < width && !(i.head == 1); },
                    [](const mix::index& i) { return i.query - i.key < 4 && i.head != 1; }, expect);
        expect_both([](mix::index i) { return (i.key ^ i.query_row() ^ i.head) % 3 == 1; },
                    [](const mix::index& i) { return (i.key ^ i.query_row() ^ i.head) % 3 == 1; }, expect);
        expect_both([](const mix::index& i) { return i.key % 2 == 0; },
                    [](const mix::index& i) { return i.key % 2 == 0; }, expect);
        expect_both(&plain_function, plain_function, expect);
        expect_both(functor{3}, [](const mix::index& i) { return i.key % 3 == 0; }, expect);
      },
      1, 3);
}

TEST(lambdas, of_other_fields_and_with_select) {
  sweep_shapes(
      exactness::correct,
      [&](const auto&, auto&, const auto& expect) {
        // Each head its own window: select of plain numbers, of positions and numbers, of truth values.
        expect(
            mix::causal{} & [](auto i) { return i.key >= i.query - mix::select(i.head == 0, index_t{2}, index_t{5}); },
            [](const mix::index& i) { return i.key <= i.query && i.key >= i.query - (i.head == 0 ? 2 : 5); });
        expect([](auto i) { return i.key >= mix::select(i.query > 3, i.query, 1); },
               [](const mix::index& i) { return i.key >= (i.query > 3 ? i.query : 1); });
        expect([](auto i) { return mix::select(i.key < 3, i.key, i.query) * 2 >= i.query; },
               [](const mix::index& i) { return (i.key < 3 ? i.key : i.query) * 2 >= i.query; });
        expect(
            mix::all_keys{} & [](auto i) { return mix::select(i.head == 1, i.key <= i.query, true); },
            [](const mix::index& i) { return i.head == 1 ? i.key <= i.query : true; });
        expect([](auto i) { return mix::select(i.head == 1, i.key < 4, i.key >= i.query); },
               [](const mix::index& i) { return i.head == 1 ? i.key < 4 : i.key >= i.query; });
        expect([](auto i) { return i.key >= i.query - mix::select(i.head == 1, mix::unlimited, index_t{3}); },
               [](const mix::index& i) { return i.head == 1 || i.key >= i.query - 3; });
        // Answers that depend on no lane are plain truth values.
        expect(
            mix::causal{} & [](auto i) { return i.batch == 1; },
            [](const mix::index& i) { return i.key <= i.query && i.batch == 1; });
        expect([](auto) { return true; }, [](const mix::index&) { return true; });
        expect([](auto i) { return (i.query_row() / 4) == (i.key / 4); },
               [](const mix::index& i) { return i.query_row() / 4 == i.key / 4; });
      },
      2, 2);
}

// A lambda of the plain index may look into tables: it is never asked about a row or key outside the sequence.
TEST(lambdas, of_the_plain_index_stay_inside) {
  constexpr index_t queries = 5, keys = 3;
  index_t asked = 0;
  const auto careful = [&](mix::index i) {
    EXPECT_GE(i.query_row(), 0);
    EXPECT_LT(i.query_row(), queries);
    EXPECT_GE(i.key, 0);
    EXPECT_LT(i.key, keys);
    ++asked;
    return true;
  };
  const auto mask = mix::all_keys{} & careful;
  using positions = mix::simd::positions<float>;
  mix::mask_at(mask, mix::query_lanes_index<float>{0, 0, positions::consecutive(keys - queries), 2, queries, keys});
  EXPECT_EQ(asked, std::min(queries, mix::simd::lanes<float>));
  asked = 0;
  mix::mask_at(mask, mix::key_lanes_index<float>{0, 0, 1, positions::consecutive(1), queries, keys});
  EXPECT_EQ(asked, keys - 1);
}

TEST(spans, of_a_lambda_are_one) {
  const auto lambda = [](auto i) { return i.key == 3; };
  std::vector<mix::span> found;
  for (const mix::span& s : mix::spans(lambda, {.queries = 1, .keys = 9})) found.push_back(s);
  EXPECT_EQ(found, (std::vector<mix::span>{{0, 9, mix::coverage::some}}));
  for (const mix::span& s : mix::spans(lambda, {.queries = 1, .keys = 0})) FAIL() << s.begin;
}

TEST(spans, inside_a_range_of_keys) {
  const auto mask = mix::causal{} & (mix::window{.left = 7} | mix::first_keys{4});
  const mix::query_block block{.query_first = 40, .query_last = 48, .queries = 64, .keys = 64};
  const auto in = [&](index_t first, index_t last) {
    std::vector<mix::span> found;
    for (const mix::span& s : mix::spans(mask, block, first, last)) found.push_back(s);
    return found;
  };
  using enum mix::coverage;
  using list = std::vector<mix::span>;
  EXPECT_EQ(in(0, 64), (list{{0, 4, all}, {33, 40, some}, {40, 41, all}, {41, 48, some}}));
  EXPECT_EQ(in(-9, 100), in(0, 64));
  EXPECT_EQ(in(2, 35), (list{{2, 4, all}, {33, 35, some}}));
  EXPECT_EQ(in(4, 33), list{});
  EXPECT_EQ(in(40, 41), (list{{40, 41, all}}));
  EXPECT_EQ(in(20, 20), list{});
  EXPECT_EQ(in(30, 20), list{});
  EXPECT_EQ(in(48, 64), list{});
}

/// A mask of somebody else's namespace whose runs end where they begin, or past the keys.
}  // namespace
namespace elsewhere {
struct careless_mask {
  using is_mask = void;
  bool operator()(const tokenmix::index& i) const { return i.key % 2 == 0; }
  tokenmix::span run(const tokenmix::query_block&, index_t key) const {
    return {0, key % 3 == 0 ? key - 5 : key + 1000, tokenmix::coverage::some};
  }
};
struct bits {
  unsigned value;
};
template <class A, class B>
int operator&(A, B) {
  return 3;
}
}  // namespace elsewhere
namespace {

TEST(spans, of_careless_runs_end) {
  std::vector<mix::span> found;
  for (const mix::span& s : mix::spans(elsewhere::careless_mask{}, {.queries = 1, .keys = 10})) found.push_back(s);
  EXPECT_EQ(found, (std::vector<mix::span>{{0, 10, mix::coverage::some}}));
}

TEST(algebra, takes_masks_of_other_namespaces) {
  const auto mask = mix::causal{} | elsewhere::careless_mask{};
  EXPECT_EQ(mix::render(mask, 3, 4), "###.\n###.\n####\n");
  EXPECT_EQ(mix::render(!mix::mask_function{elsewhere::careless_mask{}}, 1, 4), ".#.#\n");
}

template <class A, class B>
concept can_and = requires(A a, B b) { a & b; };
template <class A, class B>
concept can_or = requires(A a, B b) { a | b; };
template <class A>
concept can_not = requires(A a) { !a; };

struct unrelated {};
constexpr auto of_nothing = [] { return true; };
constexpr auto of_text = [](const char*) { return true; };
constexpr auto to_text = [](const mix::index&) { return std::string("true"); };
constexpr auto of_index = [](const mix::index&) { return true; };

static_assert(can_and<mix::causal, mix::window> && can_or<mix::causal, mix::window> && can_not<mix::causal>);
static_assert(can_and<mix::causal, decltype(of_index)> && can_and<decltype(of_index), mix::causal>);
static_assert(can_or<const mix::causal&, decltype(of_index)&>);
static_assert(!can_and<mix::causal, int> && !can_and<int, mix::causal> && !can_or<mix::causal, bool>);
static_assert(!can_and<mix::causal, unrelated> && !can_or<unrelated, mix::causal>);
static_assert(!can_and<mix::causal, decltype(of_nothing)> && !can_and<mix::causal, decltype(of_text)>);
static_assert(!can_and<mix::causal, decltype(to_text)>);
static_assert(!can_and<mix::span, mix::span> && !can_or<mix::query_block, mix::index> && !can_not<mix::span>);
static_assert(!can_and<mix::coverage, mix::coverage> && !can_and<mix::shape_error, mix::shape_error>);
static_assert(!can_and<mix::tensor_view<float, 2>, mix::tensor_view<float, 2>> && !can_not<mix::tensor_view<float, 2>>);
static_assert(!can_and<mix::index, decltype(of_index)> && !can_and<unrelated, unrelated>);
static_assert(std::is_same_v<decltype(elsewhere::bits{} & mix::index{}), int>);
static_assert(std::is_empty_v<mix::mask_and<mix::causal, mix::mask_not<mix::all_keys>>>);

using walk = mix::span_range<mix::causal>;
static_assert(std::input_iterator<walk::iterator>);
static_assert(std::sentinel_for<std::default_sentinel_t, walk::iterator>);

// Plain masks work at compile time.
static_assert((mix::causal{} & mix::window{.left = 1})(mix::index{.query = 4, .key = 3}));
static_assert(!(mix::causal{} & mix::window{.left = 1})(mix::index{.query = 4, .key = 2}));
static_assert((*mix::spans(mix::first_keys{2}, {.queries = 1, .keys = 5}).begin()) ==
              mix::span{0, 2, mix::coverage::all});

}  // namespace
