// SPDX-License-Identifier: Apache-2.0
/// @file Diagonal recurrences with channels in lanes: some states of a register of channels, through a block of tokens.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/unroll.hpp>

#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <class P>
struct parts_of_number {
  using real = P;
  static constexpr index_t count = 1;
};
template <class T>
struct parts_of_number<std::complex<T>> {
  using real = T;
  static constexpr index_t count = 2;
};

/// 1 for real numbers, 2 for complex ones.
template <class P>
inline constexpr index_t parts = parts_of_number<P>::count;
template <class P>
using real_part_t = typename parts_of_number<P>::real;

/// States that stay in registers together: each a chain of its own, enough of them to hide the latency of two fmas.
template <class P>
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr index_t states_together = parts<P> == 2 ? 4 : 8;
#else
inline constexpr index_t states_together = parts<P> == 2 ? 2 : 4;
#endif

/// Tokens of a block: its inputs and outputs of a register of channels stay in the first cache.
inline constexpr index_t diagonal_block = 64;

/// Registers of the states' parameters: state n, part p at data[(n parts + p) lanes].
template <class T>
struct diagonal_lines {
  const T* transition;
  const T* input;   ///< null: 1
  const T* output;  ///< imaginary parts negated
  T* state;
};

/// Count states, from the first of `lines` on, through n tokens: y[t] += sum over states of Re(output h[t]).
///
/// One fma chain per output over ascending states; the state's parts are two fmas behind the product of the input. `Resets`: a
/// transition of 0 does not read the state.
template <class P, index_t Count, bool HasInput, bool Resets>
TOKENMIX_NOINLINE void diagonal_steps(const diagonal_lines<real_part_t<P>>& lines, const real_part_t<P>* u,
                                      real_part_t<P>* y, index_t n) {
  using T = real_part_t<P>;
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  constexpr auto states = static_cast<std::size_t>(Count);
  constexpr auto all = static_cast<std::size_t>(Count * parts<P>);
  [[maybe_unused]] const V zero(T(0));
  V transition[all], output[all], h[all], input[HasInput ? all : 1];
  simd::mask<T> gone[Resets ? states : 1];
  simd::unroll<Count * parts<P>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    transition[i] = simd::load(lines.transition + i * L);
    output[i] = simd::load(lines.output + i * L);
    h[i] = simd::load(lines.state + i * L);
    if constexpr (HasInput) input[i] = simd::load(lines.input + i * L);
  });
  if constexpr (Resets) {
    simd::unroll<Count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      if constexpr (parts<P> == 2) {
        gone[i] = (transition[2 * i] == zero) & (transition[2 * i + 1] == zero);
      } else {
        gone[i] = transition[i] == zero;
      }
    });
  }
  for (index_t t = 0; t < n; ++t) {
    const V now = simd::load(u + t * L);
    V sum = simd::load(y + t * L);
    simd::unroll<Count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      if constexpr (parts<P> == 2) {
        constexpr index_t re = 2 * i, im = 2 * i + 1;
        V a = h[re], b = h[im];
        if constexpr (Resets) a = simd::select(gone[i], zero, a), b = simd::select(gone[i], zero, b);
        if constexpr (HasInput) {
          h[re] = simd::fma(transition[re], a, simd::fnma(transition[im], b, input[re] * now));
          h[im] = simd::fma(transition[re], b, simd::fma(transition[im], a, input[im] * now));
        } else {
          h[re] = simd::fma(transition[re], a, simd::fnma(transition[im], b, now));
          h[im] = simd::fma(transition[re], b, transition[im] * a);
        }
        sum = simd::fma(output[im], h[im], simd::fma(output[re], h[re], sum));
      } else {
        V a = h[i];
        if constexpr (Resets) a = simd::select(gone[i], zero, a);
        if constexpr (HasInput) {
          h[i] = simd::fma(transition[i], a, input[i] * now);
        } else {
          h[i] = simd::fma(transition[i], a, now);
        }
        sum = simd::fma(output[i], h[i], sum);
      }
    });
    simd::store(y + t * L, sum);
  }
  simd::unroll<Count * parts<P>>([&](auto i) TOKENMIX_LAMBDA_INLINE { simd::store(lines.state + i * L, h[i]); });
}

/// All states of the lines through one block of tokens; `between` is called after every few of them.
template <class P, class Between>
void diagonal_block_of_tokens(diagonal_lines<real_part_t<P>> lines, index_t states, bool resets,
                              const real_part_t<P>* u, real_part_t<P>* y, index_t n, Between&& between) {
  constexpr index_t S = states_together<P>;
  constexpr index_t step = parts<P> * simd::lanes<real_part_t<P>>;
  const auto run = [&](auto count, auto has_input, auto with_resets) {
    diagonal_steps<P, count, has_input, with_resets>(lines, u, y, n);
  };
  const auto go = [&](auto count) {
    if (lines.input != nullptr) {
      resets ? run(count, std::true_type{}, std::true_type{}) : run(count, std::true_type{}, std::false_type{});
    } else {
      resets ? run(count, std::false_type{}, std::true_type{}) : run(count, std::false_type{}, std::false_type{});
    }
    lines.transition += count * step;
    lines.output += count * step;
    lines.state += count * step;
    if (lines.input != nullptr) lines.input += count * step;
    between();
  };
  index_t i = 0;
  for (; i + S <= states; i += S) go(std::integral_constant<index_t, S>{});
  for (; i < states; ++i) go(std::integral_constant<index_t, 1>{});
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
