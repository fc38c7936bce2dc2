// SPDX-License-Identifier: Apache-2.0
/// @file One token of diagonal recurrences: parameters and states where they lie, each read once, states written once.
#pragma once

#include <tokenmix/core/types.hpp>
#include <tokenmix/mixers/state_space/detail/diagonal_lanes.hpp>
#include <tokenmix/simd/pairs.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// (channels, states) numbers as real ones, and the strides in these. Null: none.
template <class T>
struct diagonal_place {
  T* at = nullptr;
  index_t channel = 0;
  index_t state = 0;

  diagonal_place from(index_t c, index_t n) const {
    return {at == nullptr ? at : at + c * channel + n, channel, state};
  }
};

/// What a step of some channels reads and writes.
template <class T>
struct diagonal_token {
  diagonal_place<const T> transition, input, output;
  diagonal_place<const T> initial;  ///< null: 0
  diagonal_place<T> final;          ///< null: nobody wants it
  T factor;                         ///< the readout's

  /// From a channel and the number of one of its states on.
  diagonal_token from(index_t c, index_t n) const {
    return {transition.from(c, n), input.from(c, n), output.from(c, n), initial.from(c, n), final.from(c, n), factor};
  }
};

/// The parts of lanes<T> numbers, which lie in one register or two.
template <class P>
TOKENMIX_ALWAYS_INLINE void separate_parts(simd::batch<real_part_t<P>>* parts_of) {
  if constexpr (parts<P> == 2) {
    const auto p = simd::separate<real_part_t<P>>(parts_of[0], parts_of[1]);
    parts_of[0] = p.first, parts_of[1] = p.second;
  }
}
/// The way back.
template <class P>
TOKENMIX_ALWAYS_INLINE void join_parts(simd::batch<real_part_t<P>>* parts_of) {
  if constexpr (parts<P> == 2) {
    const simd::pairs<real_part_t<P>> p{parts_of[0], parts_of[1]};
    simd::join<real_part_t<P>>(p, parts_of[0], parts_of[1]);
  }
}

/// One state of a register, its registers loaded and stored by `load` and `store`; the parts of the new state are left in h.
template <class P, bool HasInput, class Load, class Store>
TOKENMIX_ALWAYS_INLINE void diagonal_step_state(const diagonal_token<real_part_t<P>>& token,
                                                const simd::batch<real_part_t<P>>& now, simd::batch<real_part_t<P>>* h,
                                                Load&& load, Store&& store) {
  using V = simd::batch<real_part_t<P>>;
  V a[static_cast<std::size_t>(parts<P>)], b[static_cast<std::size_t>(parts<P>)];
  const auto take = [&](const auto& place, V* to) TOKENMIX_LAMBDA_INLINE {
    simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { to[p] = simd::in_register(load(place, p)); });
    separate_parts<P>(to);
  };
  take(token.transition, a);
  if constexpr (HasInput) take(token.input, b);
  if (token.initial.at == nullptr) {
    simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { h[p] = V(real_part_t<P>(0)); });
  } else {
    take(token.initial, h);
    reset_state<P>(resets_state<P>(a), h);
  }
  advance_state<P, HasInput>(a, b, now, h);
  V all[static_cast<std::size_t>(parts<P>)];
  simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { all[p] = h[p]; });
  join_parts<P>(all);
  simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { store(p, all[p]); });
}

/// Channels contiguous: state after state of all these channels, in the order of memory. y holds what outputs begin with; it and u
/// have room for whole registers.
template <class P, bool HasInput>
TOKENMIX_NOINLINE void diagonal_step_channels(diagonal_token<real_part_t<P>> token, index_t channels, index_t states,
                                              const real_part_t<P>* u, real_part_t<P>* y) {
  using T = real_part_t<P>;
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  const V factor[2] = {V(token.factor), V(-token.factor)};
  const auto lanes = [&](index_t d, auto&& load, auto&& store) TOKENMIX_LAMBDA_INLINE {
    const auto at = [d, &load](const auto& place, index_t p)
                        TOKENMIX_LAMBDA_INLINE { return load(place.at + d * parts<P> + p * simd::lanes<T>, p); };
    V h[static_cast<std::size_t>(parts<P>)], c[static_cast<std::size_t>(parts<P>)];
    diagonal_step_state<P, HasInput>(token, simd::load(u + d), h, at,
                                     [&](index_t p, const V& state) TOKENMIX_LAMBDA_INLINE {
                                       if (token.final.at != nullptr)
                                         store(token.final.at + d * parts<P> + p * L, p, state);
                                     });
    simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { c[p] = simd::in_register(at(token.output, p)); });
    separate_parts<P>(c);
    simd::unroll<parts<P>>([&](auto p) TOKENMIX_LAMBDA_INLINE { c[p] = c[p] * factor[p]; });
    simd::store(y + d, read_state<P>(c, h, simd::load(y + d)));
  };
  for (index_t n = 0; n < states; ++n) {
    index_t d = 0;
    for (; d + L <= channels; d += L) {
      lanes(
          d, [](const T* p, index_t) TOKENMIX_LAMBDA_INLINE { return simd::load(p); },
          [](T* p, index_t, const V& state) TOKENMIX_LAMBDA_INLINE { simd::store(p, state); });
    }
    if (d < channels) {
      // Numbers of a state in its register p.
      const auto valid = [all = (channels - d) * parts<P>](index_t p) {
        return std::clamp<index_t>(all - p * L, 0, index_t{L});
      };
      lanes(
          d,
          [&](const T* p, index_t i)
              TOKENMIX_LAMBDA_INLINE { return valid(i) == 0 ? V(T(0)) : simd::load_n(p, valid(i)); },
          [&](T* p, index_t i, const V& state) TOKENMIX_LAMBDA_INLINE {
            if (valid(i) > 0) simd::store_n(p, state, valid(i));
          });
    }
    const auto next = [](auto& place) TOKENMIX_LAMBDA_INLINE {
      if (place.at != nullptr) place.at += place.state;
    };
    next(token.transition), next(token.output), next(token.initial), next(token.final);
    if constexpr (HasInput) next(token.input);
  }
}

/// A square of lanes<T> channels by lanes<T> numbers: states advance in the lanes that they lie in, and are turned into the lanes of
/// channels to be summed, `numbers` of them if not the whole square. u: for every register of rows what it adds.
template <class P, bool HasInput>
TOKENMIX_ALWAYS_INLINE simd::batch<real_part_t<P>> diagonal_step_square(const diagonal_token<real_part_t<P>>& token,
                                                                        index_t numbers, const real_part_t<P>* u,
                                                                        simd::batch<real_part_t<P>> sum) {
  using T = real_part_t<P>;
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  diagonal_token<T> rows = token;
  V h[static_cast<std::size_t>(L)];
  simd::unroll<L / parts<P>>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    V state[static_cast<std::size_t>(parts<P>)];
    diagonal_step_state<P, HasInput>(
        rows, simd::load(u + i * L), state,
        [](const auto& place, index_t p) TOKENMIX_LAMBDA_INLINE { return simd::load(place.at + p * place.channel); },
        [&](auto p, const V& row) TOKENMIX_LAMBDA_INLINE {
          h[i * parts<P> + p] = row;
          simd::store(rows.final.at + p * rows.final.channel, row);
        });
    const auto next = [](auto& place) TOKENMIX_LAMBDA_INLINE {
      if (place.at != nullptr) place.at += parts<P> * place.channel;
    };
    next(rows.transition), next(rows.initial), next(rows.final);
    if constexpr (HasInput) next(rows.input);
  });
  const V factor[2] = {V(token.factor), V(-token.factor)};
  V c[static_cast<std::size_t>(L)];
  simd::transpose<T>(h);
  simd::load_transposed(token.output.at, token.output.channel, c);
  if (numbers == L) {
    simd::unroll<L>([&](auto j) TOKENMIX_LAMBDA_INLINE { sum = simd::fma(c[j] * factor[j % parts<P>], h[j], sum); });
  } else {
    for (index_t j = 0; j < numbers; ++j) sum = simd::fma(c[j] * factor[j % parts<P>], h[j], sum);
  }
  return sum;
}

/// States contiguous: a register of channels, `count` of them, through all states. What is less than a square is copied into one.
template <class P, bool HasInput>
TOKENMIX_NOINLINE void diagonal_step_states(const diagonal_token<real_part_t<P>>& token, index_t count, index_t states,
                                            const real_part_t<P>* u, real_part_t<P>* y) {
  using T = real_part_t<P>;
  using V = simd::batch<T>;
  constexpr index_t L = simd::lanes<T>;
  alignas(64) T written[static_cast<std::size_t>(L * L / parts<P>)];
  for (index_t i = 0; i < L; ++i) std::fill_n(written + i * (L / parts<P>), L / parts<P>, u[i]);
  alignas(64) T copies[5][static_cast<std::size_t>(L * L)];
  V sum = simd::load(y);
  for (index_t n = 0; n < states * parts<P>; n += L) {
    const index_t numbers = std::min(L, states * parts<P> - n);
    diagonal_token<T> square = token.from(0, n);
    // A branch for every row costs more than stores that nobody wants.
    if (square.final.at == nullptr) square.final = {copies[4], L, 1};
    if (numbers == L && count == L) {
      sum = diagonal_step_square<P, HasInput>(square, L, written, sum);
      continue;
    }
    const auto copy = [&](diagonal_place<const T>& place, T* to) {
      if (place.at == nullptr) return;
      for (index_t i = 0; i < L; ++i)
        simd::store(to + i * L, i < count ? simd::load_n(place.at + i * place.channel, numbers) : V(T(0)));
      place = {to, L, 1};
    };
    copy(square.transition, copies[0]), copy(square.output, copies[1]), copy(square.initial, copies[2]);
    if constexpr (HasInput) copy(square.input, copies[3]);
    square.final = {copies[4], L, 1};
    sum = diagonal_step_square<P, HasInput>(square, numbers, written, sum);
    if (token.final.at == nullptr) continue;
    const diagonal_place<T> to = token.final.from(0, n);
    for (index_t i = 0; i < count; ++i) simd::store_n(to.at + i * to.channel, simd::load(copies[4] + i * L), numbers);
  }
  simd::store(y, sum);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
