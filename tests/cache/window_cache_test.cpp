// SPDX-License-Identifier: Apache-2.0
// The cache of a sliding window: bounded memory, and the bits of sliding_window_attention over all tokens.
//
// Budget: none. memcmp.
#include <mixers/softmax/softmax_cases.hpp>
#include <tokenmix/window.hpp>

namespace {

using cases::index_t;
using room = mix::window_cache_options;

/// The window over views of all tokens.
template <class Q, class E>
mix::tensor<float, 4> over_views(const mix::tensor_view<const Q, 4>& q, const mix::tensor_view<const E, 4>& k,
                                 const mix::tensor_view<const E, 4>& v, const room& r) {
  mix::tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  mix::sliding_window_attention(q, k, v, out.view(),
                                mix::sliding_window_options<>{.left = r.left, .first_keys = r.first_keys});
  return out;
}

TEST(window_cache, prompts_and_decode_steps_have_the_bits_of_attention_over_all_tokens) {
  const index_t n = cases::reduced_sweep ? 330 : 700;
  const cases::operands<> x({2, 6, 2, n, n, 16, 8}, 2);
  for (const room& r : {room{.left = 49, .first_keys = 0, .new_tokens = 1},
                        {.left = 100, .first_keys = 4, .new_tokens = 33},
                        {.left = 0, .first_keys = 70, .new_tokens = 5},
                        {.left = 300, .first_keys = 1, .new_tokens = 64}}) {
    const auto whole = over_views<float, float>(x.q, x.k, x.v, r);
    mix::window_cache<float> cache(2, 2, r, 16, 8);
    EXPECT_EQ(cache.bytes(), 2 * 2 * (r.first_keys + r.left + r.new_tokens) * (16 + 8) * 4);
    cases::delayed_threads on(3);
    index_t done = 0;
    for (index_t count : std::vector<index_t>{100, 1, 1, 30, 2, 1, n - 140, 1, 1, 1, 1, 1}) {
      mix::tensor<float, 4> out({2, 6, count, 8}), threaded({2, 6, count, 8});
      mix::sliding_window_attention(x.q.slice(2, done, count), x.k.slice(2, done, count), x.v.slice(2, done, count),
                                    cache, out.view());
      const std::string label = "left " + std::to_string(r.left) + ", tokens from " + std::to_string(done);
      cases::expect_same_bits<float, 4>(out, whole.slice(2, done, count), label);
      if (count <= r.new_tokens) {
        mix::sliding_window_attention(x.q.slice(2, done, count), cache, threaded.view(), {}, on);
        cases::expect_same_bits<float, 4>(threaded, out, label + " on threads");
      }
      done += count;
    }
    EXPECT_EQ(done, n);
    EXPECT_EQ(cache.length(1), n);
  }
}

// More tokens at once than there is room for: those stay that a next token sees.
TEST(window_cache, a_prompt_that_was_attended_elsewhere) {
  const room r{.left = 20, .first_keys = 3, .new_tokens = 2};
  const cases::operands<> x({1, 2, 2, 200, 200, 16, 8}, 3);
  const auto whole = over_views<float, float>(x.q, x.k, x.v, r);
  mix::window_cache<float> cache(1, 2, r, 16, 8);
  cache.append(x.k.slice(2, 0, 150), x.v.slice(2, 0, 150));
  EXPECT_EQ(cache.held_from(0), 128);
  for (index_t t = 150; t < 200; ++t) {
    cache.append(x.k.slice(2, t, 1), x.v.slice(2, t, 1));
    mix::tensor<float, 4> out({1, 2, 1, 8});
    mix::sliding_window_attention(x.q.slice(2, t, 1), cache, out.view());
    cases::expect_same_bits<float, 4>(out, whole.slice(2, t, 1), "token " + std::to_string(t));
  }
}

TEST(window_cache, sequences_grow_at_different_rates_and_take_tokens_back) {
  const room r{.left = 7, .first_keys = 2, .new_tokens = 4};
  const cases::operands<> x({2, 2, 1, 60, 60, 16, 8}, 4), draft({2, 2, 1, 3, 3, 16, 8}, 5);
  mix::window_cache<float> cache(2, 1, r, 16, 8);
  const std::vector<index_t> counts{50, 3};
  cache.append(x.k.slice(2, 0, 50), x.v.slice(2, 0, 50), counts);
  cache.append(draft.k.view(), draft.v.view());
  cache.truncate(0, 50);
  cache.truncate(1, 3);
  for (index_t b = 0; b < 2; ++b) {
    const index_t past = counts[static_cast<std::size_t>(b)];
    EXPECT_EQ(cache.length(b), past);
  }
  mix::tensor<float, 4> k({2, 1, 1, 16}), v({2, 1, 1, 8}), q({2, 2, 1, 16}), out({2, 2, 1, 8});
  for (index_t b = 0; b < 2; ++b) {
    const index_t t = counts[static_cast<std::size_t>(b)];
    for (index_t i = 0; i < 16; ++i) k(b, 0, 0, i) = x.k(b, 0, t, i);
    for (index_t i = 0; i < 8; ++i) v(b, 0, 0, i) = x.v(b, 0, t, i);
    for (index_t h = 0; h < 2; ++h)
      for (index_t i = 0; i < 16; ++i) q(b, h, 0, i) = x.q(b, h, t, i);
  }
  mix::sliding_window_attention(q, k, v, cache, out.view());
  const auto whole = over_views<float, float>(x.q, x.k, x.v, r);
  for (index_t b = 0; b < 2; ++b) {
    const index_t t = counts[static_cast<std::size_t>(b)];
    cases::expect_same_bits<float, 4>(out.slice(0, b, 1), whole.slice(0, b, 1).slice(2, t, 1),
                                      "sequence " + std::to_string(b));
  }
  cases::expect_refused([&] { cache.truncate(0, 46); },
                        "length is 46: the cache holds what sequence 0 sees from position 49 on");
  cases::expect_refused([&] { cache.truncate(1, 9); }, "length is 9: sequence 1 has 4 tokens");
  cases::expect_refused([&] { cache.truncate(2, 0); }, "batch is 2");
  cache.truncate(1, 0);
  cache.clear();
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(cache.held_from(0), 0);
}

TEST(window_cache, storage_types_round_when_stored) {
  const room r{.left = 30, .first_keys = 1, .new_tokens = 16};
  const cases::operands<> x({1, 4, 2, 90, 90, 16, 8}, 6);
  mix::tensor<mix::bfloat16, 4> k(x.k.shape()), v(x.v.shape());
  for (index_t i = 0; i < k.size(); ++i) k.data()[i] = mix::bfloat16(x.k.data()[i]);
  for (index_t i = 0; i < v.size(); ++i) v.data()[i] = mix::bfloat16(x.v.data()[i]);
  mix::window_cache<mix::bfloat16> cache(1, 2, r, 16, 8);
  mix::tensor<float, 4> out(x.out.shape());
  mix::sliding_window_attention(x.q.view(), x.k.view(), x.v.view(), cache, out.view());
  cases::expect_same_bits<float, 4>(out, over_views<float, mix::bfloat16>(x.q, k, v, r), "bfloat16");
}

// What stands in the ring beside what a query sees must not be seen.
TEST(window_cache, overwritten_and_rejected_tokens_are_forgotten) {
  const room r{.left = 5, .first_keys = 0, .new_tokens = 3};
  cases::operands<> x({1, 2, 2, 40, 40, 16, 8}, 7);
  const auto whole = over_views<float, float>(x.q, x.k, x.v, r);
  for (index_t t = 0; t < 20; ++t) {
    for (index_t h = 0; h < 2; ++h) x.k(0, h, t, 0) = x.v(0, h, t, 0) = std::numeric_limits<float>::quiet_NaN();
  }
  mix::window_cache<float> cache(1, 2, r, 16, 8);
  cache.append(x.k.slice(2, 0, 25), x.v.slice(2, 0, 25));
  cache.append(x.k.slice(2, 0, 2), x.v.slice(2, 0, 2));
  cache.truncate(0, 25);
  mix::tensor<float, 4> out({1, 2, 15, 8});
  mix::sliding_window_attention(x.q.slice(2, 25, 15), x.k.slice(2, 25, 15), x.v.slice(2, 25, 15), cache, out.view());
  cases::expect_same_bits<float, 4>(out, whole.slice(2, 25, 15), "after NaN");
}

TEST(window_cache, errors_name_what_is_wrong) {
  const cases::operands<> x({1, 2, 2, 30, 30, 16, 8}, 8);
  mix::window_cache<float> cache(1, 2, {.left = 4, .first_keys = 1, .new_tokens = 2}, 16, 8);
  cases::expect_refused([&] { mix::window_cache<float>(1, 1, {.left = -1}, 4, 4); }, "left is -1");
  cases::expect_refused([&] { mix::window_cache<float>(1, 1, {.first_keys = -1}, 4, 4); }, "first_keys is -1");
  cases::expect_refused([&] { mix::window_cache<float>(1, 1, {.new_tokens = 0}, 4, 4); }, "new_tokens is 0");
  cases::expect_refused([&] { cache.append(x.v.view(), x.v.view()); }, "k is (1, 2, 30, 8)");
  mix::tensor<float, 4> out({1, 2, 3, 8});
  cache.append(x.k.view(), x.v.view());
  const auto attend = [&](index_t T, const mix::sliding_window_options<>& options) {
    mix::sliding_window_attention(x.q.slice(2, 0, T), cache, out.slice(2, 0, T), options);
  };
  attend(2, {.left = 4, .first_keys = 1});
  cases::expect_refused([&] { attend(3, {}); },
                        "sequence 0: query 0 of 3 sees key 23, the cache holds those from 24 on: attend after every 2");
  const char* const other = "options name another window than the cache's: left 4, first_keys 1";
  cases::expect_refused([&] { attend(1, {.left = 5}); }, other);
  cases::expect_refused([&] { attend(1, {.right = 1}); }, other);
  cases::expect_refused([&] { attend(1, {.dilation = 2}); }, other);
  cases::expect_refused([&] { attend(1, {.first_keys = 2}); }, other);
}

}  // namespace
