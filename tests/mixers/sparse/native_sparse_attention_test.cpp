// SPDX-License-Identifier: Apache-2.0
// Native sparse attention beside its formulas in float64.
//
// Budget: for the gated sum of three branches the float gates of softmax attention, each times its gate; half a unit of the output's
// type more where that is narrower. The choice of blocks is made in float64 here; the cases have no two importances so close that float
// decides otherwise (a wrong block is far outside the gate).
#include <mixers/sparse/block_cases.hpp>

namespace {

using cases::index_t;
using cases::sequence_list;

template <class Q, class E>
struct native_tensors {
  mix::tensor<E, 4> ck, cv;                    // (B, Hk, Sc, D), (B, Hk, Sc, Dv)
  mix::tensor<mix::accumulator_t<Q>, 4> gate;  // (B, H, T, 3)

  native_tensors(const cases::shape& size, index_t compressed, std::uint64_t seed)
      : ck({size.batch, size.kv_heads, compressed, size.width}),
        cv({size.batch, size.kv_heads, compressed, size.value_width}),
        gate({size.batch, size.heads, size.queries, 3}) {
    cases::random_numbers random(seed);
    cases::fill_random(ck.view(), random);
    cases::fill_random(cv.view(), random);
    cases::fill_random(gate.view(), random);
  }
};

index_t compressed_count(index_t keys, index_t length, index_t stride) {
  return keys < length ? 0 : (keys - length) / stride + 1;
}

template <class Q = float, class E = Q, class O = Q, class Options>
void check(const cases::shape& size, const Options& options, const sequence_list& sequences, std::uint64_t seed,
           const std::string& label) {
  const index_t block = options.block, length = options.length.value_or(block),
                stride = options.stride.value_or(length);
  const index_t H = size.heads, group = H / size.kv_heads;
  // Where the compressed keys of each sequence begin, and how many rows that takes.
  sequence_list of_compressed = sequences;
  constexpr bool one_each = !std::is_same_v<decltype(options.sequences), mix::packed<>>;
  index_t rows = one_each ? compressed_count(size.keys, length, stride) : 0;
  for (auto& s : of_compressed) {
    s.key_first = s.number > 0 && of_compressed[static_cast<std::size_t>(s.number - 1)].batch == s.batch
                      ? of_compressed[static_cast<std::size_t>(s.number - 1)].key_first +
                            of_compressed[static_cast<std::size_t>(s.number - 1)].keys
                      : 0;
    s.keys = compressed_count(s.keys, length, stride);
    rows = std::max(rows, s.key_first + s.keys);
  }
  cases::operands<Q, E, O> x(size, seed);
  native_tensors<Q, E> more(size, rows, seed + 1);
  const mix::native_sparse_attention_inputs<Q, E> inputs{
      .q = x.q, .k = x.k, .v = x.v, .compressed_k = more.ck, .compressed_v = more.cv, .gate = more.gate};
  mix::native_sparse_attention(inputs, x.out.view(), options);
  mix::tensor<O, 4> again(x.out.shape(), cases::untouched<O>());
  mix::native_sparse_attention(inputs, again.view(), options, cases::backwards{});
  cases::expect_same_bits<O, 4>(again, x.out, label + ", another executor");

  using compute = mix::accumulator_t<Q>;
  using real = reference::oracle_real<compute>;
  auto compressed = cases::problem_of(x);
  compressed.keys = rows;
  compressed.k = reference::exact_values<real, E, 4>(more.ck);
  compressed.v = reference::exact_values<real, E, 4>(more.cv);
  compressed.sequences = of_compressed;
  // Compressed key i stands for keys up to i stride + length - 1.
  compressed.mask = [&](const mix::index& w) {
    const auto& s = sequences[static_cast<std::size_t>(w.batch)];
    return w.key * stride + length - 1 <= w.query_row() + s.keys - s.queries;
  };
  const auto first = reference::softmax_attention(compressed, true);
  cases::block_table table(sequences, H);
  for (const auto& s : sequences) {
    const index_t base = of_compressed[static_cast<std::size_t>(s.number)].key_first;
    for (index_t h = 0; h < H; ++h) {
      for (index_t t = 0; t < s.queries; ++t) {
        const index_t at = t + s.keys - s.queries, current = at / block;
        std::vector<double> importance;
        for (index_t j = 0; at >= 0 && j < current; ++j) {
          // Equation 9 with blocks and compressed keys counted from 0, summed over the heads of the group (equation 10).
          double sum = 0;
          for (index_t m = 0; m < block / stride; ++m) {
            for (index_t n = 0; n < length / stride; ++n) {
              const index_t i = block / stride * j + m - n;
              if (i < 0 || i * stride + length - 1 > at) continue;
              for (index_t other = h / group * group; other < h / group * group + group; ++other) {
                const index_t row = (s.batch * H + other) * size.queries + s.query_first + t;
                sum += static_cast<double>(first.weights[static_cast<std::size_t>(row * rows + base + i)]);
              }
            }
          }
          importance.push_back(j < options.first || j > current - options.local ? 1e9 : sum);
        }
        table.choose(s.number, h, t, importance, options.blocks);
      }
    }
  }
  auto selected = cases::problem_of(x), near = cases::problem_of(x);
  selected.sequences = near.sequences = sequences;
  selected.mask = table.mask(block);
  near.mask = [&](const mix::index& w) { return w.key <= w.query && w.key > w.query - options.window; };
  const auto second = reference::softmax_attention(selected), third = reference::softmax_attention(near);
  const double u = reference::unit_roundoff<compute>();
  for (index_t row = 0; row < size.batch * H * size.queries; ++row) {
    for (index_t d = 0; d < size.value_width; ++d) {
      const auto e = static_cast<std::size_t>(row * size.value_width + d);
      if (!second.written[static_cast<std::size_t>(row)]) {
        ASSERT_TRUE(cases::same_bits(x.out.data()[e], cases::untouched<O>())) << label << " row " << row;
        continue;
      }
      double want = 0, gate_sum = 0;
      const reference::softmax_answer<real>* answers[] = {&first, &second, &third};
      for (index_t i = 0; i < 3; ++i) {
        const double g = static_cast<double>(more.gate.data()[row * 3 + i]);
        const auto& answer = *answers[i];
        want += g * static_cast<double>(answer.out[e]);
        gate_sum += std::abs(g) *
                        std::max(8.0, 4 * (1 + static_cast<double>(answer.logit_mass[static_cast<std::size_t>(row)]))) *
                        static_cast<double>(answer.magnitude[e]) +
                    std::abs(g) * 4 * static_cast<double>(answer.sensitivity[e]);
      }
      const double half_unit = std::is_same_v<O, compute> ? 0 : 0.51 * reference::element_ulp<O>(want);
      ASSERT_NEAR(reference::exact<double>(x.out.data()[e]), want, gate_sum * u + half_unit + 1e-37)
          << size.text() << ' ' << label << " row " << row;
    }
  }
}

TEST(native_sparse_attention, is_the_gated_sum_of_three) {
  for (const cases::shape& size : {cases::shape{1, 4, 2, 70, 70, 16, 8},
                                   {2, 2, 2, 5, 90, 8, 3},
                                   {1, 2, 1, 40, 21, 8, 8},
                                   {1, 2, 1, 1, 64, 8, 8},
                                   {1, 2, 1, 0, 9, 8, 8},
                                   {1, 1, 1, 4, 0, 8, 8}}) {
    check(size, mix::native_sparse_attention_options<>{.block = 8, .blocks = 4, .first = 1, .local = 1, .window = 10},
          cases::whole_sequences_of(size), 22, "blocks of their own");
  }
}

// Compressed keys that overlap, are shorter or longer than a block: the weights of equation 9.
TEST(native_sparse_attention, compression_of_other_lengths) {
  for (const auto& [block, length, stride] :
       {std::array<index_t, 3>{16, 8, 4}, {8, 8, 4}, {16, 4, 4}, {8, 16, 8}, {8, 12, 4}, {6, 3, 1}, {8, 24, 2}}) {
    for (const cases::shape& size :
         {cases::shape{1, 4, 2, 120, 120, 16, 8}, {1, 2, 1, 9, 131, 8, 8}, {1, 2, 1, 30, 17, 8, 8}}) {
      check(
          size,
          mix::native_sparse_attention_options<>{
              .block = block, .blocks = 5, .first = 1, .local = 2, .window = 10, .length = length, .stride = stride},
          cases::whole_sequences_of(size), 25,
          "block " + std::to_string(block) + " length " + std::to_string(length) + " stride " + std::to_string(stride));
    }
  }
}

TEST(native_sparse_attention, sequences) {
  const std::vector<std::int32_t> offsets{1, 41, 41, 60, 90}, key_offsets{0, 50, 53, 60, 95};
  const mix::packed of_packed{.offsets = std::span<const std::int32_t>(offsets),
                              .key_offsets = std::span<const std::int32_t>(key_offsets)};
  check({1, 4, 2, 92, 100, 8, 8},
        mix::native_sparse_attention_options<mix::packed<>>{.block = 8,
                                                            .blocks = 3,
                                                            .first = 1,
                                                            .local = 1,
                                                            .window = 7,
                                                            .length = 8,
                                                            .stride = 4,
                                                            .sequences = of_packed},
        cases::packed_sequences_of(offsets, key_offsets), 51, "packed");
  const std::vector<index_t> keys{60, 0, 66}, queries{20, 20, 9};
  check({3, 2, 1, 20, 70, 8, 8},
        mix::native_sparse_attention_options<mix::lengths>{.block = 8,
                                                           .blocks = 3,
                                                           .first = 0,
                                                           .local = 1,
                                                           .window = 7,
                                                           .sequences = {.keys = keys, .queries = queries}},
        cases::padded_sequences_of(queries, keys), 52, "lengths");
}

TEST(native_sparse_attention, types) {
  const cases::shape size{1, 4, 2, 60, 75, 16, 8};
  const mix::native_sparse_attention_options<> options{
      .block = 8, .blocks = 4, .first = 1, .local = 1, .window = 10, .length = 8, .stride = 4};
  const auto all = cases::whole_sequences_of(size);
  check<mix::bfloat16>(size, options, all, 41, "bfloat16");
  check<mix::float16>(size, options, all, 42, "float16");
  check<float, mix::bfloat16, float>(size, options, all, 43, "bfloat16 keys");
  check<double>(size, options, all, 44, "double");
}

TEST(native_sparse_attention, errors) {
  cases::operands<> x({1, 1, 1, 5, 40, 8, 8}, 12);
  const mix::tensor<float, 4> ck({1, 1, 5, 8}), gate({1, 1, 5, 3});
  const mix::native_sparse_attention_inputs<float, float> in{
      .q = x.q, .k = x.k, .v = x.v, .compressed_k = ck, .compressed_v = ck, .gate = gate};
  const auto refused = [&](const mix::native_sparse_attention_options<>& options, const char* message) {
    cases::expect_refused([&] { mix::native_sparse_attention(in, x.out.view(), options); }, message);
  };
  refused({.block = 9}, "compressed_k is (1, 1, 5, 8), expected (B, Hk, compressed keys, D) = (1, 1, 4, 8)");
  refused({.block = 8, .blocks = 2}, "options.blocks is 2, below options.first + options.local");
  refused({.block = 8, .window = 0}, "options.window is 0");
  refused({.block = 8, .stride = 0}, "options.stride is 0");
  refused({.block = 8, .length = 6, .stride = 4}, "options.length is 6, no multiple of options.stride, 4");
  refused({.block = 10, .length = 8, .stride = 4}, "options.block is 10, no multiple of options.stride, 4");
}

}  // namespace
