// SPDX-License-Identifier: Apache-2.0
// Pictures of masks, compared letter by letter and bit by bit.
#include <tokenmix/mask.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace mix = tokenmix;
using mix::index_t;

namespace {

TEST(render, the_example_of_its_documentation) {
  EXPECT_EQ(mix::render(mix::causal{} & (mix::window{.left = 2} | mix::first_keys{1}), 6, 6),
            "#.....\n"
            "##....\n"
            "###...\n"
            "####..\n"
            "#.###.\n"
            "#..###\n");
}

TEST(render, lambdas_heads_and_letters) {
  const auto mask = mix::causal{} & [](auto i) { return i.key % 2 == i.head; };
  EXPECT_EQ(mix::render(mask, 2, 3, {.head = 0, .visible = 'x', .hidden = '_'}), "x__\nx_x\n");
  EXPECT_EQ(mix::render(mask, 2, 3, {.head = 1}), ".#.\n.#.\n");
  EXPECT_EQ(mix::render([](mix::index i) { return i.batch == i.key; }, 1, 3, {.batch = 2}), "..#\n");
}

TEST(render, one_batch_element_of_several) {
  const std::vector<index_t> lengths{1, 3};
  EXPECT_EQ(mix::render(mix::valid_keys{lengths}, 1, 3, {.batch = 0, .batches = 2}), "#..\n");
  EXPECT_EQ(mix::render(mix::valid_keys{lengths}, 1, 3, {.batch = 1}), "###\n");
}

TEST(render, nothing) {
  EXPECT_EQ(mix::render(mix::causal{}, 0, 4), "");
  EXPECT_EQ(mix::render(mix::causal{}, 2, 0), "\n\n");
  EXPECT_EQ(mix::render_image(mix::causal{}, 0, 4), "P4\n4 0\n");
  EXPECT_EQ(mix::render_image(mix::causal{}, 3, 0), "P4\n0 3\n");
}

TEST(render_image, packs_rows_into_whole_bytes) {
  using namespace std::string_literals;
  EXPECT_EQ(mix::render_image(mix::causal{}, 2, 3), "P4\n3 2\n\xc0\xe0"s);
  EXPECT_EQ(mix::render_image(mix::causal{}, 2, 8), "P4\n8 2\n\xfe\xff"s);
  EXPECT_EQ(mix::render_image(mix::window{.left = 1, .right = 0}, 2, 10), "P4\n10 2\n\x01\x80\x00\xc0"s);
}

#if TOKENMIX_EXCEPTIONS
TEST(render, errors) {
  const std::vector<index_t> lengths{1, 4};
  EXPECT_THROW(mix::render(mix::valid_keys{lengths}, 1, 3, {.batch = 1}), mix::value_error);
  EXPECT_THROW(mix::render(mix::valid_keys{lengths}, 1, 4, {.batch = 2}), mix::shape_error);
  EXPECT_THROW(mix::render(mix::causal{}, -1, 3), mix::value_error);
  EXPECT_THROW(mix::render_image(mix::causal{}, 1, -3), mix::value_error);
  EXPECT_THROW(mix::render(mix::causal{}, 1, 1, {.batch = -1}), mix::value_error);
  EXPECT_THROW(mix::render(mix::causal{}, 1, 1, {.head = -1}), mix::value_error);
}
#endif

}  // namespace
