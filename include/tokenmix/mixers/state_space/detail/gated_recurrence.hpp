// SPDX-License-Identifier: Apache-2.0
/// @file One number per channel that decays and is written to: gates are made in registers, and rows of tokens go by once.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/stream.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <algorithm>
#include <array>

namespace tokenmix::inline TOKENMIX_ABI::detail {

// A rule says how many `inputs` it reads per channel, `parameters` a channel has and `states` it holds, which are also what
// goes out; if it has parameters it gives `parameter<T>(p, channel)`, which once per call becomes `prepared(p, register)`; and it
// takes one register of channels a token further by `step(x, p, h, first)`. The state lies in a line of scratch, so that
// memory sees whole rows.

/// One row: registers of channels of all inputs, then what is left. `Stream`: results go past the caches.
template <bool Stream, class T, class Rule, class E, class O>
TOKENMIX_NOINLINE void gated_recurrence_row(const Rule& rule, const std::array<const E*, Rule::inputs>& from,
                                            const std::array<O*, Rule::states>& to, const T* parameters, T* state,
                                            index_t stride, index_t channels, bool first) {
  constexpr index_t L = simd::lanes<T>;
  const auto at = [&](index_t c, auto load, auto store) TOKENMIX_LAMBDA_INLINE {
    std::array<simd::batch<T>, Rule::inputs> x;
    std::array<simd::batch<T>, std::max<std::size_t>(1, Rule::parameters)> p;
    std::array<simd::batch<T>, Rule::states> h;
    simd::unroll<static_cast<index_t>(Rule::inputs)>([&](auto i) TOKENMIX_LAMBDA_INLINE { x[i] = load(from[i] + c); });
    simd::unroll<static_cast<index_t>(Rule::parameters)>(
        [&](auto i) TOKENMIX_LAMBDA_INLINE { p[i] = simd::load(parameters + i * stride + c); });
    simd::unroll<static_cast<index_t>(Rule::states)>(
        [&](auto i) TOKENMIX_LAMBDA_INLINE { h[i] = simd::load(state + i * stride + c); });
    rule.step(x, p, h, first);
    simd::unroll<static_cast<index_t>(Rule::states)>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      simd::store(state + i * stride + c, h[i]);
      store(to[i] + c, h[i]);
    });
  };
  index_t c = 0;
  for (; c + L <= channels; c += L) {
    at(
        c, [](const E* q) TOKENMIX_LAMBDA_INLINE { return simd::load_as<T>(q); },
        [](O* q, const simd::batch<T>& y) TOKENMIX_LAMBDA_INLINE {
          if constexpr (Stream) {
            simd::stream(q, y);
          } else {
            simd::store_as(q, y);
          }
        });
  }
  if (const index_t n = channels - c; n > 0) {
    at(
        c, [n](const E* q) TOKENMIX_LAMBDA_INLINE { return simd::load_as_n<T>(q, n); },
        [n](O* q, const simd::batch<T>& y) TOKENMIX_LAMBDA_INLINE { simd::store_as_n(q, y, n); });
  }
}

/// The tensors of a rule, with the names that errors call them by.
template <class Rule, class E, class O>
struct gated_recurrence {
  using T = accumulator_t<E>;
  static constexpr std::size_t N = Rule::inputs, S = Rule::states;

  std::array<const char*, N> input_names;
  std::array<tensor_view<const E, 3>, N> inputs;  // (B, T, C)
  std::array<const char*, S> out_names;
  std::array<tensor_view<O, 3>, S> out;  // (B, T, C)
  std::array<const char*, S> initial_names;
  std::array<tensor_view<const T, 2>, S> initial;  // (n, C) or empty
  std::array<const char*, S> final_names;
  std::array<tensor_view<T, 2>, S> final_state;  // (n, C) or empty

  /// `parameters` are views that are read besides.
  template <class Sequences, class... Parameters>
  void check(order direction, const Sequences& sequences, const Parameters&... parameters) const {
    static_assert(!std::is_const_v<O>, "out must be writable");
    check_direction(direction);
    for (std::size_t i = 0; i < N; ++i) {
      check_input(input_names[i], inputs[i]);
      if (i > 0) check_same_shape(input_names[i], inputs[i], input_names[0], inputs[0]);
    }
    const index_t B = inputs[0].extent(0), tokens = inputs[0].extent(1);
    check_sequences(sequences, B, tokens, tokens, true);
    const extents<2> shape{sequences.count(B), inputs[0].extent(2)};
    for (std::size_t s = 0; s < S; ++s) {
      const tensor_view<const O, 3> result = out[s];
      check_output(out_names[s], result);
      check_same_shape(out_names[s], result, input_names[0], inputs[0]);
      for (std::size_t i = 0; i < N; ++i)
        check_overlap(out_names[s], result, input_names[i], inputs[i], aliasing::identical);
      for (std::size_t i = 0; i < s; ++i)
        check_overlap(out_names[s], result, out_names[i], tensor_view<const O, 3>(out[i]));
      (check_overlap(out_names[s], result, "a parameter", parameters), ...);
    }
    for (std::size_t s = 0; s < S; ++s) {
      if ((initial[s].data() == nullptr) != (initial[0].data() == nullptr) ||
          (final_state[s].data() == nullptr) != (final_state[0].data() == nullptr))
        fail_value(initial_names[s], " or ", final_names[s], " is missing: a state is given whole");
      check_state_part(initial_names[s], initial[s], final_names[s], final_state[s], shape, "(sequences, C)",
                       parameters...);
      for (std::size_t i = 0; i < S; ++i) {
        if (initial[s].data() != nullptr)
          check_overlap(out_names[i], tensor_view<const O, 3>(out[i]), initial_names[s], initial[s]);
        if (final_state[s].data() == nullptr) continue;
        const tensor_view<const T, 2> last = final_state[s];
        check_overlap(final_names[s], last, out_names[i], tensor_view<const O, 3>(out[i]));
        if (i != s) check_overlap(final_names[s], last, initial_names[i], initial[i]);
        if (i < s) check_overlap(final_names[s], last, final_names[i], tensor_view<const T, 2>(final_state[i]));
      }
      for (std::size_t i = 0; i < N && final_state[s].data() != nullptr; ++i)
        check_overlap(final_names[s], tensor_view<const T, 2>(final_state[s]), input_names[i], inputs[i]);
    }
  }

  void run_sequence(const Rule& rule, const sequence& seq, bool reversed, index_t first, index_t channels,
                    const T* parameters, index_t stride, bool streams) const {
    scratch_frame frame;
    const index_t n = seq.keys;
    const bool continued = initial[0].data() != nullptr;
    T* const state = frame.take<T>(static_cast<index_t>(S) * stride);
    for (std::size_t s = 0; s < S; ++s) {
      T* const line = state + static_cast<index_t>(s) * stride;
      std::fill(line, line + stride, T(0));
      for (index_t c = 0; c < channels && continued; ++c) line[c] = initial[s](seq.number, first + c);
    }
    for (index_t t = 0; t < n; ++t) {
      const index_t row = seq.key_row + (reversed ? n - 1 - t : t);
      std::array<const E*, N> from;
      std::array<O*, S> to;
      for (std::size_t i = 0; i < N; ++i) from[i] = inputs[i].row(seq.batch, row) + first;
      for (std::size_t s = 0; s < S; ++s) to[s] = out[s].row(seq.batch, row) + first;
      const bool start = t == 0 && !continued;
      if constexpr (std::is_same_v<O, T>) {
        bool stream = streams;
        for (O* p : to) stream = stream && simd::can_stream_to(p);
        if (stream) {
          gated_recurrence_row<true, T, Rule, E, O>(rule, from, to, parameters + first, state, stride, channels, start);
          continue;
        }
      }
      gated_recurrence_row<false, T, Rule, E, O>(rule, from, to, parameters + first, state, stride, channels, start);
    }
    if (streams) simd::fence_after_stream();
    for (std::size_t s = 0; s < S && final_state[0].data() != nullptr; ++s)
      for (index_t c = 0; c < channels; ++c)
        final_state[s](seq.number, first + c) = state[static_cast<index_t>(s) * stride + c];
  }

  /// One thread takes whole rows; several take parts of them.
  template <class Sequences, class Executor>
  void run(const Rule& rule, order direction, const Sequences& sequences, Executor& on) const {
    scratch_frame frame;
    constexpr index_t L = simd::lanes<T>;
    const index_t B = inputs[0].extent(0), tokens = inputs[0].extent(1), C = inputs[0].extent(2);
    const index_t n = sequences.count(B), stride = (C + L - 1) / L * L;
    T* const parameters = frame.take<T>(static_cast<index_t>(Rule::parameters) * stride);
    if constexpr (Rule::parameters > 0) {
      for (std::size_t p = 0; p < Rule::parameters; ++p) {
        T* const line = parameters + static_cast<index_t>(p) * stride;
        for (index_t c = 0; c < C; ++c) line[c] = rule.template parameter<T>(p, c);
        std::fill(line + C, line + stride, T(0));
        for (index_t c = 0; c < stride; c += L) simd::store(line + c, rule.prepared(p, simd::load(line + c)));
      }
    }
    const index_t workers = std::max<index_t>(1, on.concurrency()), least = 4 * L;
    const index_t most = std::max<index_t>(1, (C + least - 1) / least);
    const index_t parts = workers == 1 ? 1 : std::clamp<index_t>(4 * workers / std::max<index_t>(n, 1), 1, most);
    const index_t width = ((C + parts - 1) / parts + least - 1) / least * least;
    bool streams = inputs[0].size() * static_cast<index_t>(sizeof(O)) >= bytes_past_caches;
    for (const auto& result : out)
      for (const auto& input : inputs)
        streams = streams && static_cast<const void*>(result.data()) != static_cast<const void*>(input.data());
    run_tasks(on, n * parts, [&](index_t task) {
      const index_t first = task % parts * width, channels = std::min(width, C - first);
      if (channels <= 0) return;
      run_sequence(rule, sequences.at(task / parts, tokens, tokens), direction == order::reverse, first, channels,
                   parameters, stride, streams);
    });
  }
};

/// The problem of a mixer with one number of state per channel, which is also what goes out.
template <class Rule, class E, class O>
gated_recurrence<Rule, E, O> one_state_recurrence(const std::array<const char*, Rule::inputs>& names,
                                                  const std::array<tensor_view<const E, 3>, Rule::inputs>& inputs,
                                                  const tensor_view<O, 3>& out,
                                                  const tensor_view<const accumulator_t<E>, 2>& initial,
                                                  const tensor_view<accumulator_t<E>, 2>& final_state) {
  return {names, inputs, {"out"}, {out}, {"initial_state"}, {initial}, {"final_state"}, {final_state}};
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
