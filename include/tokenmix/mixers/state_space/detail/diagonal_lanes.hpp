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

/// Where a state is not read, for its transition is 0.
template <class P>
TOKENMIX_ALWAYS_INLINE simd::mask<real_part_t<P>> resets_state(const simd::batch<real_part_t<P>>* transition) {
  const simd::batch<real_part_t<P>> zero(real_part_t<P>(0));
  if constexpr (parts<P> == 2) {
    return (transition[0] == zero) & (transition[1] == zero);
  } else {
    return transition[0] == zero;
  }
}
template <class P>
TOKENMIX_ALWAYS_INLINE void reset_state(const simd::mask<real_part_t<P>>& gone, simd::batch<real_part_t<P>>* h) {
  const simd::batch<real_part_t<P>> zero(real_part_t<P>(0));
  simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { h[p] = simd::select(gone, zero, h[p]); });
}

/// h = transition h + input now, part by part.
template <class P, bool HasInput>
TOKENMIX_ALWAYS_INLINE void advance_state(const simd::batch<real_part_t<P>>* transition,
                                          const simd::batch<real_part_t<P>>* input,
                                          const simd::batch<real_part_t<P>>& now, simd::batch<real_part_t<P>>* h) {
  if constexpr (parts<P> == 2) {
    const auto a = h[0], b = h[1];
    if constexpr (HasInput) {
      h[0] = simd::fma(transition[0], a, simd::fnma(transition[1], b, input[0] * now));
      h[1] = simd::fma(transition[0], b, simd::fma(transition[1], a, input[1] * now));
    } else {
      h[0] = simd::fma(transition[0], a, simd::fnma(transition[1], b, now));
      h[1] = simd::fma(transition[0], b, transition[1] * a);
    }
  } else if constexpr (HasInput) {
    h[0] = simd::fma(transition[0], h[0], input[0] * now);
  } else {
    h[0] = simd::fma(transition[0], h[0], now);
  }
}

/// sum + Re(output h), the imaginary part of the output negated.
template <class P>
TOKENMIX_ALWAYS_INLINE simd::batch<real_part_t<P>> read_state(const simd::batch<real_part_t<P>>* output,
                                                              const simd::batch<real_part_t<P>>* h,
                                                              const simd::batch<real_part_t<P>>& sum) {
  const auto real = simd::fma(output[0], h[0], sum);
  if constexpr (parts<P> == 2) {
    return simd::fma(output[1], h[1], real);
  } else {
    return real;
  }
}

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
  V transition[all], output[all], h[all], input[HasInput ? all : 1];
  simd::mask<T> gone[Resets ? states : 1];
  simd::unroll<Count * parts<P>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    transition[i] = simd::load(lines.transition + i * L);
    output[i] = simd::load(lines.output + i * L);
    h[i] = simd::load(lines.state + i * L);
    if constexpr (HasInput) input[i] = simd::load(lines.input + i * L);
  });
  if constexpr (Resets) {
    simd::unroll<Count>([&](auto i) TOKENMIX_LAMBDA_INLINE { gone[i] = resets_state<P>(transition + i * parts<P>); });
  }
  for (index_t t = 0; t < n; ++t) {
    const V now = simd::load(u + t * L);
    V sum = simd::load(y + t * L);
    simd::unroll<Count>([&](auto i) TOKENMIX_LAMBDA_INLINE {
      constexpr index_t at = i * parts<P>;
      if constexpr (Resets) reset_state<P>(gone[i], h + at);
      advance_state<P, HasInput>(transition + at, HasInput ? input + at : nullptr, now, h + at);
      sum = read_state<P>(output + at, h + at, sum);
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
