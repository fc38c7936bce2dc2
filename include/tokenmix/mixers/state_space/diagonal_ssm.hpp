// SPDX-License-Identifier: Apache-2.0
/// @file State-space models with a diagonal transition that does not change with time, states per channel: S4D, DSS, MEGA's EMA.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/check_states.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_layout.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_step.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/prefetch.hpp>

#include <algorithm>
#include <type_traits>

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

template <class E, class P, class T, class O>
struct diagonal_ssm_problem {
  const diagonal_ssm_inputs<E, P, T>& in;
  tensor_view<O, 3> out;
  tensor_view<P, 3> final_state;
  tokenmix::readout readout;
  bool reversed;

  static constexpr index_t L = simd::lanes<T>;
  /// Registers of channels of one task: rows of x and out are read and written in pieces of several cache lines.
  static constexpr index_t most_registers = 4;
  /// The same of a step.
  static constexpr index_t most_step_registers = 32;

  /// Parameters of some registers of channels, and room for their states and a block of tokens.
  struct workspace {
    index_t first, registers, numbers;  ///< numbers of one register of channels
    T *transition, *input, *output, *state, *skip, *u, *y;
    bool resets[static_cast<std::size_t>(most_registers)];

    index_t channels(index_t r, index_t D) const { return std::min(L, D - first - r * L); }
  };

  workspace prepare(index_t first, index_t registers, scratch_frame& frame) const {
    const index_t N = in.transition.extent(1), D = out.extent(2), numbers = N * parts<P> * L;
    workspace w{first, registers, numbers, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, {}};
    w.transition = frame.take<T>(registers * numbers);
    w.output = frame.take<T>(registers * numbers);
    w.state = frame.take<T>(registers * numbers);
    w.input = in.input.data() == nullptr ? nullptr : frame.take<T>(registers * numbers);
    w.skip = frame.take<T>(registers * L);
    w.u = frame.take<T>(registers * diagonal_block * L);
    w.y = frame.take<T>(registers * diagonal_block * L);
    const T factor = readout == readout::conjugate_pairs ? T(2) : T(1);
    for (index_t r = 0; r < registers; ++r) {
      const index_t at = first + r * L, count = w.channels(r, D);
      T* const a = w.transition + r * numbers;
      T* const c = w.output + r * numbers;
      load_diagonal_lines(in.transition.row(at), in.transition.stride(0), in.transition.stride(1), count, N, a);
      load_diagonal_lines(in.output.row(at), in.output.stride(0), in.output.stride(1), count, N, c);
      if (w.input != nullptr)
        load_diagonal_lines(in.input.row(at), in.input.stride(0), in.input.stride(1), count, N, w.input + r * numbers);
      w.resets[r] = prepare_lines<P>(a, c, N, count, factor);
      for (index_t i = 0; i < L; ++i)
        w.skip[r * L + i] = in.skip.data() != nullptr && i < count ? in.skip(at + i) : T(0);
    }
    return w;
  }

  void run(const sequence& seq, index_t number, const workspace& w) const {
    const index_t N = in.transition.extent(1), D = out.extent(2);
    for (index_t r = 0; r < w.registers; ++r) {
      T* const state = w.state + r * w.numbers;
      const auto& from = in.initial_state;
      if (from.data() != nullptr) {
        load_diagonal_lines(from.row(number, w.first + r * L), from.stride(1), from.stride(2), w.channels(r, D), N,
                            state);
      } else {
        std::fill_n(state, w.numbers, T(0));
      }
    }
    // As many lines after every few states as bring the next block in while this one is computed.
    const index_t lines_at_once =
        2 * diagonal_block * w.registers / std::max<index_t>(1, w.registers * (N / states_together<P>)) + 1;
    simd::lines_ahead ahead;
    for (index_t t = 0; t < seq.keys; t += diagonal_block) {
      const index_t now = std::min(diagonal_block, seq.keys - t);
      const auto row = [&](index_t i) { return seq.key_row + (reversed ? seq.keys - 1 - t - i : t + i); };
      for (index_t i = 0; i < now; ++i) {
        const E* const from = in.x.row(seq.batch, row(i), w.first);
        for (index_t r = 0; r < w.registers; ++r) {
          const simd::batch<T> x = simd::load_as_n<T>(from + r * L, w.channels(r, D));
          simd::store(w.u + (r * diagonal_block + i) * L, x);
          simd::store(w.y + (r * diagonal_block + i) * L,
                      in.skip.data() == nullptr ? simd::batch<T>(T(0)) : simd::load(w.skip + r * L) * x);
        }
      }
      // Pieces of rows are too short for the hardware to foresee them.
      ahead.clear();
      if (const index_t next = std::min(diagonal_block, seq.keys - t - now); next > 0) {
        const index_t width = std::min(w.registers * L, D - w.first), low = reversed ? row(now + next - 1) : row(now);
        ahead.add(in.x.row(seq.batch, low, w.first), in.x.stride(1), next, width);
        ahead.add(out.row(seq.batch, low, w.first), out.stride(1), next, width);
      }
      for (index_t r = 0; r < w.registers; ++r) {
        const index_t at = r * w.numbers;
        T* const input = w.input == nullptr ? nullptr : w.input + at;
        diagonal_block_of_tokens<P>({w.transition + at, input, w.output + at, w.state + at}, N, w.resets[r],
                                    w.u + r * diagonal_block * L, w.y + r * diagonal_block * L, now,
                                    [&] { ahead.fetch(lines_at_once); });
      }
      for (index_t i = 0; i < now; ++i) {
        O* const to = out.row(seq.batch, row(i), w.first);
        for (index_t r = 0; r < w.registers; ++r)
          simd::store_as_n(to + r * L, simd::load(w.y + (r * diagonal_block + i) * L), w.channels(r, D));
      }
    }
    if (final_state.data() == nullptr) return;
    for (index_t r = 0; r < w.registers; ++r)
      store_diagonal_lines(w.state + r * w.numbers, w.channels(r, D), N, final_state.row(number, w.first + r * L),
                           final_state.stride(1), final_state.stride(2));
  }

  /// Whether these, the parameters and the states, all have contiguous channels, or contiguous states.
  template <index_t Axis>
  bool all_contiguous() const {
    const auto good = [](const auto& view) {
      constexpr std::size_t rank = std::remove_cvref_t<decltype(view)>::rank, axis = rank - 2 + Axis;
      return view.data() == nullptr || view.stride(axis) == 1 || (Axis == 1 && view.extent(axis) == 1);
    };
    return good(in.transition) && good(in.input) && good(in.output) && good(in.initial_state) && good(final_state);
  }

  template <class Number, std::size_t R, class... Index>
  static auto place(const tensor_view<Number, R>& view, Index... first) {
    using real = std::conditional_t<std::is_const_v<Number>, const T, T>;
    if (view.data() == nullptr) return diagonal_place<real>{};
    return diagonal_place<real>{real_numbers(view.row(first...)), view.stride(R - 2) * parts<P>,
                                view.stride(R - 1) * parts<P>};
  }

  /// One token of a sequence: some registers of channels from `first` on, their operands where they lie.
  template <bool HasInput, bool Channels>
  void step(const sequence& seq, index_t number, index_t first, index_t registers) const {
    const index_t N = in.transition.extent(1), D = out.extent(2);
    const auto count = [&](index_t r) { return std::min(L, D - first - r * L); };
    const diagonal_token<T> token{place(in.transition, first),       place(in.input, first),
                                  place(in.output, first),           place(in.initial_state, number, first),
                                  place(final_state, number, first), readout == readout::conjugate_pairs ? T(2) : T(1)};
    alignas(64) T u[static_cast<std::size_t>(most_step_registers * L)];
    alignas(64) T y[static_cast<std::size_t>(most_step_registers * L)];
    const E* const from = in.x.row(seq.batch, seq.key_row, first);
    for (index_t r = 0; r < registers; ++r) {
      const simd::batch<T> x = simd::load_as_n<T>(from + r * L, count(r));
      simd::store(u + r * L, x);
      simd::store(y + r * L, in.skip.data() == nullptr ? simd::batch<T>(T(0))
                                                       : simd::load_n(in.skip.row(first + r * L), count(r)) * x);
    }
    if constexpr (Channels) {
      diagonal_step_channels<P, HasInput>(token, std::min(registers * L, D - first), N, u, y);
    } else {
      for (index_t r = 0; r < registers; ++r)
        diagonal_step_states<P, HasInput>(token.from(r * L, 0), count(r), N, u + r * L, y + r * L);
    }
    O* const to = out.row(seq.batch, seq.key_row, first);
    for (index_t r = 0; r < registers; ++r) simd::store_as_n(to + r * L, simd::load(y + r * L), count(r));
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
/// of 6 N fused operations per number the scan is the quicker one up to about a hundred states.
///
/// Shapes     x, out: (B, T, D), any strides, last axis contiguous. Parameters: (D, N), any strides (0 repeats them for all
///            channels), states or channels contiguous. skip: (D). States: (n, D, N), complex if the parameters are, their states or
///            channels contiguous: tensors (N, D) and (n, N, D) are taken through permuted().
/// Aliasing   out may be x itself, the final state the initial one; any other overlap is an error.
/// Numerics   computed in float (double for double); |error| <= u (8 A + 4 A1), A the sum of the absolute values of all terms and A1 that
///            with every term times its distance in tokens. States do not grow without input if |transition| <= 1. A transition
///            of 0 does not read the state, NaN included; a NaN stays in its channel and sequence. The same bits for
///            any executor, batch neighbours, strides and split into calls (T = 1 is the step), reversed as flipped, packed as alone.
/// Cost       6 N (8 N with input; real: 2 N, 3 N) fma per number; x and out once. Tasks are up to 4 registers of channels:
///            one sequence of few channels is one task. Where every sequence has one token, and channels are contiguous in all
///            parameters and states, or states, these are read where they lie. Nothing is allocated beyond a thread's scratch.
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
    detail::check_states_or_channels_contiguous(name, parameter);
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
  const auto sequence_of = [&](index_t i) { return options.sequences.at(i, x.extent(1), x.extent(1)); };
  bool steps = true;
  for (index_t i = 0; i < n && steps; ++i) steps = sequence_of(i).keys == 1;
  const bool by_channels = problem.template all_contiguous<0>(), by_states = problem.template all_contiguous<1>();
  const bool in_place = steps && (by_channels || by_states);
  // Parameters are put in order once per task, for all its sequences; tasks are made smaller where there are threads for them.
  const index_t blocks = (D + problem.L - 1) / problem.L;
  const index_t wanted = 4 * std::max<index_t>(1, on.concurrency());
  const index_t registers =
      std::clamp<index_t>(n * blocks / wanted, 1, in_place ? problem.most_step_registers : problem.most_registers);
  const index_t groups = (blocks + registers - 1) / registers;
  const index_t together = std::clamp<index_t>(std::min(256 / std::max<index_t>(1, x.extent(1)), n * groups / wanted),
                                               1, std::max<index_t>(1, n));
  detail::run_tasks(on, (n + together - 1) / together * groups, [&](index_t task) {
    const index_t block = task % groups * registers, number = task / groups * together;
    const index_t first = block * problem.L, now = std::min(registers, blocks - block);
    const auto each = [&](auto&& work) {
      for (index_t i = number; i < std::min(n, number + together); ++i) work(sequence_of(i), i);
    };
    const auto step = [&](auto has_input, auto channels) {
      each([&](const sequence& seq, index_t i) { problem.template step<has_input, channels>(seq, i, first, now); });
    };
    if (in_place) {
      if (input.data() != nullptr) {
        by_channels ? step(std::true_type{}, std::true_type{}) : step(std::true_type{}, std::false_type{});
      } else {
        by_channels ? step(std::false_type{}, std::true_type{}) : step(std::false_type{}, std::false_type{});
      }
      return;
    }
    scratch_frame frame;
    const auto workspace = problem.prepare(first, now, frame);
    each([&](const sequence& seq, index_t i) { problem.run(seq, i, workspace); });
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
