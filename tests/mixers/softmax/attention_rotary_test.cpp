// SPDX-License-Identifier: Apache-2.0
// Rotary embedding inside the kernel against rotary embedding before it.
//
// Budget: none. memcmp: rotated rows are the same numbers, whoever rotates them.
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/primitives/position/rotary_inside.hpp>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

// Queries stand at the end of the keys, at positions from S - T on, negative ones where T > S.
TEST(attention_rotary, inside_is_before) {
  for (const cases::shape& size :
       {cases::shape{2, 4, 2, 1, 300, 16, 8}, cases::shape{1, 4, 1, 3, 65, 24, 8}, cases::shape{2, 4, 2, 40, 90, 16, 8},
        cases::shape{1, 2, 2, 70, 33, 18, 9}, cases::shape{1, 2, 1, 9, 0, 16, 8}, cases::shape{1, 2, 1, 3, 0, 16, 8}}) {
    for (const mix::rotary_layout layout : {mix::rotary_layout::interleaved, mix::rotary_layout::half}) {
      const cases::operands<> x(size, 1);
      const index_t first = std::min<index_t>(0, size.keys - size.queries);
      const auto table = mix::make_rotary_table<float>(
          size.width, std::max<index_t>(size.keys - first, 1),
          mix::rotary_options{.first_position = first, .layout = layout, .rotated_channels = 12});
      mix::tensor<float, 4> inside(x.out.shape()), before(x.out.shape());
      mix::softmax_attention(
          x.q, x.k, x.v, inside,
          mix::softmax_options{.mask = mix::causal{}, .rotary = mix::rotary_inside<float>{&table, layout}});
      mix::tensor<float, 4> q(x.q.shape()), k(x.k.shape());
      mix::rotary_embedding(
          x.q, q,
          mix::rotary_options{.first_position = size.keys - size.queries, .layout = layout, .rotated_channels = 12});
      mix::rotary_embedding(x.k, k, mix::rotary_options{.layout = layout, .rotated_channels = 12});
      mix::softmax_attention(q, k, x.v, before, mix::softmax_options{.mask = mix::causal{}});
      cases::expect_same_bits<float, 4>(inside, before, size.text());
    }
  }
}

TEST(attention_rotary, decode_has_the_bits_of_prefill) {
  const cases::operands<> x({1, 4, 2, 120, 120, 16, 8}, 2);
  const auto table = mix::make_rotary_table<float>(16, 120);
  const auto options = mix::softmax_options{.mask = mix::causal{}, .rotary = mix::rotary_inside<float>{&table}};
  mix::tensor<float, 4> whole(x.out.shape());
  mix::softmax_attention(x.q, x.k, x.v, whole, options);
  for (index_t t = 0; t < 120; ++t) {
    mix::tensor<float, 4> step({1, 4, 1, 8});
    mix::softmax_attention(x.q.slice(2, t, 1), x.k.slice(2, 0, t + 1), x.v.slice(2, 0, t + 1), step, options);
    cases::expect_same_bits<float, 4>(step, whole.slice(2, t, 1), "token " + std::to_string(t));
  }
}

// Without keys queries stand at negative positions, which no table need hold: rows of zeros, and (an address sanitizer looks)
// nothing is read in front of the table.
TEST(attention_rotary, no_keys_need_no_table) {
  const auto table = mix::make_rotary_table<float>(16, 8);
  for (index_t t : {1, 3, 20}) {
    cases::operands<> x({2, 2, 1, t, 4, 16, 8}, 4);
    const std::vector<index_t> keys{0, 4}, queries{t, std::min<index_t>(t, 4)};
    mix::softmax_attention(x.q, x.k, x.v, x.out,
                           mix::softmax_options{.sequences = mix::lengths{.keys = keys, .queries = queries},
                                                .rotary = mix::rotary_inside<float>{&table}});
    for (index_t h = 0; h < 2; ++h)
      for (index_t row = 0; row < t; ++row)
        for (index_t i = 0; i < 8; ++i) EXPECT_TRUE(cases::same_bits(x.out(0, h, row, i), 0.0f));
  }
}

TEST(attention_rotary, positions_beyond_the_table_are_an_error) {
  cases::operands<> x({2, 4, 2, 5, 20, 16, 8}, 3);
  const auto expect_error = [&](const mix::rotary_table<float>* table, const std::string& part) {
    try {
      mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.rotary = mix::rotary_inside<float>{table}});
      ADD_FAILURE() << "no error about " << part;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
    for (float y : x.out) ASSERT_TRUE(cases::same_bits(y, cases::untouched<float>()));
  };
  const auto short_table = mix::make_rotary_table<float>(16, 19), wide_table = mix::make_rotary_table<float>(18, 20);
  expect_error(&short_table, "0 to 19");
  expect_error(&wide_table, "9 pairs");
  expect_error(nullptr, "null");
}

}  // namespace
