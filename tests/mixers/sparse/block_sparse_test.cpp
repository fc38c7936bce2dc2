// SPDX-License-Identifier: Apache-2.0
// Block-sparse and gathered attention beside softmax attention with the equivalent mask.
//
// Budget: block-sparse has the bits of the masked call; gathered attention stays within the float gate of the oracle. Keys that
// nobody sees hold NaN.
#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <limits>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

TEST(block_sparse, has_the_bits_of_the_mask_it_was_made_from) {
  for (const auto& [t, s] : {std::array<index_t, 2>{1, 40}, {130, 130}, {70, 300}, {40, 17}, {0, 5}, {5, 0}}) {
    const cases::operands<> x({2, 4, 2, t, s, 16, 8}, 7);
    const auto mask = mix::causal{} & (mix::window{.left = 5} | mix::log_sparse{});
    const auto index = mix::block_index_of(
        mask, {.batches = 1, .heads = 1, .queries = t, .keys = s, .query_block = 16, .key_block = 8});
    // Exactly the blocks with a visible pair.
    for (index_t i = 0; i * 16 < t; ++i) {
      for (index_t j = 0; j * 8 < s; ++j) {
        bool any = false;
        for (index_t row = i * 16; row < std::min(t, i * 16 + 16); ++row)
          for (index_t key = j * 8; key < std::min(s, j * 8 + 8); ++key)
            any = any || mix::mask_at(mask, mix::index{0, 0, row + s - t, key, t, s});
        const auto first = index.columns.begin() + index.offsets(0, 0, i),
                   last = index.columns.begin() + index.offsets(0, 0, i + 1);
        EXPECT_EQ(std::find(first, last, j) != last, any) << i << ' ' << j;
      }
    }
    mix::tensor<float, 4> a(x.out.shape()), b(x.out.shape());
    mix::block_sparse_attention(x.q, x.k, x.v, index.pattern(), a, mix::softmax_options{.mask = mask});
    mix::softmax_attention(x.q, x.k, x.v, b, mix::softmax_options{.mask = mask});
    cases::expect_same_bits<float, 4>(a, b, x.size.text());
  }
}

/// Views that note which rows of keys were asked for.
struct noting_views : mix::key_value_views<float> {
  std::vector<char>* asked = nullptr;

  mix::row_run<float> keys(const mix::sequence& seq, index_t head, index_t position) const {
    auto run = mix::key_value_views<float>::keys(seq, head, position);
    run.count = 1;  // one row at a time, so that every row read is asked for
    (*asked)[static_cast<std::size_t>(position)] = 1;
    return run;
  }
};

// The keys asked for are those of the listed blocks, one by one; those of no list never are.
TEST(block_sparse, asks_its_source_for_the_blocks_listed) {
  const cases::operands<> x({1, 1, 1, 64, 600, 8, 8}, 7);
  mix::tensor<index_t, 3> offsets({1, 1, 2});
  offsets(0, 0, 0) = 0, offsets(0, 0, 1) = 4;
  const std::vector<index_t> columns{0, 3, 4, 8};
  std::vector<char> asked(600, 0);
  noting_views source;
  source.k = x.k, source.v = x.v, source.asked = &asked;
  const mix::block_pattern pattern{.query_block = 64, .key_block = 64, .offsets = offsets, .columns = columns};
  const mix::softmax_options<mix::block_pattern> options{.mask = pattern};
  mix::calling_thread on;
  mix::tensor<float, 4> out(x.out.shape()), expected(x.out.shape());
  mix::detail::attend(mix::tensor_view<const float, 4>(x.q), source, options,
                      mix::detail::attention_output<float, float, float>{out, {}, {}, false}, on);
  for (index_t s = 0; s < 600; ++s)
    EXPECT_EQ(asked[static_cast<std::size_t>(s)] != 0,
              std::find(columns.begin(), columns.end(), s / 64) != columns.end())
        << s;
  mix::block_sparse_attention(x.q, x.k, x.v, pattern, expected);
  cases::expect_same_bits<float, 4>(out, expected, "through a source that notes");
}

TEST(block_sparse, blocks_from_scores) {
  mix::tensor<float, 4> scores({1, 2, 2, 4}, 0.0f);
  scores(0, 0, 0, 2) = 3, scores(0, 0, 0, 1) = not_a_number, scores(0, 0, 1, 3) = 1;
  for (index_t j = 0; j < 4; ++j) scores(0, 1, 0, j) = -std::numeric_limits<float>::infinity();
  const mix::block_index_shape of{.queries = 20, .keys = 50, .query_block = 16, .key_block = 16};
  const auto index = mix::block_index_of_scores(scores, 2, of);
  EXPECT_EQ(index.columns, (std::vector<index_t>{0, 2, 0, 3, 0, 1}));
  EXPECT_EQ(index.offsets(0, 1, 1), 4);
  mix::mask_check(index.pattern(), 3, 2, 20, 50);
  cases::expect_refused([&] { mix::block_index_of_scores(scores, 5, of); }, "k is 5, scores has 4 blocks");
}

TEST(block_sparse, errors_name_the_entry) {
  const cases::operands<> x({1, 1, 1, 32, 48, 8, 8}, 7);
  mix::tensor<float, 4> out(x.out.shape());
  mix::tensor<index_t, 3> offsets({1, 1, 3});
  offsets(0, 0, 0) = 0, offsets(0, 0, 1) = 2, offsets(0, 0, 2) = 3;
  const auto call = [&](const std::vector<index_t>& columns) {
    mix::block_sparse_attention(x.q, x.k, x.v,
                                {.query_block = 16, .key_block = 16, .offsets = offsets, .columns = columns}, out);
  };
  call({0, 2, 1});
  cases::expect_refused([&] { call({2, 0, 1}); }, "columns[1] is 0 after 2");
  cases::expect_refused([&] { call({2, 2, 1}); }, "columns[1] is 2 after 2");
  cases::expect_refused([&] { call({0, 2, 3}); }, "columns[2] is 3, k has 3 blocks");
  cases::expect_refused([&] { call({0, 2}); }, "offsets(0, 0, 2) is 3");
}

TEST(gathered, is_attention_over_the_lists) {
  cases::random_numbers random(9);
  for (const cases::shape& size :
       {cases::shape{2, 4, 2, 9, 70, 16, 8}, {1, 4, 4, 3, 600, 5, 3}, {1, 4, 1, 40, 33, 8, 20}}) {
    for (const index_t block : {1, 4, 16}) {
      for (const index_t lists : {index_t{1}, size.kv_heads, size.heads}) {
        cases::operands<> x(size, 3);
        const index_t blocks = (size.keys + block - 1) / block, n = std::max<index_t>(1, blocks - 1);
        mix::tensor<index_t, 4> indices({size.batch, lists, size.queries, n}, -7);
        mix::tensor<index_t, 3> counts({size.batch, lists, size.queries}, 0);
        std::vector<char> used(static_cast<std::size_t>(size.batch * lists * size.queries * size.keys), 0);
        const auto at = [&](index_t b, index_t l, index_t t, index_t s) -> char& {
          return used[static_cast<std::size_t>(((b * lists + l) * size.queries + t) * size.keys + s)];
        };
        for (index_t b = 0; b < size.batch; ++b)
          for (index_t l = 0; l < lists; ++l)
            for (index_t t = 0; t < size.queries; ++t) {
              index_t found = 0, tokens = 0;
              for (index_t j = 0; j < blocks && found < n; ++j) {
                if (t % 4 == 1 || !random.chance(0.5)) continue;  // some lists are empty
                indices(b, l, t, found++) = j;
                tokens += std::min(block, size.keys - j * block);
              }
              if (found > 0 && block > 1 && t % 3 == 0) tokens = std::max((found - 1) * block + 1, tokens - 2);
              counts(b, l, t) = tokens;
              for (index_t p = 0; p < tokens; ++p) at(b, l, t, indices(b, l, t, p / block) * block + p % block) = 1;
            }
        auto p = cases::problem_of(x);
        p.mask = [&](const mix::index& w) {
          return at(w.batch, w.head / (size.heads / lists), w.query_row(), w.key) != 0;
        };
        const auto expected = reference::softmax_attention(p);
        for (index_t b = 0; b < size.batch; ++b)
          for (index_t h = 0; h < size.kv_heads; ++h)
            for (index_t s = 0; s < size.keys; ++s) {
              bool seen = false;
              for (index_t l = 0; l < lists; ++l) {
                if (lists > 1 && l / (lists / size.kv_heads) != h) continue;
                for (index_t t = 0; t < size.queries; ++t) seen = seen || at(b, l, t, s) != 0;
              }
              if (seen) continue;
              std::fill_n(x.k.row(b, h, s), size.width, not_a_number);
              std::fill_n(x.v.row(b, h, s), size.value_width, not_a_number);
            }
        mix::gathered_attention(
            mix::gathered_attention_inputs<float, float>{
                .q = x.q, .k = x.k, .v = x.v, .indices = indices, .counts = counts},
            x.out.view(), mix::gathered_attention_options<float>{.block = block, .lse = x.lse.view()});
        const std::string name = size.text() + " block " + std::to_string(block) + " lists " + std::to_string(lists);
        cases::expect_within_gate<float, float, float>(x.out, x, expected, name);
        cases::expect_lse_within_gate(x, expected, name);
      }
    }
  }
}

template <class E>
void check_gathered_of_narrow_storage() {
  cases::operands<E, E, float> x({1, 4, 2, 9, 40, 16, 8}, 8);
  mix::tensor<index_t, 4> indices({1, 1, 9, 3});
  for (index_t t = 0; t < 9; ++t) indices(0, 0, t, 0) = t % 3, indices(0, 0, t, 1) = 4, indices(0, 0, t, 2) = 6 + t % 4;
  auto p = cases::problem_of(x);
  p.mask = [&](const mix::index& w) {
    const index_t* list = indices.row(0, 0, w.query_row());
    return std::find(list, list + 3, w.key / 4) != list + 3;
  };
  mix::gathered_attention(mix::gathered_attention_inputs<E, E>{.q = x.q, .k = x.k, .v = x.v, .indices = indices},
                          x.out.view(), mix::gathered_attention_options<float>{.block = 4});
  cases::expect_within_gate<E, E, float>(x.out, x, reference::softmax_attention(p), "gathered, narrow storage");
}

TEST(gathered, of_narrow_storage) {
  check_gathered_of_narrow_storage<mix::bfloat16>();
  check_gathered_of_narrow_storage<mix::float16>();
}

TEST(gathered, errors_name_the_entry) {
  const cases::operands<> x({1, 2, 1, 2, 10, 8, 8}, 7);
  mix::tensor<float, 4> out(x.out.shape());
  mix::tensor<index_t, 4> indices({1, 1, 2, 2}, 0);
  mix::tensor<index_t, 3> counts({1, 1, 2}, 5);
  const auto call = [&] {
    mix::gathered_attention(
        mix::gathered_attention_inputs<float, float>{
            .q = x.q, .k = x.k, .v = x.v, .indices = indices, .counts = counts},
        out.view(), mix::gathered_attention_options<float>{.block = 4});
  };
  cases::expect_refused(call, "indices(0, 0, 0, 1) is 0 after 0");
  indices(0, 0, 0, 1) = 1, indices(0, 0, 1, 1) = 3;
  cases::expect_refused(call, "indices(0, 0, 1, 1) is 3: k has 3 blocks of 4 keys");
  indices(0, 0, 1, 1) = 2;
  call();
  counts(0, 0, 1) = 7;
  cases::expect_refused(call, "counts(0, 0, 1) is 7: block 2 of k has 2 keys, 3 are counted");
  counts(0, 0, 1) = 9;
  cases::expect_refused(call, "counts(0, 0, 1) is 9, expected 0 to 8");
}

}  // namespace
