// SPDX-License-Identifier: Apache-2.0
/// @file A depthwise short convolution of sequences with what came before them: the checked arguments, cut into tasks.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/convolution/lines.hpp>
#include <tokenmix/primitives/convolution/rows.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>  // std::memmove
#include <span>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// An element of a state as one of the tokens, and back.
template <class To, class From>
To as_element(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else {
    return static_cast<To>(static_cast<accumulator_t<From>>(value));
  }
}

/// The arguments of a short convolution, time on axis 1. A state holds the last inputs, the newest last.
template <class E, class W, class I, class F, class O, class Activation>
struct short_convolution {
  using T = accumulator_t<E>;

  tensor_view<const E, 3> x;         // (B, T, C)
  tensor_view<O, 3> out;             // (B, T, C); may be x if the taps are causal
  tensor_view<const W, 2> weight;    // (C, k)
  tensor_view<const W, 1> bias;      // (C) or empty
  tensor_view<const I, 3> initial;   // (states, span, C) or empty
  tensor_view<F, 3> final_state;     // (states, span, C) or empty
  std::span<const std::int32_t> at;  // (sequences), or empty: state i is of sequence i
  convolution_taps taps;
  const Activation& activation;
  bool reversed;
  bool in_place;
  bool streams;  ///< out is larger than the caches, of the computing type and not x

  index_t state_of(const sequence& seq) const {
    return at.empty() ? seq.number : index_t{at[static_cast<std::size_t>(seq.number)]};
  }

  /// Token t of what the state holds, in the order of processing; zero if there is none.
  E past(index_t state, index_t t, index_t channel) const {
    return initial.data() == nullptr ? as_element<E>(T(0)) : as_element<E>(initial(state, t, channel));
  }

  /// A row of a state, or of tokens, to a row of another type; both may be the same memory.
  template <class From, class To>
  static void copy_row(const From* from, index_t from_step, To* to, index_t to_step, index_t n) {
    if (from_step == 1 && to_step == 1) {
      if constexpr (std::is_same_v<From, To>) {
        std::memmove(to, from, static_cast<std::size_t>(n) * sizeof(To));
      } else {
        for (index_t i = 0; i < n; ++i) to[i] = as_element<To>(from[i]);
      }
    } else {
      for (index_t i = 0; i < n; ++i) to[i * to_step] = as_element<To>(from[i * from_step]);
    }
  }

  /// The last inputs of some channels, `token(t)` being where token t of the first lies, in the order of processing. What stays of
  /// the initial state moves to the front.
  template <class Token>
  void leave_state(const sequence& seq, index_t first, index_t channels, const Token& token) const {
    if (final_state.data() == nullptr) return;
    const index_t state = state_of(seq), span = taps.span(), n = seq.keys;
    for (index_t i = 0; i < span; ++i) {
      const index_t t = n - span + i, step = final_state.stride(2);
      F* const to = final_state.row(state, i) + first * step;
      if (t >= 0) {
        copy_row(token(t), x.stride(2), to, step, channels);
      } else if (initial.data() != nullptr) {
        copy_row(initial.row(state, span + t) + first * initial.stride(2), initial.stride(2), to, step, channels);
      } else {
        for (index_t c = 0; c < channels; ++c) to[c * step] = as_element<F>(T(0));
      }
    }
  }

  /// Weights and biases with channels in the lanes, zero beyond the last; the weights themselves where they lie like that.
  convolution_weights<T> packed_weights(scratch_frame& frame) const {
    constexpr index_t L = simd::lanes<T>;
    const index_t C = x.extent(2), k = taps.count, stride = (C + L - 1) / L * L;
    T* const biases = frame.take<T>(stride);
    for (index_t c = 0; c < C; ++c) biases[c] = bias.data() == nullptr ? T(0) : static_cast<T>(bias(c));
    std::fill(biases + C, biases + stride, T(0));
    if constexpr (std::is_same_v<W, T>) {
      if (weight.stride(0) == 1 && C == stride) return {weight.data(), biases, weight.stride(1)};
    }
    T* const to = frame.take<T>(k * stride);
    for (index_t c = 0; c < C; ++c) {
      const W* const from = weight.row(c);
      for (index_t j = 0; j < k; ++j) to[j * stride + c] = static_cast<T>(from[j * weight.stride(1)]);
    }
    for (index_t j = 0; j < k; ++j) std::fill(to + j * stride + C, to + (j + 1) * stride, T(0));
    return {to, biases, stride};
  }

  /// Tokens [begin, end) in the order of processing, of channels that are contiguous.
  void run_rows(const sequence& seq, index_t begin, index_t end, index_t first, index_t channels,
                convolution_weights<T> w) const {
    scratch_frame frame;
    const index_t state = state_of(seq), span = taps.span(), n = seq.keys;
    w.weights += first, w.bias += first;
    const auto place = [&](index_t t) { return seq.key_row + (reversed ? n - 1 - t : t); };
    E* const zeros = frame.take<E>(channels);
    std::fill(zeros, zeros + channels, as_element<E>(T(0)));
    const bool continued = initial.data() != nullptr && begin < span;
    E* const history = frame.take<E>(continued ? span * channels : 0);
    for (index_t t = 0; t < span && continued; ++t)
      copy_row(initial.row(state, t) + first * initial.stride(2), initial.stride(2), history + t * channels, 1,
               channels);
    if (begin == 0)
      leave_state(seq, first, channels, [&](index_t t) { return x.row(seq.batch, place(t)) + first * x.stride(2); });
    const auto row = [&](index_t t) -> const E* {
      if (t >= 0 && t < n) return x.row(seq.batch, place(t)) + first;
      return t < 0 && continued ? history + (span + t) * channels : zeros;
    };
    const auto result = [&](index_t t) -> O* { return out.row(seq.batch, place(t)) + first; };
    convolve_rows<T>(taps, row, result, begin, end, channels, w, activation, in_place, streams,
                     frame.take<const E*>(convolution_rows * taps.count));
    if (streams) simd::fence_after_stream();
  }

  /// All tokens of channels whose time is contiguous.
  void run_lines(const sequence& seq, index_t first, index_t channels) const {
    scratch_frame frame;
    const index_t state = state_of(seq), span = taps.span(), n = seq.keys;
    // Positions are those in memory: how far taps reach below and above.
    const index_t below = reversed ? taps.ahead : taps.before(), above = span - below;
    const index_t step = reversed ? -taps.dilation : taps.dilation, offset = reversed ? above : -below;
    T* const weights = frame.take<T>(taps.count);
    E* const lower = frame.take<E>(below + simd::lanes<T> + span);
    E* const upper = frame.take<E>(above + span);
    for (index_t c = first; c < first + channels; ++c) {
      for (index_t j = 0; j < taps.count; ++j) weights[j] = static_cast<T>(weight(c, j));
      const T b = bias.data() == nullptr ? T(0) : static_cast<T>(bias(c));
      // A sequence without tokens may have no memory to point into.
      const E* const line = n == 0 ? nullptr : x.row(seq.batch, seq.key_row) + c * x.stride(2);
      O* const to = n == 0 ? nullptr : out.row(seq.batch, seq.key_row) + c * out.stride(2);
      // The middle begins where a register does.
      constexpr index_t L = simd::lanes<T>;
      const auto number =
          static_cast<index_t>((reinterpret_cast<std::uintptr_t>(to) / sizeof(O) + static_cast<std::uintptr_t>(below)) %
                               static_cast<std::uintptr_t>(L));
      const index_t left = std::min(n, below + (L - number) % L);
      const index_t right = std::max(left, n - above);
      const auto input = [&](index_t p) {
        if (p >= 0 && p < n) return line[p];
        if (p < 0 && !reversed) return past(state, span + p, c);
        if (p >= n && reversed) return past(state, span - 1 - (p - n), c);
        return as_element<E>(T(0));
      };
      const auto gather = [&](E* edge, index_t begin, index_t end) {
        for (index_t p = begin - below; p < end + above && begin < end; ++p) edge[p - (begin - below)] = input(p);
      };
      gather(lower, 0, left);
      gather(upper, right, n);
      leave_state(seq, c, 1, [&](index_t t) { return line + (reversed ? n - 1 - t : t); });
      const auto convolve = [&]<bool Stream>(const E* from, O* result, index_t begin, index_t end,
                                             std::bool_constant<Stream>) {
        convolve_line<Stream, T>(from, result, begin, end, taps.count, offset, step, weights, b, activation,
                                 in_place && !reversed);
      };
      bool streamed = false;
      if constexpr (std::is_same_v<O, T>) {
        streamed = streams && simd::can_stream_to(to + left);
        if (streamed) convolve(line, to, left, right, std::true_type{});
      }
      if (!streamed) convolve(line, to, left, right, std::false_type{});
      convolve(lower + below, to, 0, left, std::false_type{});
      convolve(upper + below, to + right, 0, n - right, std::false_type{});
    }
    if (streams) simd::fence_after_stream();
  }

  /// Everything, as tasks of whole rows for one thread, of parts of rows and of time for several.
  template <class Sequences, class Executor>
  void run(const Sequences& sequences, bool rows, Executor& on) const {
    scratch_frame frame;
    const index_t B = x.extent(0), C = x.extent(2), n = sequences.count(B);
    const index_t workers = std::max<index_t>(1, on.concurrency());
    const index_t wanted = (4 * workers + n - 1) / std::max<index_t>(n, 1);  // tasks of a sequence
    const index_t least = rows ? 64 / static_cast<index_t>(sizeof(T)) * 4 : 1;
    const index_t most = std::max<index_t>(1, (C + least - 1) / least);
    const index_t parts = workers == 1 ? 1 : std::min(most, wanted);
    const index_t width = ((C + parts - 1) / parts + least - 1) / least * least;
    // What is overwritten cannot be cut in time, and only the first block may meet the state.
    const index_t steps = workers == 1 || in_place || !rows || parts == wanted
                              ? std::max<index_t>(1, x.extent(1))
                              : std::max<index_t>({256, taps.span(), 4096 / std::max<index_t>(1, C)});
    const task_numbers numbers(n, frame, [&](index_t i) {
      return parts * std::max<index_t>(1, (sequences.at(i, x.extent(1), x.extent(1)).keys + steps - 1) / steps);
    });
    const convolution_weights<T> weights = rows ? packed_weights(frame) : convolution_weights<T>{};
    run_tasks(on, numbers.total(), [&](index_t task) {
      const index_t i = numbers.sequence_of(task), part = task - numbers.first(i);
      const sequence seq = sequences.at(i, x.extent(1), x.extent(1));
      const index_t first = part % parts * width, channels = std::min(width, C - first);
      if (channels <= 0) return;
      if (!rows) return run_lines(seq, first, channels);
      const index_t begin = part / parts * steps;
      run_rows(seq, begin, std::min(begin + steps, seq.keys), first, channels, weights);
    });
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
