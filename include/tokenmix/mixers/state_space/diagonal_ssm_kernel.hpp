// SPDX-License-Identifier: Apache-2.0
/// @file The convolution filter of a diagonal state-space model: its answer to one impulse.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/mixers/state_space/detail/matrix_product.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// What the filter is made of; P is the type of parameters, std::complex<T> or T.
template <class P>
struct diagonal_ssm_kernel_inputs {
  tensor_view<const P, 2> transition{};  // (D, N)
  tensor_view<const P, 2> input{};       // (D, N); 1 if empty
  tensor_view<const P, 2> output{};      // (D, N)
};

struct diagonal_ssm_kernel_options {
  tokenmix::readout readout = tokenmix::readout::conjugate_pairs;
};

namespace detail {

/// Taps that one table of powers serves, and how many times that in one product.
inline constexpr index_t kernel_block = 64;
inline constexpr index_t kernel_blocks_together = 16;

/// The parts of complex numbers, side by side.
struct split_numbers {
  double* re;
  double* im;
};

/// a = a b for n complex numbers, n a multiple of lanes<double>.
inline void multiply_split_numbers(const split_numbers& a, const split_numbers& b, index_t n) {
  for (index_t i = 0; i < n; i += simd::lanes<double>) {
    const auto x = simd::load(a.re + i), y = simd::load(a.im + i), u = simd::load(b.re + i), v = simd::load(b.im + i);
    simd::store(a.re + i, simd::fnma(y, v, x * u));
    simd::store(a.im + i, simd::fma(y, u, x * v));
  }
}

template <class T>
double real_of(std::complex<T> z) {
  return static_cast<double>(z.real());
}
template <class T>
double imaginary_of(std::complex<T> z) {
  return static_cast<double>(z.imag());
}
template <class T>
  requires std::is_floating_point_v<T>
double real_of(T x) {
  return static_cast<double>(x);
}
template <class T>
  requires std::is_floating_point_v<T>
double imaginary_of(T) {
  return 0;
}

/// Taps of one channel, as products of the states' weights at the starts of blocks and a table of powers inside them:
///
///     taps[j block + i] = sum over n of Re(weight[n] transition[n]^(j block)   transition[n]^i)
///
/// where the former factor moves on in double from block to block, so that roundings to T do not add up with l.
template <class P>
void diagonal_kernel_of_channel(const P* transition, const P* input, const P* output, index_t states, double factor,
                                real_part_t<P>* taps, index_t length) {
  using T = real_part_t<P>;
  constexpr index_t Q = kernel_block, J = kernel_blocks_together;
  const index_t numbers = states * parts<P>, lines = registers_of<double>(states);
  scratch_frame frame;
  const auto take_split = [&] { return split_numbers{frame.take<double>(lines), frame.take<double>(lines)}; };
  const split_numbers step = take_split(), power = take_split(), weight = take_split(), stride = take_split();
  T* const powers = frame.take<T>(Q * numbers);   // (block, parts N)
  T* const table = frame.take<T>(numbers * Q);    // (parts N, block)
  T* const weights = frame.take<T>(J * numbers);  // (blocks, parts N)
  T* const line = frame.take<T>(Q);
  // A row: real parts, then imaginary ones times `sign`.
  const auto put = [&](const split_numbers& from, T* to, T sign) {
    for (index_t n = 0; n < states; ++n) to[n] = static_cast<T>(from.re[n]);
    if constexpr (parts<P> == 2) {
      for (index_t n = 0; n < states; ++n) to[states + n] = sign * static_cast<T>(from.im[n]);
    }
  };
  for (index_t n = 0; n < lines; ++n) {
    const bool there = n < states;
    step.re[n] = there ? real_of(transition[n]) : 0;
    step.im[n] = there ? imaginary_of(transition[n]) : 0;
    weight.re[n] = there ? factor * real_of(output[n]) : 0;
    weight.im[n] = there ? factor * imaginary_of(output[n]) : 0;
    stride.re[n] = there && input != nullptr ? real_of(input[n]) : 1;
    stride.im[n] = there && input != nullptr ? imaginary_of(input[n]) : 0;
    power.re[n] = 1;
    power.im[n] = 0;
  }
  multiply_split_numbers(weight, stride, lines);
  for (index_t i = 0; i < Q; ++i) {
    put(power, powers + i * numbers, T(1));
    multiply_split_numbers(power, step, lines);
  }
  simd::transpose_in(powers, numbers, Q, numbers, table, Q);
  for (index_t first = 0; first < length; first += J * Q) {
    const index_t rows = std::min(J, (length - first + Q - 1) / Q), whole = std::min(J, (length - first) / Q);
    for (index_t j = 0; j < rows; ++j) {
      put(weight, weights + j * numbers, T(-1));
      multiply_split_numbers(weight, power, lines);
    }
    if (whole > 0) matrix_product(weights, numbers, whole, table, Q, numbers, taps + first, Q, Q);
    if (whole == rows) continue;
    matrix_product(weights + whole * numbers, numbers, 1, table, Q, numbers, line, Q, Q);
    std::copy_n(line, length - first - whole * Q, taps + first + whole * Q);
  }
}

}  // namespace detail

/// The filter that makes a diagonal state-space model a convolution.
///
///     kernel[d, l] = sum over n of Re(output[d, n] transition[d, n]^l input[d, n])     twice that with readout::conjugate_pairs
///
/// so that diagonal_ssm(x) from an empty state = long_convolution(x, kernel), with the same skip.
///
/// Shapes     parameters: (D, N), any strides, last axis contiguous. kernel: (D, L), last axis contiguous.
/// Aliasing   none.
/// Numerics   powers are computed in double, from the parameters as they are rounded: a Vandermonde product without
///            its rounding in T growing with l. |error| <= u (2 N + 6) sum |output transition^l input|, and for double
///            l u of the same besides. Powers that underflow are 0.
/// Cost       2 N fma per tap (N if real) as matrix products; a table of 64 powers per state and channel.
/// Errors     shape_error as the messages say; nothing is written then.
/// Source     Gu et al. 2022 (S4D), section 3.3.
template <class P, class T, executor Executor = calling_thread>
void diagonal_ssm_kernel(const diagonal_ssm_kernel_inputs<P>& inputs, tensor_view<T, 2> kernel,  // (D, L)
                         const diagonal_ssm_kernel_options& options = {}, Executor&& on = {}) {
  static_assert(std::is_same_v<detail::real_part_t<P>, T>, "the filter is of the parameters' type");
  const index_t D = inputs.transition.extent(0), N = inputs.transition.extent(1), L = kernel.extent(1);
  const tensor_view<const T, 2> result = kernel;
  const auto check_parameter = [&](const char* name, const tensor_view<const P, 2>& parameter) {
    detail::check_input(name, parameter);
    detail::check_shape(name, parameter, {D, N}, "(D, N)");
    detail::check_overlap("kernel", result, name, parameter);
  };
  check_parameter("transition", inputs.transition);
  check_parameter("output", inputs.output);
  if (inputs.input.data() != nullptr) check_parameter("input", inputs.input);
  detail::check_output("kernel", result);
  detail::check_shape("kernel", result, {D, L}, "(D, L)");
  const double factor = options.readout == readout::conjugate_pairs ? 2.0 : 1.0;
  detail::run_tasks(on, L == 0 ? 0 : D, [&](index_t d) {
    detail::diagonal_kernel_of_channel<P>(inputs.transition.row(d),
                                          inputs.input.data() == nullptr ? nullptr : inputs.input.row(d),
                                          inputs.output.row(d), N, factor, kernel.row(d), L);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
