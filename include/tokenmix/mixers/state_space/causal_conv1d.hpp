// SPDX-License-Identifier: Apache-2.0
/// @file The short depthwise convolution that stands before most state-space mixers, with its last inputs as a state.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/primitives/convolution/short_convolution.hpp>
#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sigmoid_both.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of causal_conv1d. Shapes for options.axis = 1; with 2 the last two axes of x and of the state are the other way.
template <class E, class W = accumulator_t<E>, class State = accumulator_t<E>>
struct causal_conv1d_inputs {
  tensor_view<const E, 3> x{};                  // (B, T, C)
  tensor_view<const W, 2> weight{};             // (C, k), the last tap for the present token
  tensor_view<const W, 1> bias{};               // (C); none if empty
  tensor_view<const State, 3> initial_state{};  // (n, (k - 1) dilation, C), the newest last; zero if empty
};

/// Options of causal_conv1d: use with designated initialisers; the order of the fields is API.
template <class Activation = as_given, class Sequences = whole_sequences, class State = float>
struct causal_conv1d_options {
  Activation activation{};  ///< as_given, silu, or any callable of a register
  index_t dilation = 1;     ///< tokens from one tap to the next
  convolution_window window = convolution_window::causal;
  index_t axis = 1;                                  ///< of time: 1 in (B, T, C), 2 in (B, C, T)
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  std::span<const std::int32_t> state_index{};       ///< (n): which state is of sequence i; empty: state i
  tensor_view<State, 3> final_state{};               ///< output, as the initial state, which it may be
};

namespace detail {

/// A view whose time is on axis 1.
template <class E>
tensor_view<E, 3> with_time_before_channels(const tensor_view<E, 3>& view, index_t axis) {
  return axis == 1 ? view : view.permuted({0, 2, 1});
}

inline bool steps_by_one(index_t extent, index_t stride) { return extent <= 1 || stride == 1; }

/// Every sequence has a state of its own among those that there are.
inline void check_state_index(std::span<const std::int32_t> at, index_t sequences, index_t states) {
  const auto n = static_cast<index_t>(at.size());
  if (n != sequences) fail_shape("state_index has ", n, " entries, there are ", sequences, " sequences");
  scratch_frame frame;
  std::int32_t* const sorted = frame.take<std::int32_t>(n);
  for (index_t i = 0; i < n; ++i) {
    sorted[i] = at[static_cast<std::size_t>(i)];
    if (sorted[i] < 0) fail_value("state_index[", i, "] is ", sorted[i], ": indices are not negative");
    if (sorted[i] >= states) fail_value("state_index[", i, "] is ", sorted[i], ": there are ", states, " states");
  }
  std::sort(sorted, sorted + n);
  const std::int32_t* const twice = std::adjacent_find(sorted, sorted + n);
  if (twice == sorted + n) return;
  const auto first = std::find(at.begin(), at.end(), *twice);
  const auto second = std::find(first + 1, at.end(), *twice);
  fail_value("state_index[", second - at.begin(), "] is ", *twice, ", as is state_index[", first - at.begin(),
             "]: sequences share no state");
}

/// States of a convolution: (states, span, C), or with the last two axes the other way.
template <class S>
void check_convolution_state(const char* name, const tensor_view<const S, 3>& state, const extents<3>& shape,
                             index_t axis) {
  check_view(name, state);
  if (axis == 1) {
    check_shape(name, state, shape, "(states, (k - 1) dilation, C)");
  } else {
    check_shape(name, state, {shape[0], shape[2], shape[1]}, "(states, C, (k - 1) dilation)");
  }
}

}  // namespace detail

/// A short convolution over time, every channel with its own weights.
///
///     out[t] = activation(bias + sum over j < k of weight[j] x[t - (k - 1 - j) dilation])       in every channel
///
/// where what lies before the first token is the initial state, or zero. Centered: x[t + (j - (k - 1) / 2) dilation], half
/// of (k - 1) dilation rounded down before the token, and zero outside the sequence; then there is no state.
///
/// Shapes     x, out: (B, T, C), with options.axis = 2 (B, C, T); any strides, one of the two axes contiguous, the same in both:
///            channels and time are each read in place. weight: (C, k), bias: (C), any strides. States: n or, with a
///            state_index, any number of them, the last (k - 1) dilation inputs, time on the axis it has in x, any strides.
/// Aliasing   out may be x itself if the window is causal; final_state may be initial_state itself. Otherwise what is written
///            shares no element with anything.
/// Numerics   computed in float (double for double): one chain of fma from the bias over ascending taps, |error| <=
///            (k + 1) u (|bias| + sum |weight x|), then the activation (silu of x within (5 + |x| / 20) u). The same bits for
///            either layout, any executor, batch neighbours, strides and split into calls, reversed as flipped, packed as alone,
///            in place or not. States hold inputs and are exact in any type that x fits in.
/// Cost       2 k operations per element; x read and out written once. Scratch: (k + 1) C numbers, and (k - 1) dilation
///            rows (lines: two times as many numbers) per worker that meets a state. One token allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. T = 0, B = 0, C = 0 are legal.
/// Source     Gu and Dao 2023 (Mamba), section 3.4; state and index as in the authors' causal-conv1d.
template <class E, class W, class Initial, class O, class Activation = as_given, class Sequences = whole_sequences,
          class Final = float, executor Executor = calling_thread>
void causal_conv1d(const causal_conv1d_inputs<E, W, Initial>& inputs, tensor_view<O, 3> out,
                   const causal_conv1d_options<Activation, Sequences, Final>& options = {}, Executor&& on = {}) {
  using namespace detail;
  static_assert(!std::is_const_v<O>, "out must be writable");
  const index_t axis = options.axis;
  if (axis != 1 && axis != 2) fail_value("axis is ", axis, ": time is axis 1 or 2");
  const bool causal = options.window == convolution_window::causal;
  if (options.order != order::forward && options.order != order::reverse)
    fail_value("order is bidirectional: a causal convolution has a direction; use window = centered");
  check_view("x", inputs.x);
  const auto x = with_time_before_channels(inputs.x, axis);
  const index_t B = x.extent(0), steps = x.extent(1), C = x.extent(2);

  check_view("weight", inputs.weight);
  check_extent("weight", inputs.weight, 0, "channels", C, "x has that many");
  const index_t k = inputs.weight.extent(1);
  if (k < 1) fail_shape("weight is ", shape_text(inputs.weight.shape()), ": a convolution has at least one tap");
  if (inputs.bias.data() != nullptr) {
    check_view("bias", inputs.bias);
    check_extent("bias", inputs.bias, 0, "channels", C, "x has that many");
  }
  index_t span = 0;
  if (options.dilation < 1) fail_value("dilation is ", options.dilation, ": expected 1 or more");
  if (__builtin_mul_overflow(k - 1, options.dilation, &span) || span > (index_t{1} << 30))
    fail_value("dilation is ", options.dilation, ": ", k, " taps so far apart span more than 2^30 tokens");
  check_sequences(options.sequences, B, steps, steps, true);

  check_view("out", tensor_view<const O, 3>(out));
  check_same_shape("out", tensor_view<const O, 3>(out), "x", inputs.x);
  check_writable_strides("out", tensor_view<const O, 3>(out));
  const auto result = with_time_before_channels(out, axis);
  const auto contiguous = [&](std::size_t a) {
    return steps_by_one(x.extent(a), x.stride(a)) && steps_by_one(x.extent(a), result.stride(a));
  };
  const bool rows = contiguous(2), lines = contiguous(1);
  if (!rows && !lines && !x.empty())
    fail_shape("x has strides ", shape_text(inputs.x.strides()), ", out ", shape_text(out.strides()),
               ": channels or time must be contiguous (stride 1) in both");
  check_overlap("out", tensor_view<const O, 3>(out), "x", inputs.x, causal ? aliasing::identical : aliasing::none);
  check_overlap("out", tensor_view<const O, 3>(out), "weight", inputs.weight);
  check_overlap("out", tensor_view<const O, 3>(out), "bias", inputs.bias);

  const index_t n = options.sequences.count(B);
  const bool starts = inputs.initial_state.data() != nullptr, ends = options.final_state.data() != nullptr;
  if (!causal && starts) fail_value("initial_state is given: a centered convolution has no state");
  if (!causal && ends) fail_value("final_state is given: a centered convolution has no state");
  const index_t states = starts ? inputs.initial_state.extent(0) : options.final_state.extent(0);
  const bool pooled = !options.state_index.empty();
  if (pooled && !starts && !ends && span > 0)
    fail_value("state_index is given without an initial_state or a final_state");
  if (pooled && (starts || ends)) check_state_index(options.state_index, n, states);
  const extents<3> shape{pooled ? states : n, span, C};
  if (starts) {
    check_convolution_state("initial_state", inputs.initial_state, shape, axis);
    check_overlap("out", tensor_view<const O, 3>(out), "initial_state", inputs.initial_state);
  }
  if (ends) {
    const tensor_view<const Final, 3> final = options.final_state;
    check_convolution_state("final_state", final, shape, axis);
    check_writable_strides("final_state", final);
    check_overlap("final_state", final, "out", tensor_view<const O, 3>(out));
    check_overlap("final_state", final, "x", inputs.x);
    check_overlap("final_state", final, "weight", inputs.weight);
    check_overlap("final_state", final, "bias", inputs.bias);
    if (starts) check_overlap("final_state", final, "initial_state", inputs.initial_state, aliasing::identical);
  }

  const bool in_place = static_cast<const void*>(out.data()) == static_cast<const void*>(inputs.x.data());
  const short_convolution<E, W, Initial, Final, O, kernel_activation<Activation>> problem{
      x,
      result,
      inputs.weight,
      inputs.bias,
      with_time_before_channels(inputs.initial_state, axis),
      with_time_before_channels(options.final_state, axis),
      options.state_index,
      {k, options.dilation, causal ? 0 : span - span / 2},
      activation_of(options.activation),
      options.order == order::reverse,
      in_place,
      !in_place && std::is_same_v<O, accumulator_t<E>> &&
          out.size() * static_cast<index_t>(sizeof(O)) >= bytes_past_caches};
  problem.run(options.sequences, rows && (C > 1 || !lines), on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
