// SPDX-License-Identifier: Apache-2.0
// Forgetting attention over a cache: gates summed as they come have the bits of gates summed at once.
//
// Budget: none. memcmp.
#include <tokenmix/cache/forget_gate_cache.hpp>
#include <tokenmix/primitives/mask/window.hpp>

#include <bench/support/allocations.hpp>
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// Log gates with resets, some at the borders of blocks of 64.
mix::tensor<float, 3> gates_of(index_t batches, index_t heads, index_t tokens, std::uint64_t seed) {
  mix::tensor<float, 3> gates({batches, heads, tokens});
  cases::random_numbers random(seed);
  for (float& g : gates) g = random.chance(0.01) ? minus_infinity : static_cast<float>(-0.05 * random.unit());
  for (const index_t t : {63, 64, 127, 192}) {
    if (t < tokens) gates(0, 0, t) = minus_infinity;
  }
  return gates;
}

/// All queries over views of everything.
template <class Mask>
mix::tensor<float, 4> over_views(const cases::operands<>& x, const mix::tensor<float, 3>& gates, const Mask& mask) {
  mix::tensor<float, 4> out({x.out.extent(0), x.out.extent(1), x.out.extent(2), x.out.extent(3)});
  mix::forgetting_attention(mix::forgetting_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = gates}, out,
                            mix::forgetting_options{.mask = mask});
  return out;
}

TEST(forget_gate_cache, prefill_and_decode_have_the_bits_of_one_call) {
  const index_t n = 420;
  const cases::operands<> x({2, 4, 2, n, n, 16, 8}, 2);
  const auto gates = gates_of(2, 2, n, 3);
  const mix::window near{.left = 100};
  const auto whole = over_views(x, gates, mix::all_keys{}), windowed = over_views(x, gates, near);
  mix::kv_cache<float> cache(2, 2, n + 7, 16, 8);
  mix::forget_gate_cache<float> sums(2, 2, n + 7);
  cases::delayed_threads on(3);
  index_t done = 0;
  const auto step = [&](index_t count) {
    cache.append(x.k.slice(2, done, count), x.v.slice(2, done, count));
    sums.append(gates.slice(2, done, count));
    mix::tensor<float, 4> out({2, 4, count, 8}), other = out;
    mix::forgetting_attention(x.q.slice(2, done, count), cache, sums, out);
    mix::forgetting_attention(x.q.slice(2, done, count), cache, sums, other, mix::forgetting_options{.mask = near}, on);
    cases::expect_same_bits<float, 4>(out, whole.slice(2, done, count), "from " + std::to_string(done));
    cases::expect_same_bits<float, 4>(other, windowed.slice(2, done, count), "window, from " + std::to_string(done));
    done += count;
  };
  for (const index_t count : {30, 1, 33, 64, 0, 2, 130}) step(count);
  while (done < n) step(1);
}

TEST(forget_gate_cache, sequences_grow_shrink_and_are_forgotten) {
  const index_t n = 200;
  const cases::operands<> x({2, 2, 2, n, n, 16, 8}, 4);
  auto raw = gates_of(2, 1, n, 5);
  for (float& g : raw) g = g == minus_infinity ? g : g * 40 + 3;
  mix::kv_cache<float> cache(2, 2, n, 16, 8);
  mix::forget_gate_cache<float> sums(2, 1, n);
  const auto append = [&](index_t first, index_t count, std::span<const index_t> counts) {
    cache.append(x.k.slice(2, first, count), x.v.slice(2, first, count), counts);
    sums.append(raw.slice(2, first, count), mix::log_sigmoid_gate{}, counts);
  };
  // A rejected draft that ends in another block than it began in, of NaN and resets.
  mix::tensor<float, 3> draft({2, 1, 80}, std::nanf(""));
  draft(0, 0, 3) = minus_infinity;
  append(0, 50, {});
  cache.append(x.k.slice(2, 0, 80), x.v.slice(2, 0, 80));
  sums.append(draft.view());
  for (index_t b = 0; b < 2; ++b) cache.truncate(b, 50), sums.truncate(b, 50);
  EXPECT_EQ(sums.length(1), 50);
  const std::vector<index_t> counts{90, 7};
  append(50, 90, counts);
  for (index_t b = 0; b < 2; ++b) {
    const index_t length = 50 + counts[static_cast<std::size_t>(b)];
    mix::tensor<float, 4> out({2, 2, 1, 8}), want({1, 2, 1, 8});
    mix::tensor<float, 4> q({2, 2, 1, 16});
    for (index_t i = 0; i < 2; ++i) {
      for (index_t h = 0; h < 2; ++h) std::copy_n(x.q.row(i, h, length - 1), 16, q.row(i, h, 0));
    }
    mix::forgetting_attention(q, cache, sums, out);
    mix::forgetting_attention(mix::forgetting_inputs{.q = q.slice(0, b, 1),
                                                     .k = x.k.slice(0, b, 1).slice(2, 0, length),
                                                     .v = x.v.slice(0, b, 1).slice(2, 0, length),
                                                     .log_decay = raw.slice(0, b, 1).slice(2, 0, length)},
                              want, mix::forgetting_options{.gate = mix::log_sigmoid_gate{}});
    cases::expect_same_bits<float, 4>(out.slice(0, b, 1), want, "sequence " + std::to_string(b));
  }
  sums.clear();
  EXPECT_EQ(sums.length(0), 0);
}

TEST(forget_gate_cache, a_step_allocates_nothing) {
  const index_t n = 300;
  const cases::operands<> x({1, 4, 2, n, n, 16, 8}, 6);
  const auto gates = gates_of(1, 4, n, 7);
  mix::kv_cache<float> cache(1, 2, n, 16, 8);
  mix::forget_gate_cache<float> sums(1, 4, n);
  mix::tensor<float, 4> out({1, 4, 1, 8});
  const auto run = [&] {
    cache.clear(), sums.clear();
    for (index_t t = 0; t < n; ++t) {
      cache.append(x.k.slice(2, t, 1), x.v.slice(2, t, 1));
      sums.append(gates.slice(2, t, 1));
      mix::forgetting_attention(x.q.slice(2, t, 1), cache, sums, out);
    }
  };
  run();
  const bench::allocation_watch watch;
  run();
  EXPECT_EQ(watch.calls(), 0u);
}

template <class Error, class Call>
void expect_error(const Call& call, const std::string& message) {
  try {
    call();
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()), message);
  }
}

TEST(forget_gate_cache, errors) {
  const cases::operands<> x({2, 4, 2, 1, 5, 16, 8}, 8);
  mix::kv_cache<float> cache(2, 2, 10, 16, 8);
  mix::forget_gate_cache<float> sums(2, 4, 10);
  EXPECT_EQ(sums.capacity(), 10);
  EXPECT_GT(sums.bytes(), 0);
  const mix::tensor<float, 3> gates({2, 4, 5}), other({2, 3, 5}), many({2, 4, 11});
  mix::tensor<float, 4> out({2, 4, 1, 8});
  expect_error<mix::shape_error>([&] { sums.append(other.view()); },
                                 "log_decay is (2, 3, 5), expected (B, Hg, T) of the cache = (2, 4, 5)");
  expect_error<mix::value_error>([&] { sums.append(many.view()); },
                                 "the cache has room for 10 tokens, sequence 0 has 0 and gets 11 more");
  const std::vector<index_t> counts{1, 6};
  expect_error<mix::value_error>([&] { sums.append(gates.view(), mix::given_log_decay{}, counts); },
                                 "counts[1] is 6: log_decay has 5 tokens");
  EXPECT_EQ(sums.length(0), 0);
  cache.append(x.k.view(), x.v.view());
  expect_error<mix::value_error>([&] { mix::forgetting_attention(x.q.view(), cache, sums, out.view()); },
                                 "gates: sequence 0 has 0 tokens, the cache has 5: append both");
  sums.append(gates.view());
  expect_error<mix::value_error>([&] { sums.truncate(1, 6); }, "length is 6: sequence 1 has 5 tokens");
  mix::forget_gate_cache<float> three(2, 3, 10), one(1, 4, 10);
  three.append(other.view());
  expect_error<mix::shape_error>(
      [&] { mix::forgetting_attention(x.q.view(), cache, three, out.view()); },
      "gates has 3 heads, q has 4: the number of query heads must be a multiple of the number of gate heads");
  expect_error<mix::shape_error>([&] { mix::forgetting_attention(x.q.view(), cache, one, out.view()); },
                                 "gates has 1 sequences, cache has 2: they must be equal");
}

}  // namespace
