// SPDX-License-Identifier: Apache-2.0
/// @file State-space models with a diagonal transition that does not change with time, states per channel: S4D, DSS, MEGA's EMA.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/check_states.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of diagonal_ssm. P is the type of parameters and states: std::complex<T> or T.
template <class E, class P, class W = accumulator_t<E>>
struct diagonal_ssm_inputs {
  tensor_view<const E, 3> x{};              // (B, T, D)
  tensor_view<const P, 2> transition{};     // (D, N): discrete, |transition| <= 1
  tensor_view<const P, 2> input{};          // (D, N): discrete; 1 if empty
  tensor_view<const P, 2> output{};         // (D, N)
  tensor_view<const W, 1> skip{};           // (D); none if empty
  tensor_view<const P, 3> initial_state{};  // (n, D, N); zero if empty
};

/// Options of diagonal_ssm: use with designated initialisers; the order of the fields is API.
template <class P, class Sequences = whole_sequences>
struct diagonal_ssm_options {
  tokenmix::readout readout = tokenmix::readout::conjugate_pairs;
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<P, 3> final_state{};                   ///< output (n, D, N); may be the initial state
};

namespace detail {

/// Views of complex numbers as numbers: twice the channels.
template <class T>
const T* real_numbers(const std::complex<T>* p) {
  return reinterpret_cast<const T*>(p);
}
template <class T>
T* real_numbers(std::complex<T>* p) {
  return reinterpret_cast<T*>(p);
}
template <class T>
  requires std::is_floating_point_v<T>
T* real_numbers(T* p) {
  return p;
}

/// (D, N) numbers of some channels as registers, state after state, part after part.
template <class P>
void load_diagonal_lines(const P* from, index_t row_stride, index_t channels, index_t states, real_part_t<P>* to) {
  using T = real_part_t<P>;
  simd::transpose_in(real_numbers(from), row_stride * parts<P>, channels, states * parts<P>, to, simd::lanes<T>);
}

template <class E, class P, class T, class O>
struct diagonal_ssm_problem {
  const diagonal_ssm_inputs<E, P, T>& in;
  tensor_view<O, 3> out;
  tensor_view<P, 3> final_state;
  tokenmix::readout readout;
  bool reversed;

  static constexpr index_t L = simd::lanes<T>;

  void run(const sequence& seq, index_t number, index_t first) const {
    const index_t N = in.transition.extent(1), count = std::min(L, out.extent(2) - first), numbers = N * parts<P> * L;
    scratch_frame frame;
    T* const transition = frame.take<T>(numbers);
    T* const output = frame.take<T>(numbers);
    T* const state = frame.take<T>(numbers);
    T* const input = in.input.data() == nullptr ? nullptr : frame.take<T>(numbers);
    load_diagonal_lines(in.transition.row(first), in.transition.stride(0), count, N, transition);
    load_diagonal_lines(in.output.row(first), in.output.stride(0), count, N, output);
    if (input != nullptr) load_diagonal_lines(in.input.row(first), in.input.stride(0), count, N, input);
    if (in.initial_state.data() != nullptr) {
      load_diagonal_lines(in.initial_state.row(number, first), in.initial_state.stride(1), count, N, state);
    } else {
      std::fill_n(state, numbers, T(0));
    }
    bool resets = false;
    const T factor = readout == readout::conjugate_pairs ? T(2) : T(1);
    for (index_t n = 0; n < N; ++n) {
      T* const c = output + n * parts<P> * L;
      const T* const a = transition + n * parts<P> * L;
      for (index_t i = 0; i < L; ++i) {
        c[i] *= factor;
        if constexpr (parts<P> == 2) c[L + i] *= -factor;
        bool none = a[i] == T(0);
        if constexpr (parts<P> == 2) none = none && a[L + i] == T(0);
        resets = resets || (none && i < count);
      }
    }
    alignas(64) T skip[static_cast<std::size_t>(L)] = {};
    if (in.skip.data() != nullptr) std::copy_n(in.skip.row(first), count, skip);

    const index_t block = std::min(diagonal_block, seq.keys);
    T* const u = frame.take<T>(block * L);
    T* const y = frame.take<T>(block * L);
    for (index_t t = 0; t < seq.keys; t += diagonal_block) {
      const index_t now = std::min(diagonal_block, seq.keys - t);
      const auto row = [&](index_t i) { return seq.key_row + (reversed ? seq.keys - 1 - t - i : t + i); };
      const simd::batch<T> direct = simd::load(skip);
      for (index_t i = 0; i < now; ++i) {
        const simd::batch<T> x = simd::load_as_n<T>(in.x.row(seq.batch, row(i), first), count);
        simd::store(u + i * L, x);
        simd::store(y + i * L, in.skip.data() == nullptr ? simd::batch<T>(T(0)) : direct * x);
      }
      diagonal_block_of_tokens<P>({transition, input, output, state}, N, resets, u, y, now);
      for (index_t i = 0; i < now; ++i)
        simd::store_as_n(out.row(seq.batch, row(i), first), simd::load(y + i * L), count);
    }
    if (final_state.data() == nullptr || N == 0) return;
    simd::detail::transpose_out(state, L, count, N * parts<P>, real_numbers(final_state.row(number, first)),
                                final_state.stride(1) * parts<P>,
                                [](const simd::batch<T>& v, index_t) TOKENMIX_LAMBDA_INLINE { return v; });
  }
};

}  // namespace detail

/// A diagonal state-space model with N states per channel.
///
///     h[t]   = transition h[t - 1] + input x[t]                      for every channel and state
///     out[t] = sum over n of Re(output[n] h[t, n]) + skip x[t]       twice the real parts with readout::conjugate_pairs
///
/// Parameters are those of the discrete recurrence; discretize(zoh{}, ...), discretize(bilinear{}, ...) and damped_ema(...)
/// make them of the trained ones. S4D keeps one state of each conjugate pair and B = 1 or a B of its own; what is put into
/// `input` may as well be multiplied into `output`, which saves a quarter of the work, if states need not be compared.
/// The same model as a convolution: diagonal_ssm_kernel gives the filter for long_convolution. With the recurrence's cost
/// of 6 N fused operations per number the scan is the quicker one up to hundreds of states.
///
/// Shapes     x, out: (B, T, D), any strides, last axis contiguous. Parameters: (D, N), any strides (0 repeats them for all
///            channels), last axis contiguous. skip: (D). States: (n, D, N), complex if the parameters are.
/// Aliasing   out may be x itself, the final state the initial one; any other overlap is an error.
/// Numerics   computed in float (double for double); |error| <= u (8 A + 4 A1), A the sum of the absolute values of all terms and A1 that
///            with every term times its distance in tokens. States do not grow without input if |transition| <= 1. A transition
///            of 0 does not read the state, NaN included; a NaN stays in its channel and sequence. The same bits for
///            any executor, batch neighbours, strides and split into calls (T = 1 is the step), reversed as flipped, packed as alone.
/// Cost       6 N (8 N with input; real: 2 N, 3 N) fma per number; x and out once. Tasks are a register of channels of one sequence:
///            one sequence of few channels is one task. Nothing is allocated beyond a thread's scratch.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Gu et al. 2022 (S4D), sections 3 and 4; Ma et al. 2023 (MEGA), section 3.1.
template <class E, class P, class W, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void diagonal_ssm(const diagonal_ssm_inputs<E, P, W>& inputs, tensor_view<O, 3> out,  // (B, T, D)
                  const diagonal_ssm_options<P, Sequences>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<detail::real_part_t<P>, T> && std::is_same_v<W, T>,
                "parameters and states are of the computing type");
  static_assert(!std::is_const_v<O>, "out must be writable");
  const auto& [x, transition, input, output, skip, initial] = inputs;
  detail::check_input("x", x);
  const index_t D = x.extent(2), N = transition.extent(1);
  if (options.order == order::bidirectional)
    detail::fail_value("order is bidirectional: a recurrence has a direction; add a forward and a reverse one");
  const tensor_view<const O, 3> result = out;
  const auto check_parameter = [&](const char* name, const tensor_view<const P, 2>& parameter) {
    detail::check_input(name, parameter);
    detail::check_shape(name, parameter, {D, N}, "(D, N)");
    detail::check_overlap("out", result, name, parameter);
    if (options.final_state.data() != nullptr)
      detail::check_overlap("final_state", tensor_view<const P, 3>(options.final_state), name, parameter);
  };
  check_parameter("transition", transition);
  if (input.data() != nullptr) check_parameter("input", input);
  check_parameter("output", output);
  if (skip.data() != nullptr) {
    detail::check_input("skip", skip);
    detail::check_shape("skip", skip, {D}, "(D)");
    detail::check_overlap("out", result, "skip", skip);
  }
  detail::check_output("out", result);
  detail::check_same_shape("out", result, "x", x);
  detail::check_overlap("out", result, "x", x, detail::aliasing::identical);
  options.sequences.check(x.extent(0), x.extent(1), x.extent(1));
  const index_t n = options.sequences.count(x.extent(0));
  detail::check_states("initial_state", initial, options.final_state, {n, D, N}, "(sequences, D, N)", result, x);

  const detail::diagonal_ssm_problem<E, P, T, O> problem{inputs, out, options.final_state, options.readout,
                                                         options.order == order::reverse};
  const index_t blocks = (D + problem.L - 1) / problem.L;
  detail::run_tasks(on, n * blocks, [&](index_t task) {
    problem.run(options.sequences.at(task / blocks, x.extent(1), x.extent(1)), task / blocks,
                task % blocks * problem.L);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
