// SPDX-License-Identifier: Apache-2.0
// Masks with a number for each sequence or token: documents, valid_keys. Classes of defects: 12 (zero lengths), 15 (bad metadata).
#include "primitives/mask/mask_testing.hpp"

#include <algorithm>

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::sweep_shapes;

namespace {

/// (B, n) document ids: runs of random length, or any order; ids are far apart, negative and repeated.
mix::tensor<index_t, 2> random_ids(index_t batches, index_t n, bool contiguous, std::mt19937& random) {
  constexpr index_t names[] = {0, -1, 7, index_t{1} << 40, 3, std::numeric_limits<index_t>::min()};
  mix::tensor<index_t, 2> ids({batches, n});
  std::uniform_int_distribution<std::size_t> name(0, std::size(names) - 1);
  std::uniform_int_distribution<int> ends(0, 4);
  for (index_t b = 0; b < batches; ++b) {
    index_t id = names[name(random)];
    for (index_t t = 0; t < n; ++t) {
      if (!contiguous || ends(random) == 0) id = names[name(random)];
      ids(b, t) = id;
    }
  }
  return ids;
}

// Exact where nobody sees anything; a block in several documents is `some` of a key, never all.
TEST(documents, of_one_axis) {
  for (bool contiguous : {true, false}) {
    for (index_t batches : {1, 3}) {
      sweep_shapes(
          exactness::full,
          [&](const auto& shape, auto& random, const auto& expect) {
            const mix::tensor<index_t, 2> ids = random_ids(batches, shape.keys, contiguous, random);
            expect(mix::documents{.ids = ids}, [&](const mix::index& i) {
              return i.query >= 0 &&
                     ids(std::min(i.batch, batches - 1), i.query) == ids(std::min(i.batch, batches - 1), i.key);
            });
          },
          3);
      if (HasFailure()) return;
    }
  }
}

TEST(documents, of_queries_and_keys) {
  for (bool contiguous : {true, false}) {
    sweep_shapes(
        exactness::full,
        [&](const auto& shape, auto& random, const auto& expect) {
          const mix::tensor<index_t, 2> ids = random_ids(2, shape.keys + 3, contiguous, random);  // longer than S
          const mix::tensor<index_t, 2> query_ids = random_ids(1, shape.queries, contiguous, random);
          expect(mix::documents{.ids = ids, .query_ids = query_ids}, [&](const mix::index& i) {
            return query_ids(0, i.query + shape.queries - shape.keys) == ids(i.batch, i.key);
          });
        },
        2, 2);
  }
}

TEST(documents, views_of_any_strides) {
  sweep_shapes(
      exactness::full,
      [&](const auto& shape, auto& random, const auto& expect) {
        const mix::tensor<index_t, 2> wide = random_ids(3, 3 * shape.keys + 1, true, random);
        const mix::tensor_view<const index_t, 2> ids(wide.data() + 3 * shape.keys, {3, shape.keys},
                                                     {3 * shape.keys + 1, -3});
        expect(mix::documents{.ids = ids}, [&](const mix::index& i) {
          return i.query >= 0 &&
                 wide(i.batch, 3 * shape.keys - 3 * i.query) == wide(i.batch, 3 * shape.keys - 3 * i.key);
        });
      },
      3);
}

TEST(documents, long_documents_give_whole_spans) {
  mix::tensor<index_t, 2> ids({1, 1000});
  for (index_t t = 0; t < 1000; ++t) ids(0, t) = t / 300;
  std::vector<mix::span> found;
  const auto mask = mix::causal{} & mix::documents{.ids = ids};
  for (const mix::span& s : mix::spans(mask, {.query_first = 500, .query_last = 564, .queries = 1000, .keys = 1000})) {
    found.push_back(s);
  }
  EXPECT_EQ(found, (std::vector<mix::span>{{300, 501, mix::coverage::all}, {501, 564, mix::coverage::some}}));
}

TEST(valid_keys, lengths_from_nothing_to_everything) {
  sweep_shapes(
      exactness::full,
      [&](const auto& shape, auto&, const auto& expect) {
        const std::vector<index_t> lengths{0, shape.keys, shape.keys / 2, std::min(shape.keys, index_t{1})};
        expect(mix::valid_keys{lengths},
               [&](const mix::index& i) { return i.key < lengths[static_cast<std::size_t>(i.batch)]; });
        expect(!mix::valid_keys{lengths},
               [&](const mix::index& i) { return i.key >= lengths[static_cast<std::size_t>(i.batch)]; });
      },
      4, 2);
}

#if TOKENMIX_EXCEPTIONS
template <class Error, class Mask>
std::string message_of(const Mask& mask, index_t batches, index_t queries, index_t keys) {
  try {
    mix::mask_check(mask, batches, 2, queries, keys);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(errors, lengths) {
  const std::vector<index_t> lengths{0, 8, 9};
  EXPECT_EQ(message_of<mix::value_error>(mix::valid_keys{lengths}, 3, 4, 9), "no error");
  EXPECT_EQ(message_of<mix::value_error>(mix::valid_keys{lengths}, 3, 4, 8),
            "valid_keys.lengths[2] is 9, k has 8 keys");
  EXPECT_EQ(message_of<mix::shape_error>(mix::valid_keys{lengths}, 2, 4, 9),
            "valid_keys.lengths has 3 entries, expected one per sequence: 2");
  const std::vector<index_t> negative{1, std::numeric_limits<index_t>::min()};
  EXPECT_EQ(message_of<mix::value_error>(mix::valid_keys{negative}, 2, 4, 8),
            "valid_keys.lengths[1] is -9223372036854775808, expected 0 or more");
}

TEST(errors, document_ids) {
  mix::tensor<index_t, 2> ids({2, 8}), one({1, 9}), few({2, 7});
  EXPECT_EQ(message_of<mix::shape_error>(mix::documents{.ids = ids, .query_ids = one}, 2, 9, 8), "no error");
  EXPECT_EQ(message_of<mix::shape_error>(mix::documents{.ids = ids}, 3, 4, 8),
            "documents.ids is (2, 8), expected (B or 1, at least S) = (3 or 1, at least 8)");
  EXPECT_EQ(message_of<mix::shape_error>(mix::documents{.ids = few}, 2, 4, 8),
            "documents.ids is (2, 7), expected (B or 1, at least S) = (2 or 1, at least 8)");
  EXPECT_EQ(message_of<mix::shape_error>(mix::documents{.ids = ids, .query_ids = few}, 2, 9, 8),
            "documents.query_ids is (2, 7), expected (B or 1, at least T) = (2 or 1, at least 9)");
  EXPECT_NE(message_of<mix::shape_error>(mix::documents{}, 2, 4, 8), "no error");
}
#endif

}  // namespace
