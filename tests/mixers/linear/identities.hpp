// SPDX-License-Identifier: Apache-2.0
/// @file The identities that every recurrent mixer has: step by step = chunked = split = whole = packed = flipped, whoever runs it.
#pragma once

#include <mixers/linear/linear_cases.hpp>

#include <reference/guarded.hpp>
#include <reference/strided.hpp>

namespace cases {

/// Tokens that go through the state together: part of the promise about calls that are cut.
inline constexpr index_t chunk_tokens = 16;

/// A view whose tokens come in the opposite order.
template <class E>
mix::tensor_view<E, 4> flipped(const mix::tensor_view<E, 4>& x) {
  auto strides = x.strides();
  E* data = const_cast<E*>(x.data());
  if (x.extent(2) > 0) data += (x.extent(2) - 1) * strides[2];
  strides[2] = -strides[2];
  return {data, x.shape(), strides};
}

template <class E>
linear_call<E> flipped(linear_call<E> c) {
  for (auto* x : {&c.q, &c.k, &c.v, &c.a, &c.b}) *x = flipped(*x);
  for (auto* x : {&c.log_decay, &c.beta}) *x = flipped(*x);
  c.out = flipped(c.out);
  return c;
}

template <class E>
void expect_same_results(const linear_operands<E>& got, const linear_operands<E>& want, const std::string& label) {
  expect_same_bits<E, 4>(got.out, want.out, label + ": out");
  expect_same_bits<typename linear_operands<E>::T, 4>(got.final_state, want.final_state, label + ": final state");
}

/// A call cut at these tokens, the state handed on in place.
template <class E, class Mixer>
void run_parts(const Mixer& mixer, linear_operands<E>& x, const std::vector<index_t>& ends) {
  x.forget_results();
  linear_call<E> c = x.call();
  index_t first = 0;
  for (index_t end : ends) {
    mixer(c.part(first, end - first));
    first = end;
    c.initial_state = x.final_state;
    c.initial_sum = x.final_sum;
  }
}

template <class E, class Mixer>
void expect_oracle(const Mixer& mixer, const linear_shape& s, std::uint64_t seed, double log_decay = -0.3,
                   gate_record* record = nullptr) {
  linear_operands<E> x(mixer, s, seed, log_decay);
  mixer(x.call());
  expect_within_gate<E>(mixer, x, expected_of<E>(mixer, x), s.text() + " seed " + std::to_string(seed), 1, record);
}

/// Step by step, split anywhere: within the gate; split at multiples of a chunk: the same bits.
template <class E, class Mixer>
void expect_split(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  linear_operands<E> whole(mixer, s, seed);
  mixer(whole.call());
  linear_operands<E> x = whole;
  const auto expected = expected_of<E>(mixer, x);
  std::vector<index_t> steps, chunks, anywhere{s.tokens / 3, s.tokens / 3, s.tokens * 3 / 4, s.tokens};
  for (index_t t = 1; t <= s.tokens; ++t) steps.push_back(t);
  for (index_t t = chunk_tokens; t < s.tokens; t += chunk_tokens * (1 + t % 3)) chunks.push_back(t);
  chunks.push_back(s.tokens);
  run_parts(mixer, x, steps);
  expect_within_gate<E>(mixer, x, expected, s.text() + " step by step");
  run_parts(mixer, x, anywhere);
  expect_within_gate<E>(mixer, x, expected, s.text() + " split anywhere");
  run_parts(mixer, x, chunks);
  expect_same_results(x, whole, s.text() + " split at chunks");
}

template <class E, class Mixer>
void expect_reverse_is_flipped(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  linear_operands<E> x(mixer, s, seed), y = x;
  linear_call<E> c = x.call();
  c.order = mix::order::reverse;
  mixer(c);
  expect_within_gate<E>(mixer, x, expected_of<E>(mixer, x, mix::order::reverse), s.text() + " reversed");
  mixer(flipped(y.call()));
  expect_same_results(x, y, s.text() + " reversed");
}

/// Packed sequences, of which some are empty, are a loop over them; rows between and behind are not written.
template <class E, class Mixer>
void expect_packed_is_a_loop(const Mixer& mixer, linear_shape s, std::uint64_t seed,
                             const std::vector<std::int32_t>& offsets, mix::order order = mix::order::forward) {
  using T = mix::accumulator_t<E>;
  s.batch = 1;
  linear_operands<E> x(mixer, s, seed), y = x;
  const auto n = static_cast<index_t>(offsets.size()) - 1;
  mix::tensor<T, 4> s0({n, s.value_heads, s.width, s.value_width}), s1(s0.shape(), untouched<T>()), s2 = s1;
  mix::tensor<T, 3> z0({n, s.key_heads, s.width}), z1(z0.shape(), untouched<T>()), z2 = z1;
  random_numbers random(seed + 1);
  fill_random(s0.view(), random);
  for (T& e : z0) e = static_cast<T>(random.uniform(0.1, 2));
  linear_call<E> c = x.call();
  c.offsets = offsets;
  c.initial_state = s0;
  c.final_state = s1;
  c.initial_sum = z0;
  c.final_sum = z1;
  c.order = order;
  mixer(c);
  for (index_t i = 0; i < n; ++i) {
    const index_t first = offsets[static_cast<std::size_t>(i)];
    linear_call<E> one = y.call().part(first, offsets[static_cast<std::size_t>(i) + 1] - first);
    one.initial_state = s0.slice(0, i, 1);
    one.final_state = s2.slice(0, i, 1);
    one.initial_sum = z0.slice(0, i, 1);
    one.final_sum = z2.slice(0, i, 1);
    one.order = order;
    mixer(one);
  }
  expect_same_bits<E, 4>(x.out, y.out, s.text() + " packed");
  expect_same_bits<T, 4>(s1, s2, s.text() + " packed: final state");
  if (Mixer::sums) expect_same_bits<T, 3>(z1, z2, s.text() + " packed: final sum");
}

template <class E, class Mixer>
void expect_any_executor(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  linear_operands<E> alone(mixer, s, seed), x = alone;
  mixer(alone.call());
  for (index_t threads : {2, 3, 7, 33}) {
    if (reduced_sweep && threads > 3) continue;
    x.forget_results();
    linear_call<E> c = x.call();
    c.on = any_executor(delayed_threads(threads, seed));
    mixer(c);
    expect_same_results(x, alone, s.text() + " on " + std::to_string(threads) + " threads");
  }
  x.forget_results();
  linear_call<E> c = x.call();
  c.on = any_executor(backwards{});
  mixer(c);
  expect_same_results(x, alone, s.text() + " backwards");
}

/// Few states and many tokens: blocks of time are computed at once where there are threads for them. Packed too.
template <class E, class Mixer>
void expect_any_executor_for_long_sequences(const Mixer& mixer, std::uint64_t seed) {
  for (linear_shape s : {linear_shape{1, 1, 1, 1, 4500, 40, 24}, linear_shape{1, 2, 1, 1, 4117, 16, 48}}) {
    linear_operands<E> alone(mixer, s, seed), x = alone;
    random_numbers random(seed);
    for (auto& g : alone.log_decay)
      if (random.chance(0.002)) g = static_cast<typename linear_operands<E>::T>(random.chance(0.5) ? -infinity : -20.0);
    x.log_decay = alone.log_decay;
    mixer(alone.call());
    for (index_t threads : {5, 16}) {
      x.forget_results();
      linear_call<E> c = x.call();
      c.on = any_executor(delayed_threads(threads, seed));
      mixer(c);
      expect_same_results(x, alone, s.text() + " on " + std::to_string(threads) + " threads");
      if (Mixer::sums) expect_same_bits<typename linear_operands<E>::T, 3>(x.final_sum, alone.final_sum, s.text());
    }
    const std::vector<std::int32_t> offsets{0, 4100};
    alone.forget_results(), x.forget_results();
    linear_call<E> a = alone.call(), b = x.call();
    a.offsets = b.offsets = offsets;
    a.order = b.order = mix::order::reverse;
    b.on = any_executor(delayed_threads(7, seed));
    mixer(a);
    mixer(b);
    expect_same_results(x, alone, s.text() + " packed, reversed");
  }
}

template <class E, class Mixer>
void expect_any_strides(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  using T = mix::accumulator_t<E>;
  linear_operands<E> plain(mixer, s, seed);
  mixer(plain.call());
  const auto layouts = reference::layouts<4>();
  for (std::size_t n = 0; n < layouts.size(); ++n) {
    const auto of = [&](std::size_t i) { return layouts[(n + i) % layouts.size()]; };
    const reference::strided<E, 4> q(plain.q, of(0)), k(plain.k, of(1)), v(plain.v, of(2));
    const reference::strided<E, 4> a(plain.a, of(3)), b(plain.b, of(4));
    const reference::strided<E, 4> out(plain.out.shape(), of(3));
    const reference::strided<T, 4> log_decay(plain.log_decay, of(1)), beta(plain.beta, of(2));
    const reference::strided<T, 4> state(plain.initial_state, of(4));  // in place
    linear_call<E> c = plain.call();
    c.q = q.view(), c.k = k.view(), c.v = v.view(), c.out = out.view(), c.log_decay = log_decay.view();
    if (is_low_rank<Mixer>) c.a = a.view(), c.b = b.view();
    c.beta = beta.view(), c.initial_state = state.view(), c.final_state = state.view();
    mixer(c);
    expect_same_bits<E, 4>(out.view(), plain.out, s.text() + " " + layouts[n].name);
    expect_same_bits<T, 4>(state.view(), plain.final_state, s.text() + " state " + layouts[n].name);
    EXPECT_TRUE(out.gaps_untouched()) << layouts[n].name;
    EXPECT_TRUE(state.gaps_untouched()) << layouts[n].name;
  }
}

/// A batch element, and a value head, give among others what they give alone; NaN in neighbours changes nothing.
template <class E, class Mixer>
void expect_independent_of_neighbours(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  using T = mix::accumulator_t<E>;
  ASSERT_GE(s.batch, 2);
  linear_operands<E> together(mixer, s, seed), x = together;
  mixer(together.call());
  const auto spoil = [&](auto& tensor) {
    for (index_t i = 0; i < tensor.size() / s.batch; ++i)
      tensor.data()[i] = element_of<std::remove_cvref_t<decltype(tensor.data()[0])>>(std::nan(""));
  };
  spoil(x.q), spoil(x.k), spoil(x.v), spoil(x.a), spoil(x.b), spoil(x.log_decay), spoil(x.beta), spoil(x.initial_state);
  mixer(x.call());
  expect_same_bits<E, 4>(x.out.slice(0, 1, 1), together.out.slice(0, 1, 1), s.text() + " beside NaN");
  expect_same_bits<T, 4>(x.final_state.slice(0, 1, 1), together.final_state.slice(0, 1, 1), s.text() + " beside NaN");
  x = together;  // one value head alone
  for (index_t i = 0; i < x.v.size(); ++i)
    if (i / (s.tokens * s.value_width * steps_of<Mixer>) % s.value_heads != 0)
      x.v.data()[i] = element_of<E>(std::nan(""));
  mixer(x.call());
  const index_t readers = s.heads > s.key_heads ? s.heads / s.key_heads : 1;
  expect_same_bits<E, 4>(x.out.slice(1, 0, readers), together.out.slice(1, 0, readers), s.text() + " beside NaN heads");
}

/// NaN at one token reaches no output before it; in one value channel, no other channel.
template <class E, class Mixer>
void expect_no_way_back(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  linear_operands<E> clean(mixer, s, seed);
  mixer(clean.call());
  for (index_t t : {index_t{0}, index_t{1}, index_t{5}, index_t{15}, index_t{16}, index_t{20}, s.tokens - 1}) {
    if (t >= s.tokens) continue;
    for (int what = 0; what < 6; ++what) {
      for (double poison : {std::nan(""), infinity}) {
        linear_operands<E> x = clean;
        x.forget_results();
        const index_t channel = s.value_width / 2;
        for (index_t h = 0; h < s.value_heads; ++h) {
          if (what == 0) x.v(0, h, t, channel) = element_of<E>(poison);
          if (what == 1) x.k(0, h % s.key_heads, t, s.width / 2) = element_of<E>(poison);
          if (what == 2) x.q(0, h % s.heads, t, s.width / 2) = element_of<E>(poison);
          if (what == 4 && is_low_rank<Mixer>) x.a(0, h % s.key_heads, t, s.width / 2) = element_of<E>(poison);
          if (what == 5 && is_low_rank<Mixer>) x.b(0, h % s.key_heads, t, s.width / 2) = element_of<E>(poison);
          if (what == 3 && x.log_decay.size() > 0)
            x.log_decay(0, h, t, 0) = static_cast<typename linear_operands<E>::T>(std::nan(""));
        }
        mixer(x.call());
        const std::string label = s.text() + " poison " + std::to_string(what) + " at " + std::to_string(t);
        expect_same_bits<E, 4>(x.out.slice(2, 0, t), clean.out.slice(2, 0, t), label);
        if (what == 0) {
          expect_same_bits<E, 4>(x.out.slice(3, 0, channel), clean.out.slice(3, 0, channel), label);
          if (std::isnan(poison)) {
            for (index_t i = t; i < s.tokens; ++i)
              EXPECT_TRUE(std::isnan(reference::exact<double>(x.out(0, 0, i, channel)))) << label;
          }
        }
        if (what == 2) {
          expect_same_bits<E, 4>(x.out.slice(2, t + 1, s.tokens - t - 1), clean.out.slice(2, t + 1, s.tokens - t - 1),
                                 label);
          expect_same_bits<typename linear_operands<E>::T, 4>(x.final_state, clean.final_state, label);
        }
      }
    }
  }
}

/// All operands flush against pages that nobody may touch.
template <class E, class Mixer>
void expect_within_bounds(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  using T = mix::accumulator_t<E>;
  linear_operands<E> x(mixer, s, seed);
  mixer(x.call());
  for (const auto side : {reference::flush::end, reference::flush::start}) {
    reference::guarded_buffer<E> q(x.q.data(), x.q.size(), side), k(x.k.data(), x.k.size(), side),
        v(x.v.data(), x.v.size(), side), a(x.a.data(), x.a.size(), side), b(x.b.data(), x.b.size(), side),
        out(x.out.size(), side);
    reference::guarded_buffer<T> log_decay(x.log_decay.data(), x.log_decay.size(), side),
        beta(x.beta.data(), x.beta.size(), side), s0(x.initial_state.data(), x.initial_state.size(), side),
        s1(x.final_state.size(), side), z0(x.initial_sum.data(), x.initial_sum.size(), side),
        z1(x.final_sum.size(), side);
    linear_call<E> c = x.call();
    c.q = {q.data(), x.q.shape()}, c.k = {k.data(), x.k.shape()}, c.v = {v.data(), x.v.shape()};
    c.a = {a.data(), x.a.shape()}, c.b = {b.data(), x.b.shape()};
    c.log_decay = {log_decay.data(), x.log_decay.shape()}, c.beta = {beta.data(), x.beta.shape()};
    c.initial_state = {s0.data(), x.initial_state.shape()}, c.final_state = {s1.data(), x.final_state.shape()};
    c.initial_sum = {z0.data(), x.initial_sum.shape()}, c.final_sum = {z1.data(), x.final_sum.shape()};
    const mix::tensor_view<E, 4> result(out.data(), x.out.shape());
    c.out = result;
    mixer(c);
    expect_same_bits<E, 4>(result, x.out, s.text() + " between guard pages");
  }
}

/// A log decay of -infinity forgets a state of NaN, wherever in a chunk it stands.
template <class E, class Mixer>
void expect_reset_forgets(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  using T = mix::accumulator_t<E>;
  constexpr index_t outlives = outlives_reset<Mixer>;
  for (index_t t : {0, 1, 7, 15, 16, 17, 31}) {
    if (t + outlives >= s.tokens) continue;
    linear_operands<E> x(mixer, s, seed), y = x;
    const index_t channels = mixer.decay_channels(s);
    for (index_t b = 0; b < s.batch; ++b)
      for (index_t h = 0; h < s.value_heads; ++h)
        for (index_t c = 0; c < channels; ++c) x.log_decay(b, h, t, c) = static_cast<T>(-infinity);
    for (auto& e : x.initial_state) e = static_cast<T>(std::nan(""));
    for (index_t i = 0; i < x.v.size(); ++i)
      if (i / (s.value_width * steps_of<Mixer>) % s.tokens < t) x.v.data()[i] = element_of<E>(std::nan(""));
    mixer(x.call());
    y.log_decay = x.log_decay;
    for (auto& e : y.initial_state) e = T(0);
    for (index_t i = 0; i < y.v.size(); ++i)
      if (i / (s.value_width * steps_of<Mixer>) % s.tokens < t) y.v.data()[i] = element_of<E>(0);
    mixer(y.call());
    expect_within_gate<E>(mixer, y, expected_of<E>(mixer, y), s.text() + " reset at " + std::to_string(t));
    expect_same_bits<E, 4>(x.out.slice(2, t + outlives, s.tokens - t - outlives),
                           y.out.slice(2, t + outlives, s.tokens - t - outlives),
                           s.text() + " reset at " + std::to_string(t));
    expect_same_bits<T, 4>(x.final_state, y.final_state, s.text() + " reset at " + std::to_string(t));
  }
}

/// The decays that break factored forms, and mixtures of them, at the gate of benign ones.
template <class E, class Mixer>
void expect_decay_sweep(const Mixer& mixer, const linear_shape& size, std::uint64_t seed,
                        gate_record* record = nullptr) {
  using T = mix::accumulator_t<E>;
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -5, -20, -88, -200, -1e4, -infinity};
  std::vector<index_t> lengths{1, 8, 15, 16, 17, 31, 32, 33, 64, 100, 128};
  if (reduced_sweep) lengths = {1, 15, 17, 33};
  for (index_t tokens : lengths) {
    linear_shape s = size;
    s.tokens = tokens;
    for (std::size_t n = 0; n <= decays.size() + 2; ++n) {
      linear_operands<E> x(mixer, s, seed + n);
      random_numbers random(seed * 100 + n);
      for (T& g : x.log_decay) {
        if (n < decays.size()) {
          g = static_cast<T>(decays[n]);
        } else if (n == decays.size()) {
          g = static_cast<T>(random.one_of(decays));
        } else if (n == decays.size() + 1) {
          g = static_cast<T>(random.chance(0.1) ? random.one_of(decays) : -0.05 * random.unit());
        } else {
          g = static_cast<T>(-std::exp(random.uniform(-12, 8)));
        }
      }
      mixer(x.call());
      expect_within_gate<E>(mixer, x, expected_of<E>(mixer, x), s.text() + " decays " + std::to_string(n), 1, record);
    }
  }
}

/// Every extent may be 0; what is left is written.
template <class E, class Mixer>
void expect_empty_extents(const Mixer& mixer) {
  const linear_shape full{2, 2, 2, 2, 20, 8, 8};
  for (int axis = 0; axis < 5; ++axis) {
    linear_shape s = full;
    if (axis == 0) s.batch = 0;
    if (axis == 1) s.heads = s.key_heads = s.value_heads = 0;
    if (axis == 2) s.tokens = 0;
    if (axis == 3) s.width = 0;
    if (axis == 4) s.value_width = 0;
    linear_operands<E> x(mixer, s, 7);
    mixer(x.call());
    expect_within_gate<E>(mixer, x, expected_of<E>(mixer, x), s.text());
  }
}

/// Value heads that share a key head are value heads whose key heads hold the same; likewise query heads of one state.
template <class E, class Mixer>
void expect_groups_are_repeated_heads(const Mixer& mixer, index_t tokens, std::uint64_t seed) {
  for (const bool of_queries : {false, true}) {
    const linear_shape s{1, of_queries ? 6 : 2, 2, of_queries ? 2 : 6, tokens, 20, 24};
    linear_shape repeated = s;
    repeated.heads = repeated.key_heads = repeated.value_heads = 6;
    linear_operands<E> x(mixer, s, seed), y(mixer, repeated, seed + 1);
    const auto repeat = [&](const auto& from, auto& to) {
      for (index_t h = 0; h < 6; ++h) {
        const index_t each = to.size() / 6;
        std::copy_n(from.data() + h * from.extent(1) / 6 * each, each, to.data() + h * each);
      }
    };
    repeat(x.q, y.q), repeat(x.k, y.k), repeat(x.v, y.v), repeat(x.a, y.a), repeat(x.b, y.b),
        repeat(x.log_decay, y.log_decay), repeat(x.beta, y.beta);
    repeat(x.initial_state, y.initial_state), repeat(x.initial_sum, y.initial_sum);
    mixer(x.call());
    mixer(y.call());
    expect_same_bits<E, 4>(x.out, y.out, s.text());
    expect_within_gate<E>(mixer, x, expected_of<E>(mixer, x), s.text());
  }
}

/// All that holds for every mixer and every order.
template <class E, class Mixer>
void expect_identities(const Mixer& mixer) {
  for (const linear_shape& s : {linear_shape{1, 2, 2, 2, 70, 20, 24}, linear_shape{2, 1, 1, 3, 49, 8, 70},
                                linear_shape{1, 4, 2, 2, 33, 33, 9}}) {
    expect_split<E>(mixer, s, 1);
    expect_reverse_is_flipped<E>(mixer, s, 2);
    expect_packed_is_a_loop<E>(mixer, s, 3, {0, 0, 1, 17, 17, static_cast<std::int32_t>(s.tokens - 2)});
    expect_packed_is_a_loop<E>(mixer, s, 3, {1, 18, static_cast<std::int32_t>(s.tokens)}, mix::order::reverse);
    expect_any_executor<E>(mixer, s, 4);
    expect_any_strides<E>(mixer, s, 5);
  }
  expect_any_strides<E>(mixer, {2, 2, 2, 2, 1, 20, 24}, 5);
  expect_any_executor<E>(mixer, {1, 1, 1, 1, 40, 24, 200}, 6);
  expect_any_executor_for_long_sequences<E>(mixer, 6);
  expect_independent_of_neighbours<E>(mixer, {2, 2, 1, 1, 35, 12, 20}, 7);
  expect_independent_of_neighbours<E>(mixer, {3, 1, 1, 2, 1, 12, 20}, 7);
  expect_no_way_back<E>(mixer, {1, 2, 2, 2, 37, 12, 20}, 8);
  expect_groups_are_repeated_heads<E>(mixer, 37, 9);
  expect_groups_are_repeated_heads<E>(mixer, 1, 9);
  expect_empty_extents<E>(mixer);
  if (mixer.decay_channels({}) > 0 && outlives_reset<Mixer> >= 0)
    expect_reset_forgets<E>(mixer, {1, 2, 2, 2, 37, 20, 24}, 10);
}

/// Against the oracle over sizes at the borders of registers, tiles and chunks, and between guard pages.
template <class E, class Mixer>
void expect_sizes(const Mixer& mixer, gate_record* record = nullptr) {
  std::uint64_t seed = 1;
  std::vector<index_t> sizes;
  for (index_t n = 1; n <= 70; n += reduced_sweep ? 13 : n < 20 ? 1 : 7) sizes.push_back(n);
  for (index_t n : sizes) {
    for (const linear_shape& s :
         {linear_shape{1, 1, 1, 2, n, 8, 12}, linear_shape{1, 1, 1, 1, 18, n, 12}, linear_shape{1, 2, 1, 1, 17, 12, n},
          linear_shape{1, 1, 1, 2, 1, n, 9}, linear_shape{1, 2, 2, 2, 1, 9, n}}) {
      expect_oracle<E>(mixer, s, ++seed, -0.3, record);
      expect_within_bounds<E>(mixer, s, seed);
    }
  }
  for (const linear_shape& s : {linear_shape{1, 1, 1, 1, 300, 64, 64}, linear_shape{1, 1, 1, 1, 40, 128, 128},
                                linear_shape{2, 2, 2, 4, 64, 32, 64}}) {
    expect_oracle<E>(mixer, s, ++seed, -0.02, record);
  }
}

}  // namespace cases
