// SPDX-License-Identifier: Apache-2.0
/// @file The convolution filter of a diagonal state-space model: its answer to one impulse.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/unroll.hpp>

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

/// Taps that one table of powers serves.
inline constexpr index_t kernel_block = 64;

template <class T>
std::complex<double> as_complex_double(std::complex<T> z) {
  return {static_cast<double>(z.real()), static_cast<double>(z.imag())};
}
template <class T>
  requires std::is_floating_point_v<T>
std::complex<double> as_complex_double(T z) {
  return {static_cast<double>(z), 0.0};
}

/// (a b), without the cases that std::complex has for infinities.
inline std::complex<double> plain_product(std::complex<double> a, std::complex<double> b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

/// One channel: taps[j block + i] = sum over n of Re(weight_n power_n^(j block) power_n^i), where power^i comes from a table and
/// weight power^(j block) moves on in double from block to block.
template <class P>
void diagonal_kernel_of_channel(const P* transition, const P* input, const P* output, index_t states, double factor,
                                real_part_t<P>* taps, index_t length) {
  using T = real_part_t<P>;
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>, Q = kernel_block, registers = Q / L < 4 ? Q / L : 4;
  constexpr bool is_complex = parts<P> == 2;
  scratch_frame frame;
  T* const table = frame.take<T>(states * parts<P> * Q);
  auto* const anchor = frame.take<std::complex<double>>(states);
  auto* const stride = frame.take<std::complex<double>>(states);
  for (index_t n = 0; n < states; ++n) {
    const std::complex<double> a = as_complex_double(transition[n]);
    anchor[n] = factor * plain_product(as_complex_double(output[n]),
                                       input == nullptr ? std::complex<double>(1.0) : as_complex_double(input[n]));
    std::complex<double> power(1.0);
    for (index_t i = 0; i < Q; ++i) {
      table[n * parts<P> * Q + i] = static_cast<T>(power.real());
      if constexpr (is_complex) table[(n * 2 + 1) * Q + i] = static_cast<T>(power.imag());
      power = plain_product(power, a);
    }
    stride[n] = power;
  }
  alignas(64) T line[static_cast<std::size_t>(Q)];
  for (index_t first = 0; first < length; first += Q) {
    for (index_t at = 0; at < Q; at += registers * L) {
      V sum[static_cast<std::size_t>(registers)];
      for (V& s : sum) s = V(T(0));
      for (index_t n = 0; n < states; ++n) {
        const T* const powers = table + n * parts<P> * Q + at;
        const V re(static_cast<T>(anchor[n].real()));
        [[maybe_unused]] const V im(static_cast<T>(anchor[n].imag()));
        simd::unroll<registers>([&](auto r) TOKENMIX_LAMBDA_INLINE {
          sum[r] = simd::fma(re, simd::load(powers + r * L), sum[r]);
          if constexpr (is_complex) sum[r] = simd::fnma(im, simd::load(powers + Q + r * L), sum[r]);
        });
      }
      simd::unroll<registers>([&](auto r) TOKENMIX_LAMBDA_INLINE { simd::store(line + at + r * L, sum[r]); });
    }
    std::copy_n(line, std::min(Q, length - first), taps + first);
    for (index_t n = 0; n < states; ++n) anchor[n] = plain_product(anchor[n], stride[n]);
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
///            its rounding in T growing with l. |error| <= u (N + 6) sum |output transition^l input|, and for double
///            l u of the same besides. Powers that underflow are 0.
/// Cost       2 N fma per tap (N if real), 4 N numbers per channel of 64 taps' table.
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
