// SPDX-License-Identifier: Apache-2.0
// Mixture of block attention beside its formula in float64.
//
// Budget: the float gate of softmax attention. The choice of blocks is made in float64 here; the cases have no two scores so close that
// float decides otherwise (a wrong block is far outside the gate).
#include <limits>

#include <mixers/sparse/block_cases.hpp>
#include <reference/guarded.hpp>

namespace {

using cases::index_t;
using cases::sequence_list;

/// The oracle's problem of a call: the mask that the chosen blocks make. `table` lives as long as the problem.
template <class Q, class E, class O>
auto problem_of(const cases::operands<Q, E, O>& x, index_t block, index_t blocks, const sequence_list& sequences,
                cases::block_table& table) {
  const index_t group = x.size.heads / x.size.kv_heads;
  for (const auto& s : sequences) {
    for (index_t h = 0; h < x.size.heads; ++h) {
      for (index_t t = 0; t < s.queries; ++t) {
        const index_t at = t + s.keys - s.queries;
        std::vector<double> score;
        for (index_t j = 0; at >= 0 && j < at / block; ++j) {
          double sum = 0;
          for (index_t n = j * block; n < (j + 1) * block; ++n)
            sum += cases::exact_dot(x.q.row(s.batch, h, s.query_first + t),
                                    x.k.row(s.batch, h / group, s.key_first + n), x.size.width);
          score.push_back(sum);
        }
        table.choose(s.number, h, t, score, blocks);
      }
    }
  }
  auto p = cases::problem_of(x);
  p.sequences = sequences;
  p.mask = table.mask(block);
  return p;
}

template <class Q = float, class E = Q, class O = Q, class Options>
void check(const cases::shape& size, const Options& given, const sequence_list& sequences, std::uint64_t seed,
           const std::string& label, std::function<double(double, const mix::index&)> score = {}) {
  cases::operands<Q, E, O> x(size, seed);
  cases::block_table table(sequences, size.heads);
  auto p = problem_of(x, given.block, given.blocks, sequences, table);
  if (score)
    p.score = [&](auto s, const mix::index& w) { return static_cast<decltype(s)>(score(static_cast<double>(s), w)); };
  const auto expected = reference::softmax_attention(p);
  Options options = given;
  options.lse = x.lse.view();
  const std::string name =
      size.text() + " block " + std::to_string(given.block) + " of " + std::to_string(given.blocks) + ", " + label;
  const mix::tensor_view<const Q, 4> q = x.q;
  const mix::tensor_view<const E, 4> k = x.k, v = x.v;
  mix::mixture_of_block_attention(q, k, v, x.out.view(), options);
  cases::expect_within_gate<Q, E, O>(x.out, x, expected, name);
  cases::expect_lse_within_gate(x, expected, name);
  mix::tensor<O, 4> again(x.out.shape(), cases::untouched<O>());
  options.lse = {};
  mix::mixture_of_block_attention(q, k, v, again.view(), options, cases::backwards{});
  cases::expect_same_bits<O, 4>(again, x.out, name + ", another executor");
}

TEST(mixture_of_block_attention, is_attention_over_the_blocks_chosen) {
  for (const cases::shape& size : {cases::shape{1, 2, 1, 50, 50, 16, 8},
                                   {2, 2, 2, 7, 90, 8, 3},
                                   {1, 4, 2, 130, 130, 20, 17},
                                   {1, 1, 1, 20, 9, 8, 8},
                                   {1, 1, 1, 1, 64, 8, 8},
                                   {1, 2, 1, 0, 9, 8, 8},
                                   {1, 1, 1, 4, 0, 8, 8}}) {
    for (const index_t block : {1, 8, 16}) {
      for (const index_t blocks : {1, 3, 100}) {
        check(size, mix::mixture_of_block_options<>{.block = block, .blocks = blocks}, cases::whole_sequences_of(size),
              21, "float");
      }
    }
  }
}

// A block of more keys than a leaf goes in pieces; tiles of all widths, several of them per block.
TEST(mixture_of_block_attention, long_blocks_and_many_rows) {
  const cases::shape longer{1, 2, 1, 40, 1000, 8, 8}, wider{1, 6, 2, 300, 300, 8, 8};
  check(longer, mix::mixture_of_block_options<>{.block = 300, .blocks = 2}, cases::whole_sequences_of(longer), 31,
        "long");
  check(wider, mix::mixture_of_block_options<>{.block = 32, .blocks = 4}, cases::whole_sequences_of(wider), 32, "wide");
}

TEST(mixture_of_block_attention, types) {
  const cases::shape size{1, 2, 1, 60, 75, 16, 8};
  const auto all = cases::whole_sequences_of(size);
  const mix::mixture_of_block_options<> options{.block = 8, .blocks = 3};
  check<mix::bfloat16>(size, options, all, 41, "bfloat16");
  check<mix::float16>(size, options, all, 42, "float16");
  check<float, mix::bfloat16, float>(size, options, all, 43, "bfloat16 keys");
  check<double>(size,
                mix::mixture_of_block_options<mix::plain_score, mix::whole_sequences, double>{.block = 8, .blocks = 3},
                all, 44, "double");
}

TEST(mixture_of_block_attention, sequences) {
  const std::vector<std::int32_t> offsets{2, 42, 42, 60, 90}, key_offsets{0, 50, 53, 60, 95};
  const mix::packed of_packed{.offsets = std::span<const std::int32_t>(offsets),
                              .key_offsets = std::span<const std::int32_t>(key_offsets)};
  check({1, 4, 2, 92, 100, 8, 8},
        mix::mixture_of_block_options<mix::plain_score, mix::packed<>>{.block = 8, .blocks = 3, .sequences = of_packed},
        cases::packed_sequences_of(offsets, key_offsets), 51, "packed");
  const std::vector<index_t> keys{70, 0, 33}, queries{20, 20, 9};
  check({3, 2, 1, 20, 70, 8, 8},
        mix::mixture_of_block_options<mix::plain_score, mix::lengths>{
            .block = 8, .blocks = 2, .sequences = {.keys = keys, .queries = queries}},
        cases::padded_sequences_of(queries, keys), 52, "lengths");
}

// Modifiers are told the query and the head of every lane, and may hide pairs; they do not choose blocks.
TEST(mixture_of_block_attention, score_modifiers) {
  const std::vector<float> slopes{0.5f, 0.25f, 0.125f, 0.0625f};
  const cases::shape size{2, 4, 2, 60, 75, 16, 8};
  const auto all = cases::whole_sequences_of(size);
  const auto score = mix::alibi{std::span<const float>(slopes)} | mix::softcap{3.0f};
  check(size,
        mix::mixture_of_block_options<std::remove_cvref_t<decltype(score)>>{.block = 8, .blocks = 3, .score = score},
        all, 61, "alibi and softcap", [&](double s, const mix::index& w) {
          const double biased =
              s - static_cast<double>(slopes[static_cast<std::size_t>(w.head)]) * static_cast<double>(w.query - w.key);
          return 3.0 * std::tanh(biased / 3.0);
        });
  const auto hide = [](const mix::index& w) { return (w.key + w.query_row() + w.head + w.batch) % 3 == 0; };
  const auto lambda = [hide](float s, const mix::index& w) {
    return hide(w) ? -std::numeric_limits<float>::infinity() : s;
  };
  check(size, mix::mixture_of_block_options<decltype(lambda)>{.block = 8, .blocks = 3, .score = lambda}, all, 62,
        "hiding",
        [&](double s, const mix::index& w) { return hide(w) ? -std::numeric_limits<double>::infinity() : s; });
}

// Keys and values that a query does not see reach it in no way, not even as NaN; a row beside it in the tile may see them.
TEST(mixture_of_block_attention, what_is_not_seen) {
  const cases::shape size{1, 1, 1, 64, 64, 8, 8};
  const mix::mixture_of_block_options<> options{.block = 16, .blocks = 2};
  cases::operands<> x(size, 71), y(size, 71);
  for (index_t d = 0; d < 8; ++d) y.v(0, 0, 40, d) = std::numeric_limits<float>::quiet_NaN();
  mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options);
  mix::mixture_of_block_attention(y.q, y.k, y.v, y.out, options);
  cases::block_table table(cases::whole_sequences_of(size), 1);
  problem_of(x, 16, 2, cases::whole_sequences_of(size), table);
  const auto sees = table.mask(16);
  index_t reached = 0;
  for (index_t t = 0; t < 64; ++t) {
    const bool seen = sees(mix::index{0, 0, t, 40, 64, 64});
    reached += seen ? 1 : 0;
    for (index_t d = 0; d < 8; ++d) {
      if (seen) {
        EXPECT_TRUE(std::isnan(y.out(0, 0, t, d))) << t;
      } else {
        EXPECT_TRUE(cases::same_bits(y.out(0, 0, t, d), x.out(0, 0, t, d))) << t;
      }
    }
  }
  EXPECT_GT(reached, 8);   // some beyond those of its own block
  EXPECT_LT(reached, 24);  // not all that stand behind it
}

// A row's bits are those of its own query, list and keys: of any split into calls, any neighbours and any strides.
TEST(mixture_of_block_attention, one_answer) {
  const cases::shape size{2, 2, 1, 150, 150, 16, 8};
  const mix::mixture_of_block_options<> options{.block = 16, .blocks = 3};
  cases::operands<> x(size, 81);
  mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options);
  for (const auto& [first, last] : {std::array<index_t, 2>{0, 1}, {0, 97}, {97, 150}, {149, 150}}) {
    cases::operands<> y({1, 2, 1, last - first, last, 16, 8}, 1);
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = first; t < last; ++t) std::copy_n(x.q.row(1, h, t), 16, y.q.row(0, h, t - first));
    for (index_t s = 0; s < last; ++s) {
      std::copy_n(x.k.row(1, 0, s), 16, y.k.row(0, 0, s));
      std::copy_n(x.v.row(1, 0, s), 8, y.v.row(0, 0, s));
    }
    mix::mixture_of_block_attention(y.q, y.k, y.v, y.out, options);
    for (index_t h = 0; h < 2; ++h)
      for (index_t t = first; t < last; ++t)
        for (index_t d = 0; d < 8; ++d)
          ASSERT_TRUE(cases::same_bits(y.out(0, h, t - first, d), x.out(1, h, t, d)))
              << first << ' ' << last << ' ' << t;
  }
  for (const auto& l : reference::layouts<4>()) {
    reference::strided<float, 4> q(x.q, l), k(x.k, l), v(x.v, l);
    mix::tensor<float, 4> out(x.out.shape());
    mix::mixture_of_block_attention(mix::tensor_view<const float, 4>(q.view()),
                                    mix::tensor_view<const float, 4>(k.view()),
                                    mix::tensor_view<const float, 4>(v.view()), out.view(), options);
    cases::expect_same_bits<float, 4>(out, x.out, l.name);
  }
}

TEST(mixture_of_block_attention, stays_inside_its_operands) {
  const cases::shape size{1, 2, 1, 37, 45, 11, 5};
  const mix::mixture_of_block_options<> options{.block = 8, .blocks = 3};
  cases::operands<> x(size, 91);
  mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options);
  for (const reference::flush side : {reference::flush::start, reference::flush::end}) {
    reference::guarded_buffer<float> q(x.q.data(), x.q.size(), side), k(x.k.data(), x.k.size(), side),
        v(x.v.data(), x.v.size(), side), out(x.out.size(), side);
    const mix::tensor_view<float, 4> to(out.data(), x.out.shape());
    mix::mixture_of_block_attention(mix::tensor_view<const float, 4>(q.data(), x.q.shape()),
                                    mix::tensor_view<const float, 4>(k.data(), x.k.shape()),
                                    mix::tensor_view<const float, 4>(v.data(), x.v.shape()), to, options);
    cases::expect_same_bits<float, 4>(to, x.out, "guarded");
  }
}

TEST(mixture_of_block_attention, errors) {
  cases::operands<> x({1, 1, 1, 5, 40, 8, 8}, 12);
  using options = mix::mixture_of_block_options<>;
  cases::expect_refused([&] { mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options{.block = 0}); },
                        "options.block is 0");
  cases::expect_refused([&] { mix::mixture_of_block_attention(x.q, x.k, x.v, x.out, options{.blocks = 0}); },
                        "options.blocks is 0");
  const std::vector<index_t> keys{41};
  cases::expect_refused(
      [&] {
        mix::mixture_of_block_attention(
            x.q, x.k, x.v, x.out,
            mix::mixture_of_block_options<mix::plain_score, mix::lengths>{.sequences = {.keys = keys}});
      },
      "lengths.keys[0] is 41");
  const std::vector<float> slopes(2, 0.5f);
  const mix::alibi score{std::span<const float>(slopes)};
  cases::expect_refused(
      [&] {
        mix::mixture_of_block_attention(
            x.q, x.k, x.v, x.out, mix::mixture_of_block_options<std::remove_cvref_t<decltype(score)>>{.score = score});
      },
      "alibi.slopes has 2 numbers, q has 1 heads");
}

}  // namespace
