// SPDX-License-Identifier: Apache-2.0
// Chunks against their formula, with and without neighbours; sums that would overflow.
#include "primitives/mask/mask_testing.hpp"

namespace mix = tokenmix;
using mix::index_t;
using mix::testing::exactness;
using mix::testing::sweep_shapes;

namespace {

// Chunk numbers by walking, not by dividing: positions of queries may be negative.
index_t chunk_of(index_t position, index_t size) {
  index_t chunk = 0;
  for (; position >= (chunk + 1) * size;) ++chunk;
  for (; position < chunk * size;) --chunk;
  return chunk;
}

TEST(chunks, see_themselves_and_their_neighbours) {
  for (index_t size : {1, 3, 16, 64})
    for (const auto& [before, after] : {std::array<index_t, 2>{0, 0}, {1, 0}, {0, 2}, {1, 1}, {1000, 0}}) {
      SCOPED_TRACE("size " + std::to_string(size) + " before " + std::to_string(before) + " after " +
                   std::to_string(after));
      sweep_shapes(exactness::full, [=, b = before, a = after](const auto&, auto&, const auto& expect) {
        expect(mix::chunks{.size = size, .before = b, .after = a}, [=](const mix::index& i) {
          const index_t query = chunk_of(i.query, size), key = chunk_of(i.key, size);
          return query - b <= key && key <= query + a;
        });
      });
      if (HasFailure()) return;
    }
}

TEST(chunks, of_any_size_do_not_overflow) {
  const index_t huge = std::numeric_limits<index_t>::max();
  EXPECT_EQ(mix::render(mix::chunks{.size = huge, .before = huge - 7, .after = 1}, 2, 3), "###\n###\n");
  EXPECT_EQ(mix::render(mix::chunks{.size = 2, .before = huge / 2, .after = 0}, 4, 4), "##..\n##..\n####\n####\n");
  EXPECT_EQ(mix::render(mix::causal{} & mix::chunks{.size = 2, .before = 1}, 5, 5),
            "#....\n##...\n###..\n####.\n..###\n");
}

}  // namespace
