// SPDX-License-Identifier: Apache-2.0
// One answer in any pieces of time: prefill whole, in chunks, or token by token; packed or one by one; wide windows or causal.
//
// Budget: none. memcmp. Lengths make trees of one to seven leaves.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;
using view = mix::tensor_view<const float, 4>;

template <class Mask>
mix::tensor<float, 4> attend(const view& q, const view& k, const view& v, const Mask& mask) {
  mix::tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, cases::untouched<float>());
  mix::softmax_attention(q, k, v, out, mix::softmax_options{.mask = mask});
  return out;
}

/// Queries [first, last) against the keys that exist by then.
template <class Mask>
void expect_same_as_part(const cases::operands<>& x, const mix::tensor<float, 4>& whole, index_t first, index_t last,
                         const Mask& mask, const std::string& label) {
  const index_t past = x.size.keys - x.size.queries;
  const auto part =
      attend(x.q.slice(2, first, last - first), x.k.slice(2, 0, past + last), x.v.slice(2, 0, past + last), mask);
  cases::expect_same_bits<float, 4>(part, whole.slice(2, first, last - first),
                                    label + " queries " + std::to_string(first) + " to " + std::to_string(last));
}

template <class Mask>
void split_everywhere(const cases::shape& size, const Mask& mask, index_t every, const std::string& name) {
  const cases::operands<> x(size, static_cast<std::uint64_t>(size.keys));
  const std::string label = name + " " + size.text();
  const auto whole = attend(x.q, x.k, x.v, mask);
  for (index_t t = 0; t < size.queries; t += t + every < size.queries ? every : 1) {
    expect_same_as_part(x, whole, t, t + 1, mask, label);
    if (testing::Test::HasFailure()) return;
  }
  for (index_t cut : {1, 2, 3, 16, 17, 63, 64, 65, 100, 255, 256, 257, 500, 513}) {
    if (cut >= size.queries) continue;
    expect_same_as_part(x, whole, 0, cut, mask, label);
    expect_same_as_part(x, whole, cut, size.queries, mask, label);
    expect_same_as_part(x, whole, cut, std::min(cut + 2, size.queries), mask, label);
    if (testing::Test::HasFailure()) return;
  }
  cases::random_numbers random(7);
  for (index_t first = 0; first < size.queries;) {
    const index_t last = std::min(size.queries, first + random.integer(1, 90));
    expect_same_as_part(x, whole, first, last, mask, label);
    first = last;
  }
}

TEST(attention_split, causal_prefill_in_any_pieces) {
  if (cases::reduced_sweep) {
    split_everywhere({1, 2, 1, 300, 300, 16, 8}, mix::causal{}, 29, "causal");
    return;
  }
  split_everywhere({1, 2, 1, 300, 300, 16, 8}, mix::causal{}, 1, "causal");
  split_everywhere({1, 6, 2, 200, 200, 64, 64}, mix::causal{}, 3, "causal");
  split_everywhere({1, 4, 1, 530, 530, 8, 16}, mix::causal{}, 7, "causal");
  split_everywhere({2, 3, 3, 1500, 1500, 16, 8}, mix::causal{}, 41, "causal");
  split_everywhere({1, 5, 1, 700, 1700, 33, 9}, mix::causal{}, 59, "causal, after a past");
  split_everywhere({1, 2, 2, 120, 120, 1, 1}, mix::causal{}, 1, "causal");
  split_everywhere({1, 2, 1, 70, 70, 130, 80}, mix::causal{}, 1, "causal");
}

TEST(attention_split, windowed_prefill_in_any_pieces) {
  for (index_t left : {0, 5, 63, 64, 200, 256, 600}) {
    if (cases::reduced_sweep && left != 64) continue;
    split_everywhere({1, 4, 2, 420, 900, 16, 8}, mix::causal{} & mix::window{.left = left}, 23,
                     "window " + std::to_string(left));
    split_everywhere({1, 2, 2, 420, 900, 16, 8}, mix::causal{} & (mix::window{.left = left} | mix::first_keys{3}), 31,
                     "window, first keys " + std::to_string(left));
  }
}

// A block of queries that sees a leaf only in part, or skips leaves, must give each query the bits it has alone.
TEST(attention_split, lambda_in_any_pieces) {
  const auto scattered = [](const auto& w) {
    return w.key <= w.query && (w.key / 70 % 3 == 0 || w.key % 37 == 5 || w.key == w.query);
  };
  split_everywhere({1, 4, 2, 260, 1200, 16, 8}, scattered, cases::reduced_sweep ? 60 : 7, "lambda");
}

TEST(attention_split, a_window_as_wide_as_the_sequence_is_causal) {
  for (index_t n : {1, 2, 17, 64, 65, 257, 600}) {
    const cases::operands<> x({1, 2, 1, n, n, 16, 8}, 8);
    const auto causal = attend(x.q, x.k, x.v, mix::causal{});
    for (index_t left : {n - 1, n, n + 1, index_t{1} << 40})
      cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, mix::causal{} & mix::window{.left = left}), causal,
                                        "n " + std::to_string(n) + " left " + std::to_string(left));
    cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, [](const auto& w) { return w.key <= w.query; }), causal,
                                      "n " + std::to_string(n) + " as a lambda");
  }
}

TEST(attention_split, the_past_does_not_depend_on_the_future) {
  const cases::operands<> x({1, 2, 1, 600, 600, 16, 8}, 9);
  const auto whole = attend(x.q, x.k, x.v, mix::causal{});
  for (index_t n : {1, 2, 15, 16, 17, 64, 255, 256, 257, 512, 599})
    cases::expect_same_bits<float, 4>(attend(x.q.slice(2, 0, n), x.k.slice(2, 0, n), x.v.slice(2, 0, n), mix::causal{}),
                                      whole.slice(2, 0, n), "first " + std::to_string(n));
}

// Every number of leaves from one to seven and a bit, queries at the end of them: alone, in a tile, and among many.
TEST(attention_split, odd_trees_of_leaves) {
  for (index_t s = 1; s <= 1793; s += cases::reduced_sweep ? 331 : 64) {
    const cases::operands<> x({1, 3, 1, std::min<index_t>(s, 50), s, 8, 4}, static_cast<std::uint64_t>(s));
    const auto whole = attend(x.q, x.k, x.v, mix::causal{});
    expect_same_as_part(x, whole, x.size.queries - 1, x.size.queries, mix::causal{}, x.size.text());
    expect_same_as_part(x, whole, std::max<index_t>(0, x.size.queries - 3), x.size.queries, mix::causal{},
                        x.size.text());
  }
}

TEST(attention_split, packed_sequences_are_a_loop_over_sequences) {
  const std::vector<std::int32_t> offsets{0, 0, 1, 3, 20, 20, 86, 350, 700};
  const cases::operands<> x({1, 4, 2, 700, 700, 16, 8}, 10);
  mix::tensor<float, 4> together({1, 4, 700, 8});
  const auto options = mix::softmax_options{
      .mask = mix::causal{}, .sequences = mix::packed{.offsets = std::span<const std::int32_t>(offsets)}};
  mix::softmax_attention(x.q, x.k, x.v, together, options);
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    const index_t first = offsets[i], n = offsets[i + 1] - offsets[i];
    const auto alone = attend(x.q.slice(2, first, n), x.k.slice(2, first, n), x.v.slice(2, first, n), mix::causal{});
    cases::expect_same_bits<float, 4>(together.slice(2, first, n), alone, "sequence " + std::to_string(i));
  }
  cases::delayed_threads on(5);
  mix::tensor<float, 4> threaded({1, 4, 700, 8});
  mix::softmax_attention(x.q, x.k, x.v, threaded, options, on);
  cases::expect_same_bits<float, 4>(threaded, together, "packed on threads");
}

TEST(attention_split, padded_lengths_are_shorter_tensors) {
  const std::vector<index_t> keys{300, 1, 0, 77}, queries{20, 1, 3, 0};
  const cases::operands<> x({4, 4, 2, 20, 300, 16, 8}, 11);
  mix::tensor<float, 4> together({4, 4, 20, 8});
  mix::softmax_attention(
      x.q, x.k, x.v, together,
      mix::softmax_options{.mask = mix::causal{}, .sequences = mix::lengths{.keys = keys, .queries = queries}});
  for (index_t b = 0; b < 4; ++b) {
    const index_t t = queries[static_cast<std::size_t>(b)], s = keys[static_cast<std::size_t>(b)];
    const auto alone = attend(x.q.slice(0, b, 1).slice(2, 0, t), x.k.slice(0, b, 1).slice(2, 0, s),
                              x.v.slice(0, b, 1).slice(2, 0, s), mix::causal{});
    cases::expect_same_bits<float, 4>(together.slice(0, b, 1).slice(2, 0, t), alone, "element " + std::to_string(b));
  }
}

// Zeros keep their sign however the work is cut: a masked pair adds nothing, not even 0 * v.
TEST(attention_split, signs_of_zeros) {
  cases::operands<> x({1, 2, 1, 70, 70, 8, 8}, 12);
  for (index_t s = 0; s < 70; ++s) {
    x.v(0, 0, s, 0) = -0.0f;
    x.v(0, 0, s, 1) = s < 10 ? -1e-45f : 0.0f;  // its products with small weights underflow to -0
    x.v(0, 0, s, 2) = s < 10 ? -1e-45f : -0.0f;
    x.v(0, 0, s, 3) = s < 10 ? -1e-45f : 1e-45f;
  }
  const auto whole = attend(x.q, x.k, x.v, mix::causal{});
  for (index_t t = 0; t < 70; ++t) expect_same_as_part(x, whole, t, t + 1, mix::causal{}, "zeros");
}

}  // namespace
