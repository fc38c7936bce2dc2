// SPDX-License-Identifier: Apache-2.0
/// @file State-space models with one diagonal state that all channels write to and read: S5, LRU.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/check_states.hpp>
#include <tokenmix/mixers/state_space/detail/matrix_product.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>

#include <algorithm>
#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of shared_diagonal_ssm.
template <class E, class T = accumulator_t<E>>
struct shared_diagonal_ssm_inputs {
  tensor_view<const E, 3> x{};                            // (B, T, D)
  tensor_view<const std::complex<T>, 1> transition{};     // (N): discrete, |transition| <= 1
  tensor_view<const std::complex<T>, 2> input{};          // (N, D): discrete
  tensor_view<const std::complex<T>, 2> output{};         // (D, N)
  tensor_view<const T, 1> skip{};                         // (D); none if empty
  tensor_view<const std::complex<T>, 2> initial_state{};  // (n, N); zero if empty
};

/// Options of shared_diagonal_ssm: use with designated initialisers; the order of the fields is API.
template <class T = float, class Sequences = whole_sequences>
struct shared_diagonal_ssm_options {
  tokenmix::readout readout = tokenmix::readout::conjugate_pairs;
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  tensor_view<std::complex<T>, 2> final_state{};     ///< output (n, N); may be the initial state
};

namespace detail {

/// The matrices as the products read them: (D, 2 M) and (2 M, D), M = N in whole registers; real parts, then imaginary ones.
template <class T>
struct shared_ssm_matrices {
  const T* input;       ///< (D, 2 M)
  const T* output;      ///< (2 M, wide D): the readout's factor inside, imaginary parts negated
  const T* transition;  ///< (2, M)
  index_t lines;        ///< M
  index_t width;        ///< D in whole registers
  bool resets;          ///< a transition is 0
};

template <class E, class T, class O>
struct shared_diagonal_ssm_problem {
  const shared_diagonal_ssm_inputs<E, T>& in;
  tensor_view<O, 3> out;
  tensor_view<std::complex<T>, 2> final_state;
  tokenmix::readout readout;
  bool reversed;

  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t block = 64;  ///< tokens of two products with a scan between them

  shared_ssm_matrices<T> make_matrices(scratch_frame& frame) const {
    const index_t N = in.transition.extent(0), D = out.extent(2), M = registers_of<T>(N), width = registers_of<T>(D);
    T* const b = frame.take<T>(D * 2 * M);
    T* const c = frame.take<T>(2 * M * width);
    T* const a = frame.take<T>(2 * M);
    std::fill_n(b, D * 2 * M, T(0));
    std::fill_n(c, 2 * M * width, T(0));
    std::fill_n(a, 2 * M, T(0));
    const T factor = readout == readout::conjugate_pairs ? T(2) : T(1);
    bool resets = false;
    for (index_t n = 0; n < N; ++n) {
      const std::complex<T> lambda = in.transition(n);
      a[n] = lambda.real();
      a[M + n] = lambda.imag();
      resets = resets || lambda == std::complex<T>(0);
      for (index_t d = 0; d < D; ++d) {
        b[d * 2 * M + n] = in.input(n, d).real();
        b[d * 2 * M + M + n] = in.input(n, d).imag();
      }
    }
    for (index_t d = 0; d < D; ++d) {
      for (index_t n = 0; n < N; ++n) {
        c[n * width + d] = factor * in.output(d, n).real();
        c[(M + n) * width + d] = -factor * in.output(d, n).imag();
      }
    }
    return {b, c, a, M, width, resets};
  }

  /// h[t] = transition h[t - 1] + v[t], in place of v, for n tokens of states [first, end), whole registers.
  template <bool Resets>
  static TOKENMIX_NOINLINE void scan(const shared_ssm_matrices<T>& m, T* rows, index_t n, T* state, index_t first,
                                     index_t end) {
    using V = simd::batch<T>;
    const index_t M = m.lines, stride = 2 * M;
    const V zero(T(0));
    // Four registers of states side by side hide each other's latency.
    const auto columns = [&](auto count, index_t at) TOKENMIX_LAMBDA_INLINE {
      constexpr auto C = static_cast<std::size_t>(index_t{count});
      V a[C], b[C], re[C], im[C];
      simd::mask<T> gone[C];
      simd::unroll<count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        a[i] = simd::load(m.transition + at + i * L);
        b[i] = simd::load(m.transition + M + at + i * L);
        re[i] = simd::load(state + at + i * L);
        im[i] = simd::load(state + M + at + i * L);
        gone[i] = (a[i] == zero) & (b[i] == zero);
      });
      for (index_t t = 0; t < n; ++t) {
        T* const row = rows + t * stride + at;
        simd::unroll<count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
          V x = re[i], y = im[i];
          if constexpr (Resets) x = simd::select(gone[i], zero, x), y = simd::select(gone[i], zero, y);
          re[i] = simd::fma(a[i], x, simd::fnma(b[i], y, simd::load(row + i * L)));
          im[i] = simd::fma(a[i], y, simd::fma(b[i], x, simd::load(row + M + i * L)));
          simd::store(row + i * L, re[i]);
          simd::store(row + M + i * L, im[i]);
        });
      }
      simd::unroll<count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        simd::store(state + at + i * L, re[i]);
        simd::store(state + M + at + i * L, im[i]);
      });
    };
    index_t at = first;
    for (; at + 4 * L <= end; at += 4 * L) columns(std::integral_constant<index_t, 4>{}, at);
    for (; at < end; at += L) columns(std::integral_constant<index_t, 1>{}, at);
  }
  static void scan(const shared_ssm_matrices<T>& m, T* rows, index_t n, T* state, index_t first, index_t end) {
    m.resets ? scan<true>(m, rows, n, state, first, end) : scan<false>(m, rows, n, state, first, end);
  }

  void load_state(const shared_ssm_matrices<T>& m, index_t number, T* state) const {
    std::fill_n(state, 2 * m.lines, T(0));
    if (in.initial_state.data() == nullptr) return;
    for (index_t n = 0; n < in.transition.extent(0); ++n) {
      state[n] = in.initial_state(number, n).real();
      state[m.lines + n] = in.initial_state(number, n).imag();
    }
  }
  void store_state(const shared_ssm_matrices<T>& m, index_t number, const T* state) const {
    if (final_state.data() == nullptr) return;
    for (index_t n = 0; n < in.transition.extent(0); ++n)
      final_state(number, n) = std::complex<T>(state[n], state[m.lines + n]);
  }

  /// Row of token t, in the order in which tokens are met.
  index_t row_of(const sequence& seq, index_t t) const { return seq.key_row + (reversed ? seq.keys - 1 - t : t); }

  /// What n tokens write: h (n, 2 M), through a place for their rows.
  void enter(const shared_ssm_matrices<T>& m, const sequence& seq, index_t t, index_t n, T* x, T* h) const {
    const index_t D = out.extent(2);
    for (index_t i = 0; i < n; ++i) simd::convert_row(in.x.row(seq.batch, row_of(seq, t + i), 0), x + i * m.width, D);
    matrix_product(x, m.width, n, m.input, 2 * m.lines, D, h, 2 * m.lines, 2 * m.lines);
  }
  /// What n tokens read, and their own channels.
  void leave(const shared_ssm_matrices<T>& m, const sequence& seq, index_t t, index_t n, const T* h, T* y) const {
    const index_t D = out.extent(2);
    matrix_product(h, 2 * m.lines, n, m.output, m.width, 2 * m.lines, y, m.width, m.width);
    for (index_t i = 0; i < n; ++i) {
      const E* const from = in.x.row(seq.batch, row_of(seq, t + i), 0);
      O* const to = out.row(seq.batch, row_of(seq, t + i), 0);
      for (index_t d = 0; d < D; d += L) {
        const index_t count = std::min(L, D - d);
        simd::batch<T> sum = simd::load(y + i * m.width + d);
        if (in.skip.data() != nullptr)
          sum = simd::fma(simd::load_n(in.skip.row(d), count), simd::load_as_n<T>(from + d, count), sum);
        simd::store_as_n(to + d, sum, count);
      }
    }
  }

  /// One sequence by one thread.
  void run(const shared_ssm_matrices<T>& m, const sequence& seq, index_t number) const {
    const index_t most = std::min(block, seq.keys);
    scratch_frame frame;
    T* const state = frame.take<T>(2 * m.lines);
    T* const rows = frame.take<T>(most * m.width);
    T* const h = frame.take<T>(most * 2 * m.lines);
    load_state(m, number, state);
    for (index_t t = 0; t < seq.keys; t += block) {
      const index_t now = std::min(block, seq.keys - t);
      enter(m, seq, t, now, rows, h);
      scan(m, h, now, state, 0, m.lines);
      leave(m, seq, t, now, h, rows);
    }
    store_state(m, number, state);
  }

  /// One sequence by all threads: some blocks at a time, whose products are shared by tokens and whose scan by states.
  template <class Executor>
  void run_on(Executor& on, const shared_ssm_matrices<T>& m, const sequence& seq, index_t number) const {
    const index_t all = (seq.keys + block - 1) / block;
    const index_t most = std::min(all, 4 * std::max<index_t>(1, on.concurrency()));
    scratch_frame frame;
    T* const state = frame.take<T>(2 * m.lines);
    T* const h = frame.take<T>(most * block * 2 * m.lines);
    load_state(m, number, state);
    for (index_t first = 0; first < all; first += most) {
      const index_t blocks = std::min(most, all - first), begin = first * block;
      const auto each_block = [&](auto&& work) {
        run_tasks(
            on, blocks, [&](scratch_frame& own) { return own.take<T>(block * m.width); },
            [&](index_t i, T* rows) {
              const index_t t = begin + i * block;
              work(t, std::min(block, seq.keys - t), rows, h + i * block * 2 * m.lines);
            });
      };
      each_block([&](index_t t, index_t n, T* rows, T* states) { enter(m, seq, t, n, rows, states); });
      run_tasks(on, (m.lines + 4 * L - 1) / (4 * L), [&](index_t i) {
        scan(m, h, std::min(blocks * block, seq.keys - begin), state, i * 4 * L, std::min(m.lines, (i + 1) * 4 * L));
      });
      each_block([&](index_t t, index_t n, T* rows, T* states) { leave(m, seq, t, n, states, rows); });
    }
    store_state(m, number, state);
  }
};

}  // namespace detail

/// A diagonal state-space model with one state of N complex numbers for all channels.
///
///     h[t]   = transition h[t - 1] + input x[t]             (N), input a matrix (N, D)
///     out[t] = Re(output h[t]) + skip x[t]                  twice the real part with readout::conjugate_pairs (S5)
///
/// discretize_shared(zoh{} or bilinear{}, ...) and lru(...) make the parameters of the trained ones.
///
/// Shapes     x, out: (B, T, D), any strides, last axis contiguous. transition: (N), input: (N, D), output: (D, N), skip: (D), any
///            strides, last axis contiguous. States: (n, N).
/// Aliasing   out may be x itself, the final state the initial one; any other overlap is an error.
/// Numerics   computed in float (double for double); |error| <= u ((D + N + 8) A + 4 A1), A the sum of the absolute values of all
///            terms and A1 that with every term times its distance in tokens. States do not grow without input if
///            |transition| <= 1. A transition of 0 does not read the state, NaN included. A NaN of a channel reaches all channels
///            from its token on, since all share the state. The same bits for any executor, batch neighbours, strides and split
///            into calls (T = 1 is the step), reversed as flipped, packed as alone.
/// Cost       4 N D + 4 N fma per token, the former as matrix products of 64 tokens. Tasks are sequences, or, where there are more
///            threads, blocks of tokens and of states. The matrices are put in order once per call: 4 N D numbers of scratch.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Smith et al. 2023 (S5), section 3; Orvieto et al. 2023 (LRU), equation 1 and appendix A.
template <class E, class T, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void shared_diagonal_ssm(const shared_diagonal_ssm_inputs<E, T>& inputs, tensor_view<O, 3> out,  // (B, T, D)
                         const shared_diagonal_ssm_options<T, Sequences>& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<accumulator_t<E>, T>, "parameters and states are of the computing type");
  static_assert(!std::is_const_v<O>, "out must be writable");
  const auto& [x, transition, input, output, skip, initial] = inputs;
  detail::check_input("x", x);
  const index_t D = x.extent(2), N = transition.extent(0);
  if (options.order == order::bidirectional)
    detail::fail_value("order is bidirectional: a recurrence has a direction; add a forward and a reverse one");
  const tensor_view<const O, 3> result = out;
  const tensor_view<const std::complex<T>, 2> final_state = options.final_state;
  const auto check_parameter = [&](const char* name, const auto& parameter, const auto& shape, const char* letters) {
    detail::check_input(name, parameter);
    detail::check_shape(name, parameter, shape, letters);
    detail::check_overlap("out", result, name, parameter);
    if (final_state.data() != nullptr) detail::check_overlap("final_state", final_state, name, parameter);
  };
  check_parameter("transition", transition, extents<1>{N}, "(N)");
  check_parameter("input", input, extents<2>{N, D}, "(N, D)");
  check_parameter("output", output, extents<2>{D, N}, "(D, N)");
  if (skip.data() != nullptr) check_parameter("skip", skip, extents<1>{D}, "(D)");
  detail::check_output("out", result);
  detail::check_same_shape("out", result, "x", x);
  detail::check_overlap("out", result, "x", x, detail::aliasing::identical);
  options.sequences.check(x.extent(0), x.extent(1), x.extent(1));
  const index_t n = options.sequences.count(x.extent(0));
  detail::check_states("initial_state", initial, options.final_state, {n, N}, "(sequences, N)", result, x);
  if (n == 0) return;

  const detail::shared_diagonal_ssm_problem<E, T, O> problem{inputs, out, options.final_state, options.readout,
                                                             options.order == order::reverse};
  scratch_frame frame;
  const detail::shared_ssm_matrices<T> matrices = problem.make_matrices(frame);
  detail::run_tasks(on, n,
                    [&](index_t i) { problem.run(matrices, options.sequences.at(i, x.extent(1), x.extent(1)), i); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
