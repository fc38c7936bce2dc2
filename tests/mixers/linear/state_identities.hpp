// SPDX-License-Identifier: Apache-2.0
/// @file The identities of mixers whose state is not one matrix: step by step = split = whole = packed = flipped, whoever runs it.
#pragma once

#include <mixers/linear/identities.hpp>

namespace cases {

/// The parts of a state of n sequences, (n, H, ...) each, as numbers that hold every state type.
using state_parts = std::vector<mix::tensor<double, 4>>;

/// One call: token axes are axis 2 of every input and of out.
struct state_call {
  std::vector<mix::tensor_view<const float, 4>> in;
  mix::tensor_view<float, 4> out;
  state_parts* state = nullptr;  ///< goes in and comes out
  mix::order order = mix::order::forward;
  std::span<const std::int32_t> offsets{};
  any_executor on{};

  state_call part(index_t first, index_t count) const {
    state_call c = *this;
    for (auto& x : c.in) x = x.slice(2, first, count);
    c.out = out.slice(2, first, count);
    return c;
  }
  template <class F>
  void with_sequences(F&& f) const {
    if (offsets.data() == nullptr) {
      f(mix::whole_sequences{});
    } else {
      f(mix::packed<std::int32_t>{.offsets = offsets});
    }
  }
};

/// A part of a state in the type and rank that a mixer keeps it in.
template <class T, std::size_t R>
mix::tensor<T, R> state_part(const mix::tensor<double, 4>& from) {
  mix::extents<R> shape;
  for (std::size_t i = 0; i < R; ++i) shape[i] = from.extent(i);
  mix::tensor<T, R> to(shape);
  for (index_t i = 0; i < from.size(); ++i) to.data()[i] = static_cast<T>(from.data()[i]);
  return to;
}
template <class T, std::size_t R>
void put_state_part(const mix::tensor<T, R>& from, mix::tensor<double, 4>& to) {
  for (index_t i = 0; i < from.size(); ++i) to.data()[i] = static_cast<double>(from.data()[i]);
}

/// What an oracle says, with a gate for every number. A state's gates may be empty: it is compared by what follows from it.
struct state_answer {
  std::vector<double> out, gate;
  state_parts state, state_gate;
};

// A mixer under test is a struct with
//   static constexpr bool splits_anywhere                   the same bits wherever a sequence is cut, not at chunks alone
//   static constexpr index_t chunk                          tokens of a chunk; 16 if there is none
//   std::vector<mix::extents<4>> inputs(shape)
//   void fill(std::vector<mix::tensor<float, 4>>&, random_numbers&)
//   state_parts initial(shape, n, random_numbers&)          some state
//   void operator()(const state_call&)
//   state_answer oracle(shape, inputs, initial state, reversed)
//   void rescale(state_parts& got, const state_parts& want) brings a state to the oracle's representation

template <class Mixer>
constexpr index_t chunk_of() {
  if constexpr (requires { Mixer::chunk; }) {
    return Mixer::chunk;
  } else {
    return chunk_tokens;
  }
}

template <class Mixer>
struct state_operands {
  linear_shape size;
  std::vector<mix::tensor<float, 4>> in;
  mix::tensor<float, 4> out;
  state_parts initial, state;

  state_operands(const Mixer& mixer, const linear_shape& s, std::uint64_t seed)
      : size(s), out({s.batch, s.heads, s.tokens, s.value_width}, untouched<float>()) {
    random_numbers random(seed);
    for (const auto& e : mixer.inputs(s)) in.emplace_back(e);
    mixer.fill(in, random);
    state = initial = mixer.initial(s, s.batch, random);
  }
  state_call call() {
    state_call c;
    for (const auto& x : in) c.in.push_back(x);
    c.out = out;
    c.state = &state;
    return c;
  }
  void restart() {
    state = initial;
    for (float& e : out) e = untouched<float>();
  }
};

template <class Mixer>
void expect_state_answer(const Mixer& mixer, const state_operands<Mixer>& x, const state_answer& want,
                         const std::string& label, gate_record* record = nullptr) {
  index_t failures = 0;
  const auto check = [&](double got, double expected, double gate, const std::string& what) {
    const double error = std::abs(got - expected);
    if (record != nullptr && gate > 0) record->see(error / gate, label);
    if (!(error <= gate) && !(got == expected) && ++failures <= 3)
      ADD_FAILURE() << label << ": " << what << " is " << got << ", expected " << expected << ", error " << error
                    << ", gate " << gate;
  };
  for (index_t i = 0; i < x.out.size(); ++i) {
    const auto e = static_cast<std::size_t>(i);
    check(static_cast<double>(x.out.data()[i]), want.out[e], want.gate[e] + 0x1p-149, "out[" + std::to_string(i) + "]");
  }
  state_parts got = x.state;
  mixer.rescale(got, want.state);
  for (std::size_t p = 0; p < want.state_gate.size(); ++p) {
    for (index_t i = 0; i < want.state_gate[p].size(); ++i) {
      check(got[p].data()[i], want.state[p].data()[i], want.state_gate[p].data()[i] + 0x1p-149,
            "state " + std::to_string(p) + "[" + std::to_string(i) + "]");
    }
  }
  EXPECT_EQ(failures, 0) << label;
}

template <class Mixer>
void expect_same_states(const state_operands<Mixer>& got, const state_operands<Mixer>& want, const std::string& label) {
  expect_same_bits<float, 4>(got.out, want.out, label);
  for (std::size_t p = 0; p < want.state.size(); ++p)
    expect_same_bits<double, 4>(got.state[p], want.state[p], label + ": state " + std::to_string(p));
}

template <class Mixer>
void expect_state_oracle(const Mixer& mixer, const linear_shape& s, std::uint64_t seed, gate_record* record = nullptr) {
  state_operands<Mixer> x(mixer, s, seed);
  mixer(x.call());
  expect_state_answer(mixer, x, mixer.oracle(s, x.in, x.initial, false), s.text() + " seed " + std::to_string(seed),
                      record);
}

template <class Mixer>
void expect_state_split(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  state_operands<Mixer> whole(mixer, s, seed), x = whole;
  mixer(whole.call());
  const state_answer want = mixer.oracle(s, whole.in, whole.initial, false);
  const auto run = [&](const std::vector<index_t>& ends) {
    x.restart();
    index_t first = 0;
    for (index_t end : ends) {
      mixer(x.call().part(first, end - first));
      first = end;
    }
  };
  std::vector<index_t> steps, chunks, anywhere{s.tokens / 3, s.tokens / 3, s.tokens * 3 / 4, s.tokens};
  for (index_t t = 1; t <= s.tokens; ++t) steps.push_back(t);
  constexpr index_t chunk = chunk_of<Mixer>();
  for (index_t t = chunk; t < s.tokens; t += chunk * (1 + t % 3)) chunks.push_back(t);
  chunks.push_back(s.tokens);
  run(chunks);
  expect_same_states(x, whole, s.text() + " split at chunks");
  run(steps);
  expect_state_answer(mixer, x, want, s.text() + " step by step");
  if (Mixer::splits_anywhere) expect_same_states(x, whole, s.text() + " step by step");
  run(anywhere);
  expect_state_answer(mixer, x, want, s.text() + " split anywhere");
  if (Mixer::splits_anywhere) expect_same_states(x, whole, s.text() + " split anywhere");
}

template <class Mixer>
void expect_state_reverse(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  state_operands<Mixer> x(mixer, s, seed), y = x;
  state_call c = x.call(), d = y.call();
  c.order = mix::order::reverse;
  mixer(c);
  expect_state_answer(mixer, x, mixer.oracle(s, x.in, x.initial, true), s.text() + " reversed");
  for (auto& in : d.in) in = flipped(in);
  d.out = flipped(d.out);
  mixer(d);
  expect_same_states(x, y, s.text() + " reversed");
}

template <class Mixer>
void expect_state_packed(const Mixer& mixer, linear_shape s, std::uint64_t seed,
                         const std::vector<std::int32_t>& offsets, mix::order order) {
  s.batch = 1;
  const auto n = static_cast<index_t>(offsets.size()) - 1;
  state_operands<Mixer> x(mixer, s, seed), y = x;
  random_numbers random(seed + 1);
  const state_parts initial = mixer.initial(s, n, random);
  x.state = initial;
  state_call c = x.call();
  c.offsets = offsets;
  c.order = order;
  mixer(c);
  state_parts all = initial;
  for (index_t i = 0; i < n; ++i) {
    const index_t first = offsets[static_cast<std::size_t>(i)];
    for (std::size_t p = 0; p < initial.size(); ++p)
      std::copy_n(initial[p].data() + i * y.state[p].size(), y.state[p].size(), y.state[p].data());
    state_call one = y.call().part(first, offsets[static_cast<std::size_t>(i) + 1] - first);
    one.order = order;
    mixer(one);
    for (std::size_t p = 0; p < initial.size(); ++p)
      std::copy(y.state[p].begin(), y.state[p].end(), all[p].data() + i * y.state[p].size());
  }
  y.state = all;
  expect_same_states(x, y, s.text() + " packed");
}

template <class Mixer>
void expect_state_executors(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  state_operands<Mixer> alone(mixer, s, seed), x = alone;
  mixer(alone.call());
  for (index_t threads : {2, 7, 33}) {
    if (reduced_sweep && threads > 2) continue;
    x.restart();
    state_call c = x.call();
    c.on = any_executor(delayed_threads(threads, seed));
    mixer(c);
    expect_same_states(x, alone, s.text() + " on threads");
  }
  x.restart();
  state_call c = x.call();
  c.on = any_executor(backwards{});
  mixer(c);
  expect_same_states(x, alone, s.text() + " backwards");
}

template <class Mixer>
void expect_state_strides(const Mixer& mixer, const linear_shape& s, std::uint64_t seed) {
  state_operands<Mixer> plain(mixer, s, seed), x = plain;
  mixer(plain.call());
  const auto layouts = reference::layouts<4>();
  for (std::size_t n = 0; n < layouts.size(); ++n) {
    x.restart();
    state_call c = x.call();
    std::vector<reference::strided<float, 4>> in;
    in.reserve(x.in.size());
    for (std::size_t i = 0; i < x.in.size(); ++i) in.emplace_back(x.in[i], layouts[(n + i) % layouts.size()]);
    for (std::size_t i = 0; i < x.in.size(); ++i) c.in[i] = in[i].view();
    const reference::strided<float, 4> out(x.out.shape(), layouts[(n + 3) % layouts.size()]);
    c.out = out.view();
    mixer(c);
    expect_same_bits<float, 4>(out.view(), plain.out, s.text() + " " + layouts[n].name);
    EXPECT_TRUE(out.gaps_untouched()) << layouts[n].name;
  }
}

/// NaN at a token, in any input, reaches no output before it and no other batch element; all operands lie between guard pages.
template <class Mixer>
void expect_state_poison(const Mixer& mixer, linear_shape s, std::uint64_t seed) {
  s.batch = 2;
  state_operands<Mixer> clean(mixer, s, seed);
  mixer(clean.call());
  for (std::size_t i = 0; i < clean.in.size(); ++i) {
    for (index_t t : {index_t{0}, index_t{5}, index_t{15}, index_t{16}, s.tokens - 1}) {
      if (t >= s.tokens) continue;
      state_operands<Mixer> x = clean;
      x.restart();
      for (index_t h = 0; h < x.in[i].extent(1); ++h) x.in[i](0, h, t, x.in[i].extent(3) / 2) = std::nanf("");
      mixer(x.call());
      const std::string label = s.text() + " NaN in input " + std::to_string(i) + " at " + std::to_string(t);
      expect_same_bits<float, 4>(x.out.slice(0, 0, 1).slice(2, 0, t), clean.out.slice(0, 0, 1).slice(2, 0, t), label);
      expect_same_bits<float, 4>(x.out.slice(0, 1, 1), clean.out.slice(0, 1, 1), label);
    }
  }
  for (const auto side : {reference::flush::end, reference::flush::start}) {
    std::vector<reference::guarded_buffer<float>> in;
    in.reserve(clean.in.size());
    state_operands<Mixer> x = clean;
    x.restart();
    state_call c = x.call();
    for (std::size_t i = 0; i < x.in.size(); ++i) {
      in.emplace_back(x.in[i].data(), x.in[i].size(), side);
      c.in[i] = {in[i].data(), x.in[i].shape()};
    }
    reference::guarded_buffer<float> out(x.out.size(), side);
    const mix::tensor_view<float, 4> result(out.data(), x.out.shape());
    c.out = result;
    mixer(c);
    expect_same_bits<float, 4>(result, clean.out, s.text() + " between guard pages");
  }
}

/// All of them.
template <class Mixer>
void expect_state_identities(const Mixer& mixer) {
  for (const linear_shape& s : {linear_shape{2, 2, 2, 2, 70, 20, 24}, linear_shape{1, 4, 2, 2, 37, 9, 70}}) {
    expect_state_split(mixer, s, 1);
    expect_state_reverse(mixer, s, 2);
    expect_state_packed(mixer, s, 3, {0, 0, 1, 17, 17, static_cast<std::int32_t>(s.tokens - 2)}, mix::order::forward);
    expect_state_packed(mixer, s, 3, {1, 18, static_cast<std::int32_t>(s.tokens)}, mix::order::reverse);
    expect_state_executors(mixer, s, 4);
    expect_state_strides(mixer, s, 5);
    expect_state_poison(mixer, s, 6);
  }
  expect_state_executors(mixer, {1, 1, 1, 1, 40, 24, 200}, 6);
  expect_state_strides(mixer, {2, 2, 2, 2, 1, 20, 24}, 5);
  for (int axis = 0; axis < 5; ++axis) {
    linear_shape s{2, 2, 2, 2, 20, 8, 8};
    if (axis == 0) s.batch = 0;
    if (axis == 1) s.heads = s.key_heads = s.value_heads = 0;
    if (axis == 2) s.tokens = 0;
    if (axis == 3) s.width = 0;
    if (axis == 4) s.value_width = 0;
    expect_state_oracle(mixer, s, 7);
  }
}

/// Sizes at the borders of registers, tiles and chunks.
template <class Mixer>
void expect_state_sizes(const Mixer& mixer, gate_record* record = nullptr) {
  std::uint64_t seed = 1;
  for (index_t n = 1; n <= 70; n += reduced_sweep ? 23 : n < 20 ? 1 : 7) {
    for (const linear_shape& s :
         {linear_shape{1, 1, 1, 1, n, 8, 12}, linear_shape{1, 1, 1, 1, 18, n, 12}, linear_shape{1, 2, 1, 1, 17, 12, n}})
      expect_state_oracle(mixer, s, ++seed, record);
  }
  expect_state_oracle(mixer, {1, 1, 1, 1, 300, 32, 32}, ++seed, record);
}

}  // namespace cases
