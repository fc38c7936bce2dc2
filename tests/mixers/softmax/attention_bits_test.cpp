// SPDX-License-Identifier: Apache-2.0
// One answer, whoever computes it and in which pieces: executors, repeats, batch neighbours, memory layouts, head groups.
//
// Budget: none. memcmp.
#include <mixers/softmax/softmax_cases.hpp>

#include <reference/strided.hpp>

namespace {

using cases::index_t;

template <class Options, class Executor>
mix::tensor<float, 4> attend(const mix::tensor_view<const float, 4>& q, const mix::tensor_view<const float, 4>& k,
                             const mix::tensor_view<const float, 4>& v, const Options& options, Executor&& on) {
  mix::tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, cases::untouched<float>());
  mix::softmax_attention(q, k, v, out, options, on);
  return out;
}

const auto causal = mix::softmax_options{.mask = mix::causal{}};

mix::tensor<float, 4> attend(const mix::tensor_view<const float, 4>& q, const mix::tensor_view<const float, 4>& k,
                             const mix::tensor_view<const float, 4>& v) {
  return attend(q, k, v, causal, mix::calling_thread{});
}

/// Long prefills, single queries over many keys (split over keys), few queries, one head, many small problems.
std::vector<cases::shape> shapes_for_executors() {
  if (cases::reduced_sweep)
    return {{2, 6, 2, 20, 300, 16, 8}, {1, 4, 1, 1, 800, 16, 24}, {3, 2, 2, 3, 1025, 16, 8}, {3, 2, 2, 3, 1793, 8, 8}};
  return {{2, 6, 2, 70, 700, 16, 24},  {1, 4, 1, 1, 1500, 64, 32}, {1, 1, 1, 1, 1793, 8, 8},
          {3, 2, 2, 3, 1025, 33, 17},  {3, 2, 2, 3, 1793, 8, 8},   {1, 8, 2, 2, 513, 64, 64},
          {1, 1, 1, 200, 200, 64, 64}, {40, 2, 1, 9, 9, 8, 8},     {1, 24, 1, 1, 900, 32, 32}};
}

TEST(attention_bits, number_of_threads_and_their_timing) {
  for (const cases::shape& size : shapes_for_executors()) {
    const cases::operands<> x(size, 1);
    const auto alone = attend(x.q, x.k, x.v);
    for (index_t threads : {1, 2, 3, 5, 7, 8, 16, 33}) {
      if (cases::reduced_sweep && threads > 5) continue;
      cases::delayed_threads on(threads, static_cast<std::uint64_t>(threads));
      cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, causal, on), alone,
                                        size.text() + " on " + std::to_string(threads) + " threads");
    }
    cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, causal, cases::backwards{}), alone,
                                      size.text() + " backwards");
  }
}

TEST(attention_bits, repeats_under_random_delays) {
  const cases::operands<> x({1, 4, 2, 5, 1100, 16, 16}, 2);
  const auto alone = attend(x.q, x.k, x.v);
  cases::delayed_threads on(4, 99);
  const int count = cases::reduced_sweep ? 20 : 400;
  for (int n = 0; n < count && !HasFailure(); ++n)
    cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v, causal, on), alone, "repeat " + std::to_string(n));
}

TEST(attention_bits, batch_neighbours_and_place_in_the_batch) {
  for (index_t batch : {2, 3, 17}) {
    for (index_t t : {1, 30}) {
      const cases::operands<> x({batch, 4, 2, t, 270, 16, 8}, static_cast<std::uint64_t>(batch));
      const auto together = attend(x.q, x.k, x.v);
      for (index_t b = 0; b < batch; ++b) {
        const auto alone = attend(x.q.slice(0, b, 1), x.k.slice(0, b, 1), x.v.slice(0, b, 1));
        cases::expect_same_bits<float, 4>(together.slice(0, b, 1), alone, "element " + std::to_string(b));
      }
      cases::operands<> poisoned = x;  // neighbours that hold NaN
      for (index_t i = 0; i < poisoned.k.size(); ++i)
        if (i / (poisoned.k.size() / batch) != 1) poisoned.k.data()[i] = std::numeric_limits<float>::quiet_NaN();
      const auto beside = attend(poisoned.q, poisoned.k, poisoned.v);
      cases::expect_same_bits<float, 4>(beside.slice(0, 1, 1), together.slice(0, 1, 1), "beside NaN");
    }
  }
}

TEST(attention_bits, any_strides) {
  const auto layouts = reference::layouts<4>();
  for (const cases::shape& size : {cases::shape{2, 4, 2, 37, 300, 20, 12}, cases::shape{2, 6, 3, 1, 300, 64, 65}}) {
    const cases::operands<> x(size, 3);
    const auto packed = attend(x.q, x.k, x.v);
    for (std::size_t n = 0; n < layouts.size(); ++n) {
      for (std::size_t shift = 0; shift < layouts.size(); ++shift) {  // every operand in a layout of its own
        const auto of = [&](std::size_t i) { return layouts[(n + i * shift) % layouts.size()]; };
        const reference::strided<float, 4> q(x.q, of(0)), k(x.k, of(1)), v(x.v, of(2)), out(x.out, of(3));
        mix::softmax_attention(q.view(), k.view(), v.view(), out.view(), causal);
        const std::string label =
            size.text() + " " + of(0).name + ", " + of(1).name + ", " + of(2).name + ", " + of(3).name;
        cases::expect_same_bits<float, 4>(out.view(), packed, label);
        EXPECT_TRUE(out.gaps_untouched()) << label;
      }
    }
  }
}

// (B, T, H, D) and one packed buffer of q, k and v side by side, read in place.
TEST(attention_bits, packed_query_key_value_buffer) {
  const index_t B = 2, H = 4, Hk = 2, T = 45, D = 16;
  mix::tensor<float, 4> qkv({B, T, H + 2 * Hk, D});
  cases::random_numbers random(4);
  cases::fill_random(qkv.view(), random);
  const auto by_head = qkv.view().permuted({0, 2, 1, 3});
  const auto q = by_head.slice(1, 0, H), k = by_head.slice(1, H, Hk), v = by_head.slice(1, H + Hk, Hk);
  const auto q2 = reference::packed_copy<float, 4>(q), k2 = reference::packed_copy<float, 4>(k),
             v2 = reference::packed_copy<float, 4>(v);
  mix::tensor<float, 4> out({B, T, H, D}), expected({B, H, T, D});
  mix::softmax_attention(q, k, v, out.view().permuted({0, 2, 1, 3}), causal);
  mix::softmax_attention(q2, k2, v2, expected, causal);
  cases::expect_same_bits<float, 4>(out.view().permuted({0, 2, 1, 3}), expected, "packed qkv");
}

// A stride of zero repeats keys and values over the batch, or over heads.
TEST(attention_bits, broadcast_keys) {
  const cases::operands<> x({3, 4, 2, 20, 40, 8, 8}, 5);
  auto repeat = [](const mix::tensor<float, 4>& from, std::size_t axis) {
    auto strides = from.strides();
    strides[axis] = 0;
    return mix::tensor_view<const float, 4>(from.data(), from.shape(), strides);
  };
  for (const std::size_t axis : std::array<std::size_t, 3>{0, 1, 2}) {
    const auto k = repeat(x.k, axis), v = repeat(x.v, axis);
    const auto k2 = reference::packed_copy<float, 4>(k), v2 = reference::packed_copy<float, 4>(v);
    cases::expect_same_bits<float, 4>(attend(x.q, k, v), attend(x.q, k2, v2), "axis " + std::to_string(axis));
  }
}

TEST(attention_bits, groups_of_heads_are_repeated_heads) {
  for (index_t group : {1, 2, 3, 5, 7, 24, 48}) {
    for (index_t kv_heads : {1, 2, 3}) {
      for (index_t t : {1, 2, 3, 33}) {
        if (cases::reduced_sweep && (group > 7 || kv_heads == 2)) continue;
        const cases::operands<> x({1, group * kv_heads, kv_heads, t, 270, 16, 8},
                                  static_cast<std::uint64_t>(group * 100 + t));
        mix::tensor<float, 4> k({1, group * kv_heads, 270, 16}), v({1, group * kv_heads, 270, 8});
        for (index_t h = 0; h < group * kv_heads; ++h)
          for (index_t s = 0; s < 270; ++s) {
            for (index_t i = 0; i < 16; ++i) k(0, h, s, i) = x.k(0, h / group, s, i);
            for (index_t i = 0; i < 8; ++i) v(0, h, s, i) = x.v(0, h / group, s, i);
          }
        cases::expect_same_bits<float, 4>(attend(x.q, x.k, x.v), attend(x.q, k, v), x.size.text());
        // One head alone gives what it gives among others.
        for (index_t h = 0; h < group * kv_heads; h += group) {
          cases::expect_same_bits<float, 4>(
              attend(x.q, x.k, x.v).slice(1, h, 1),
              attend(x.q.slice(1, h, 1), x.k.slice(1, h / group, 1), x.v.slice(1, h / group, 1)),
              x.size.text() + " alone");
        }
      }
    }
  }
}

// Each key head is filled with its own constant, so a wrong map of heads is a wrong integer.
TEST(attention_bits, each_query_head_reads_its_own_key_head) {
  cases::operands<> x({1, 21, 7, 5, 20, 8, 3}, 6);
  for (index_t h = 0; h < 7; ++h)
    for (index_t s = 0; s < 20; ++s)
      for (index_t i = 0; i < 3; ++i) x.v(0, h, s, i) = static_cast<float>(h + 1);
  const auto out = attend(x.q, x.k, x.v);
  for (index_t h = 0; h < 21; ++h)
    for (index_t t = 0; t < 5; ++t)
      for (index_t i = 0; i < 3; ++i) EXPECT_NEAR(out(0, h, t, i), static_cast<float>(h / 3 + 1), 1e-5f) << h;
}

}  // namespace
