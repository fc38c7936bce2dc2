// SPDX-License-Identifier: Apache-2.0
// The contiguous KV cache: what is appended is what is stored, and attention over it has the bits of attention over views.
//
// Budget: none. memcmp; rounding to storage types is the types' own.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

/// Causal attention over the last T of n tokens in plain views.
template <class Q, class E>
mix::tensor<float, 4> over_views(const mix::tensor_view<const Q, 4>& q, const mix::tensor_view<const E, 4>& k,
                                 const mix::tensor_view<const E, 4>& v) {
  mix::tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  mix::softmax_attention(q, k, v, out, mix::softmax_options{.mask = mix::causal{}});
  return out;
}

TEST(kv_cache, holds_what_was_appended) {
  mix::kv_cache<float> cache(2, 3, 20, 5, 4);
  EXPECT_EQ(cache.capacity(), 20);
  EXPECT_EQ(cache.bytes(), 2 * 3 * 20 * (5 + 4) * 4);
  EXPECT_EQ(cache.length(0), 0);
  const cases::operands<> x({2, 3, 3, 1, 20, 5, 4}, 1);
  index_t first = 0;
  for (index_t count : {1, 0, 7, 2, 10}) {
    cache.append(x.k.slice(2, first, count), x.v.slice(2, first, count));
    first += count;
    for (index_t b = 0; b < 2; ++b) EXPECT_EQ(cache.length(b), first);
    cases::expect_same_bits<float, 4>(cache.keys().slice(2, 0, first), x.k.slice(2, 0, first), "keys");
    cases::expect_same_bits<float, 4>(cache.values().slice(2, 0, first), x.v.slice(2, 0, first), "values");
  }
}

TEST(kv_cache, prefill_and_decode_have_the_bits_of_one_call) {
  const index_t n = cases::reduced_sweep ? 300 : 600;
  const cases::shape size{2, 6, 2, n, n, 16, 8};
  const cases::operands<> x(size, 2);
  const auto whole = over_views<float, float>(x.q, x.k, x.v);
  mix::kv_cache<float> cache(2, 2, n, 16, 8);
  cases::delayed_threads on(3);
  index_t done = 0;
  for (index_t count : {100, 1, 1, 1, 30, 2, 1, 1, 120}) {
    cache.append(x.k.slice(2, done, count), x.v.slice(2, done, count));
    mix::tensor<float, 4> out({2, 6, count, 8}), threaded({2, 6, count, 8});
    const auto options = mix::softmax_options{.mask = mix::causal{}};
    mix::softmax_attention(x.q.slice(2, done, count), cache, out, options);
    mix::softmax_attention(x.q.slice(2, done, count), cache, threaded, options, on);
    cases::expect_same_bits<float, 4>(out, whole.slice(2, done, count), "tokens from " + std::to_string(done));
    cases::expect_same_bits<float, 4>(threaded, whole.slice(2, done, count),
                                      "on threads, tokens from " + std::to_string(done));
    done += count;
  }
  for (; done < n; ++done) {
    cache.append(x.k.slice(2, done, 1), x.v.slice(2, done, 1));
    mix::tensor<float, 4> out({2, 6, 1, 8});
    mix::softmax_attention(x.q.slice(2, done, 1), cache, out);
    cases::expect_same_bits<float, 4>(out, whole.slice(2, done, 1), "token " + std::to_string(done));
  }
}

TEST(kv_cache, sequences_grow_at_different_rates) {
  const cases::operands<> x({3, 4, 2, 10, 200, 16, 8}, 3);
  mix::kv_cache<float> cache(3, 2, 200, 16, 8);
  const std::vector<index_t> first{100, 3, 0}, then{10, 10, 10};
  cache.append(x.k.slice(2, 0, 100), x.v.slice(2, 0, 100), first);
  cache.append(x.k.slice(2, 100, 10), x.v.slice(2, 100, 10), then);
  EXPECT_EQ(cache.length(0), 110);
  EXPECT_EQ(cache.length(1), 13);
  EXPECT_EQ(cache.length(2), 10);
  mix::tensor<float, 4> out({3, 4, 10, 8});
  mix::softmax_attention(x.q, cache, out, mix::softmax_options{.mask = mix::causal{}});
  for (index_t b = 0; b < 3; ++b) {
    const index_t past = first[static_cast<std::size_t>(b)];
    mix::tensor<float, 4> k({1, 2, past + 10, 16}), v({1, 2, past + 10, 8});
    for (index_t h = 0; h < 2; ++h)
      for (index_t s = 0; s < past + 10; ++s) {
        const index_t from = s < past ? s : 100 + s - past;
        for (index_t i = 0; i < 16; ++i) k(0, h, s, i) = x.k(b, h, from, i);
        for (index_t i = 0; i < 8; ++i) v(0, h, s, i) = x.v(b, h, from, i);
      }
    cases::expect_same_bits<float, 4>(out.slice(0, b, 1), over_views<float, float>(x.q.slice(0, b, 1), k, v),
                                      "sequence " + std::to_string(b));
  }
}

// What a cache held before it was truncated or cleared must not be seen.
TEST(kv_cache, truncated_and_cleared_tokens_are_forgotten) {
  cases::operands<> x({2, 2, 2, 4, 80, 16, 8}, 4), rejected({2, 2, 2, 4, 80, 16, 8}, 5);
  for (float& y : rejected.k) y = std::numeric_limits<float>::quiet_NaN();
  for (float& y : rejected.v) y = std::numeric_limits<float>::infinity();
  mix::kv_cache<float> cache(2, 2, 80, 16, 8);
  cache.append(rejected.k.view(), rejected.v.view());
  cache.clear();
  EXPECT_EQ(cache.length(1), 0);
  cache.append(x.k.slice(2, 0, 30), x.v.slice(2, 0, 30));
  cache.append(rejected.k.slice(2, 0, 50), rejected.v.slice(2, 0, 50));
  cache.truncate(0, 30);
  cache.truncate(1, 30);
  cache.append(x.k.slice(2, 30, 4), x.v.slice(2, 30, 4));
  mix::tensor<float, 4> out({2, 2, 4, 8});
  mix::softmax_attention(x.q, cache, out, mix::softmax_options{.mask = mix::causal{}});
  cases::expect_same_bits<float, 4>(out, over_views<float, float>(x.q, x.k.slice(2, 0, 34), x.v.slice(2, 0, 34)),
                                    "after a rejected draft");
  EXPECT_EQ(cache.length(0), 34);
}

TEST(kv_cache, storage_types_round_when_stored) {
  const cases::operands<> x({1, 4, 2, 3, 70, 16, 8}, 6);
  mix::kv_cache<mix::bfloat16> cache(1, 2, 70, 16, 8);
  cache.append(x.k.view(), x.v.view());
  mix::tensor<mix::bfloat16, 4> k(x.k.shape()), v(x.v.shape());
  for (index_t i = 0; i < k.size(); ++i) k.data()[i] = mix::bfloat16(x.k.data()[i]);
  for (index_t i = 0; i < v.size(); ++i) v.data()[i] = mix::bfloat16(x.v.data()[i]);
  cases::expect_same_bits<mix::bfloat16, 4>(cache.keys(), k, "keys");
  cases::expect_same_bits<mix::bfloat16, 4>(cache.values(), v, "values");
  mix::tensor<float, 4> out({1, 4, 3, 8});
  mix::softmax_attention(x.q, cache, out, mix::softmax_options{.mask = mix::causal{}});
  cases::expect_same_bits<float, 4>(out, over_views<float, mix::bfloat16>(x.q, k, v), "attention");
}

TEST(kv_cache, errors_name_what_is_wrong_and_write_nothing) {
  const cases::operands<> x({2, 2, 2, 1, 10, 16, 8}, 7);
  mix::kv_cache<float> cache(2, 2, 8, 16, 8);
  const auto expect_error = [&](auto&& call, const std::vector<std::string>& parts) {
    try {
      call();
      ADD_FAILURE() << "no error";
    } catch (const std::invalid_argument& e) {
      for (const std::string& part : parts) EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
    EXPECT_EQ(cache.length(0), 6);
    EXPECT_EQ(cache.length(1), 6);
  };
  cache.append(x.k.slice(2, 0, 6), x.v.slice(2, 0, 6));
  const mix::tensor<float, 4> before = [&] {
    mix::tensor<float, 4> copy({2, 2, 8, 16});
    for (index_t i = 0; i < copy.size(); ++i) copy.data()[i] = cache.keys().data()[i];
    return copy;
  }();
  expect_error([&] { cache.append(x.k.slice(2, 0, 3), x.v.slice(2, 0, 3)); }, {"room", "8", "6", "3"});
  expect_error([&] { cache.append(x.k.slice(2, 0, 2), x.v.slice(2, 0, 1)); }, {"v", "(2, 2, 1, 8)"});
  expect_error([&] { cache.append(x.k.slice(1, 0, 1).slice(2, 0, 1), x.v.slice(2, 0, 1)); }, {"k", "(2, 1, 1, 16)"});
  expect_error([&] { cache.append(x.v.slice(2, 0, 1), x.v.slice(2, 0, 1)); }, {"k", "(2, 2, 1, 8)"});
  const std::vector<index_t> three{1, 1, 1}, negative{1, -1}, many{3, 1};
  expect_error([&] { cache.append(x.k.slice(2, 0, 1), x.v.slice(2, 0, 1), three); }, {"counts", "3", "2"});
  expect_error([&] { cache.append(x.k.slice(2, 0, 1), x.v.slice(2, 0, 1), negative); }, {"counts[1]", "-1"});
  expect_error([&] { cache.append(x.k.slice(2, 0, 1), x.v.slice(2, 0, 1), many); }, {"counts[0]", "3"});
  expect_error([&] { cache.truncate(0, 7); }, {"length", "7", "6"});
  expect_error([&] { cache.truncate(0, -1); }, {"length", "-1"});
  expect_error([&] { cache.truncate(2, 0); }, {"batch", "2"});
  expect_error([&] { cache.truncate(-1, 0); }, {"batch", "-1"});
  cases::expect_same_bits<float, 4>(cache.keys(), before, "the cache after errors");
}

TEST(kv_cache, allocates_once) {
  mix::kv_cache<float> cache(1, 2, 50, 16, 8);
  const float* keys = cache.keys().data();
  const cases::operands<> x({1, 2, 2, 1, 50, 16, 8}, 8);
  for (index_t t = 0; t < 50; ++t) cache.append(x.k.slice(2, t, 1), x.v.slice(2, t, 1));
  EXPECT_EQ(cache.keys().data(), keys);
}

}  // namespace
